package querier

import (
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/tenant"
)

// Extras answers what ingesters keep of a tenant besides samples, all of it recent and in bounded memory. What it
// returns stays valid.
type Extras interface {
	// Exemplars returns those with mint ≤ t ≤ maxt, in milliseconds, of the series that match all matchers of one of the
	// sets, by series.
	Exemplars(ctx context.Context, tenantID string, mint, maxt int64, matchers ...[]*labels.Matcher) (
		[]exemplar.QueryResult, error)
	// Metadata returns that of one metric family or, when it is empty, of all of them by name; of each family the one that
	// was told last comes first.
	Metadata(ctx context.Context, tenantID, family string) ([]duramenpb.Metadata, error)
	// HeadStats says what the series in memory consist of, with the limit largest of each list.
	HeadStats(ctx context.Context, tenantID string, limit int) (duramenpb.HeadStats, error)
}

// exemplarQueryable answers Prometheus' API, whose Select has no context: the tenant comes from the one before it.
type exemplarQueryable struct{ q *Querier }

func (q exemplarQueryable) ExemplarQuerier(ctx context.Context) (storage.ExemplarQuerier, error) {
	id, err := tenant.FromContext(ctx)
	if err != nil {
		return nil, err
	}
	return exemplarQuerier{ctx: ctx, q: q.q, tenantID: id}, nil
}

type exemplarQuerier struct {
	ctx      context.Context //nolint:containedctx // of the request, which the interface does not pass on
	q        *Querier
	tenantID string
}

// Select returns exemplars as Extras does, without those of deleted times of their series and those beyond the tenant's
// retention.
func (e exemplarQuerier) Select(mint, maxt int64, matchers ...[]*labels.Matcher) ([]exemplar.QueryResult, error) {
	if mint = max(mint, e.q.retained(e.tenantID)); mint > maxt {
		return []exemplar.QueryResult{}, nil
	}
	m, _ := e.q.versions.glance(e.ctx, e.tenantID)
	hidden, err := e.q.hidden(m, mint, maxt)
	if err != nil {
		return nil, err
	}
	found, err := e.q.extras.Exemplars(e.ctx, e.tenantID, mint, maxt, matchers...)
	if err != nil || hidden.Empty() {
		return found, err
	}
	shown := make([]exemplar.QueryResult, 0, len(found))
	for _, series := range found {
		gaps := hidden.Intervals(series.SeriesLabels)
		series.Exemplars = slices.DeleteFunc(slices.Clone(series.Exemplars), func(x exemplar.Exemplar) bool {
			return tombstones.Interval{Mint: x.Ts, Maxt: x.Ts}.IsSubrange(gaps)
		})
		if len(series.Exemplars) > 0 {
			shown = append(shown, series)
		}
	}
	return shown, nil
}
