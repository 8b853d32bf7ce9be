package ingester

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
)

// Why an exemplar is dropped: label values of a metric. A push never fails for it.
const (
	dropUnknownSeries = "unknown_series"
	dropOutOfOrder    = "out_of_order"
	dropInvalid       = "invalid"
	dropNotKept       = "not_kept"
)

// storeExemplars appends the exemplars of the batch once all of its samples are committed.
//
// Senders put exemplars into entries of their own, without samples. AppenderV2 takes exemplars only beside a sample that
// it accepts; so they go through the older interface, which looks their series up and never creates one. It keeps the
// order that the log needs, too: the record of a series before what refers to it.
func (p *pusher) storeExemplars() error {
	if len(p.b.Exemplars) == 0 {
		return nil
	}
	if !p.life.ring {
		p.dropExemplars(dropNotKept, len(p.b.Exemplars))
		return nil
	}
	if p.life.db.Head().MinTime() == math.MaxInt64 {
		// Stock would take the time of the first exemplar for that of a first sample. There are no series yet.
		p.dropExemplars(dropUnknownSeries, len(p.b.Exemplars))
		return nil
	}
	before := p.life.counters.lateExemplars()
	app := p.life.db.Appender(context.Background())
	floats, histograms, exemplars, taken := 0, 0, 0, 0
	for i := range p.b.Series {
		s := &p.b.Series[i]
		bare := floats == s.FloatsEnd && histograms == s.HistogramsEnd
		es := p.b.Exemplars[exemplars:s.ExemplarsEnd]
		floats, histograms, exemplars = s.FloatsEnd, s.HistogramsEnd, s.ExemplarsEnd
		if s.Ref != 0 && p.r.Refs[i] == 0 {
			continue // stale: all of it comes again
		}
		taken += p.seriesExemplars(app, i, es, bare)
	}
	if err := app.Commit(); err != nil {
		return &brokenError{fmt.Errorf("commit exemplars: %w", err)}
	}
	// Commit looks at each again, in the order of the batch, and drops in silence what has become too old.
	late := int(p.life.counters.lateExemplars() - before)
	p.dropExemplars(dropOutOfOrder, late)
	p.r.Exemplars += taken - late
	return nil
}

// seriesExemplars appends the exemplars of series i and returns how many are held then. bare says that the entry has no
// sample, so that it may still be asked for again by name.
func (p *pusher) seriesExemplars(app storage.ExemplarAppender, i int, es []duramenpb.Exemplar, bare bool) (taken int) {
	s := &p.b.Series[i]
	for n := range es {
		_, err := app.AppendExemplar(storage.SeriesRef(p.r.Refs[i]), s.Labels, exemplar.Exemplar{
			Labels: es[n].Labels, Value: es[n].V, Ts: es[n].T, HasTs: true,
		})
		switch {
		case err == nil: // a repeated one included
			taken++
		case errors.Is(err, storage.ErrOutOfOrderExemplar):
			p.dropExemplars(dropOutOfOrder, 1)
		case errors.Is(err, storage.ErrExemplarLabelLength):
			p.dropExemplars(dropInvalid, 1)
		case bare && s.Ref != 0: // The series is gone, or has another reference by now.
			p.r.Refs[i] = 0
			p.r.Stale = append(p.r.Stale, i)
			return taken
		default:
			p.dropExemplars(dropUnknownSeries, len(es)-n)
			return taken
		}
	}
	return taken
}

func (p *pusher) dropExemplars(reason string, n int) {
	p.life.tenant.set.metrics.exemplarsDropped.WithLabelValues(reason).Add(float64(n))
}

// Exemplars returns the exemplars with mint ≤ t ≤ maxt, in milliseconds, of the series that match all matchers of one of
// the sets, by series. They are the newest that the tenant's ring has room for; a tenant without data here has none.
// The result stays valid.
//
// Kinds of errors: Unavailable while starting, stopping or reopening.
func (i *Ingester) Exemplars(ctx context.Context, tenantID string, mint, maxt int64, matchers ...[]*labels.Matcher,
) ([]exemplar.QueryResult, error) {
	l, err := i.find(ctx, tenantID)
	if err != nil || l == nil {
		return []exemplar.QueryResult{}, err
	}
	defer l.release()
	q, err := l.db.ExemplarQuerier(ctx)
	if err != nil {
		return nil, errkind.Wrap(errkind.Unavailable, fmt.Errorf("query exemplars of %s: %w", tenantID, err))
	}
	found, err := q.Select(mint, maxt, matchers...)
	if err != nil {
		return nil, errkind.Wrap(errkind.Unavailable, fmt.Errorf("query exemplars of %s: %w", tenantID, err))
	}
	return found, nil // strings and all lie in the process' memory, not in a mapped file
}
