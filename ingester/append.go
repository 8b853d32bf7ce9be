package ingester

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/tracing"
)

// Push stores a batch of one tenant and fills r, which is complete when the error is nil. With an error nothing of the
// batch counts as stored, though parts of it may be: sending it again is safe at any time, for a sample that is held
// already is a success. The batch is read until Push returns; label sets and histograms are kept.
//
// Kinds of errors: Unavailable while starting, stopping, out of disk space or after a failed write of the tenant; Invalid
// for an ID that cannot name a tenant; Gone for a tenant that is to be deleted. Safe for concurrent use; pushes of one tenant follow one another.
func (i *Ingester) Push(ctx context.Context, tenantID string, b *duramenpb.Batch, r *duramenpb.PushResult) error {
	ctx, span := tracing.Start(ctx, "ingester.push")
	err := i.push(ctx, tenantID, b, r)
	endPushSpan(span, tenantID, r, err)
	return err
}

func (i *Ingester) push(ctx context.Context, tenantID string, b *duramenpb.Batch, r *duramenpb.PushResult) error {
	r.Reset()
	begin := time.Now()
	if err := i.serving(); err != nil {
		return err
	}
	if err := i.beginPush(); err != nil {
		return err
	}
	defer i.endPush()
	if err := i.free.check(); err != nil {
		return err
	}
	if err := i.dooms.refuse(tenantID); err != nil {
		return err
	}
	t, err := i.tenants.get(tenantID, true)
	if err != nil {
		return err
	}
	l, err := t.acquire(ctx)
	if err != nil {
		return err
	}
	defer l.release()
	if n := t.metadata.put(b.Metadata, i.limits.MaxMetadata(tenantID), i.now()); n > 0 {
		i.metrics.metadataFull.Add(float64(n))
	}
	if err := l.append(ctx, b, r); err != nil {
		return err
	}
	// In order to be acknowledged a sample must be durable, and one that was held before may still be on its way.
	if err := i.wal.committed(ctx, t.dir); err != nil {
		return err
	}
	if l.wantsCut() && l.cutWanted.CompareAndSwap(false, true) {
		i.poke(i.cutPoke)
	}
	t.rate.add(r.Floats+r.Histograms, i.now())
	i.metrics.count(b, r, i.cfg.StartTimestamps)
	i.metrics.pushSeconds.Observe(time.Since(begin).Seconds())
	return nil
}

func (m *metrics) count(b *duramenpb.Batch, r *duramenpb.PushResult, storesST bool) {
	m.samples.WithLabelValues("float").Add(float64(r.Floats))
	m.samples.WithLabelValues("histogram").Add(float64(r.Histograms))
	m.exemplars.Add(float64(r.Exemplars))
	m.staleRefs.Add(float64(len(r.Stale)))
	for i := range r.Refused {
		m.refused.WithLabelValues(string(r.Refused[i].Reason)).Add(float64(r.Refused[i].Floats + r.Refused[i].Histograms))
	}
	if storesST {
		return
	}
	n := 0
	for i := range b.Floats {
		if b.Floats[i].ST != 0 {
			n++
		}
	}
	for i := range b.Histograms {
		if b.Histograms[i].ST != 0 {
			n++
		}
	}
	m.startTimes.Add(float64(n))
}

// append runs the batch under the tenant's append lock, from the first AppenderV2 to the last Commit.
func (l *life) append(ctx context.Context, b *duramenpb.Batch, r *duramenpb.PushResult) error {
	l.lockAppend(ctx)
	defer l.appendMu.Unlock()
	_, span := tracing.Start(ctx, "ingester.append")
	defer span.End()
	if l.broken != nil {
		return unavailable(errReopening, time.Second)
	}
	if err := l.applyLimits(len(b.Exemplars) > 0); err != nil {
		return errkind.Wrap(errkind.Unavailable, err)
	}
	p := &l.push
	p.begin(b, r)
	defer p.end()
	err := p.run()
	if err == nil {
		l.lastAppend.Store(l.tenant.set.now().UnixMilli())
		return nil
	}
	r.Reset()
	var broken *brokenError
	if errors.As(err, &broken) {
		l.broken = broken
		l.tenant.fail(l, broken, false)
		return unavailable(broken, time.Second)
	}
	return err
}

// brokenError is a failed write: what follows in the log cannot be trusted, so the life is over.
type brokenError struct{ err error }

func (e *brokenError) Error() string { return e.err.Error() }
func (e *brokenError) Unwrap() error { return e.err }

// place names a sample of a batch: the series' index, and the sample's in Floats or, when histogram is set, Histograms.
type place struct {
	series, index int32
	histogram     bool
	taken         bool // Append took it before
}

// pusher is the state of one push. It belongs to the life and keeps its memory: a push of floats by reference allocates
// nothing per sample (BenchmarkPush).
type pusher struct {
	life *life
	b    *duramenpb.Batch
	r    *duramenpb.PushResult

	app    storage.AppenderV2 // open between the first sample and a commit, else nil
	seen   seenTable          // what the open appender holds, by series
	queued []place            // the samples that the open appender holds
	late   []place            // samples that are not newest in their series: settled after the last commit

	refusals map[refusalKey]int // index into r.Refused
	// keptBefore and wblBefore are stock's counts before the open appender: samples kept, out-of-order log writes failed.
	keptBefore, wblBefore int64
}

type refusalKey struct {
	series int32
	reason duramenpb.Reason
}

func (p *pusher) begin(b *duramenpb.Batch, r *duramenpb.PushResult) {
	p.b, p.r = b, r
	p.seen.reserve(len(b.Series))
	r.Incarnation = p.life.incarnation
	if n := len(b.Series); cap(r.Refs) < n {
		r.Refs = make([]uint64, n)
	} else {
		r.Refs = r.Refs[:n]
		clear(r.Refs)
	}
}

// end drops references into the batch and whatever an oversized batch made large.
func (p *pusher) end() {
	if p.app != nil {
		if err := p.app.Rollback(); err != nil && p.life.broken == nil {
			// Rollback logs the series that the appender created: the log is torn.
			p.life.broken = err
			p.life.tenant.fail(p.life, err, false)
		}
		p.app = nil
	}
	p.b, p.r = nil, nil
	p.queued, p.late = p.queued[:0], p.late[:0]
	clear(p.refusals)
}

func (p *pusher) run() error {
	floats, histograms := 0, 0
	for i := range p.b.Series {
		s := &p.b.Series[i]
		if err := p.series(i, floats, histograms); err != nil {
			return err
		}
		floats, histograms = s.FloatsEnd, s.HistogramsEnd
	}
	if err := p.commit(); err != nil {
		return err
	}
	if len(p.late) > 0 {
		if err := p.settleLate(); err != nil {
			return err
		}
	}
	return p.storeExemplars()
}

func (p *pusher) open() {
	p.app = p.life.db.AppenderV2(context.Background())
	p.seen.clear()
	p.keptBefore, p.wblBefore = p.life.counters.appended(), p.life.counters.wblFailures()
}

// series appends the samples of one occurrence of a series in the order of their timestamps. floats and histograms are
// where they begin in the batch.
func (p *pusher) series(i, floats, histograms int) error {
	s := &p.b.Series[i]
	if s.Ref != 0 && p.b.Incarnation != p.life.incarnation {
		p.r.Stale = append(p.r.Stale, i)
		return nil
	}
	if p.app == nil {
		p.open()
	}
	ref := storage.SeriesRef(s.Ref)
	if ref == 0 {
		// The reference tells whether the series occurred before in this batch. Append by reference then hashes no labels.
		if g, ok := p.app.(storage.GetRef); ok {
			ref, _ = g.GetRef(s.Labels, s.Labels.Hash())
		}
	}
	lateBefore, appliedAny := len(p.late), false
	for floats < s.FloatsEnd || histograms < s.HistogramsEnd {
		// First every sample is tried as the newest of its series.
		at := place{series: int32(i)}
		if histograms == s.HistogramsEnd ||
			(floats < s.FloatsEnd && p.b.Floats[floats].T <= p.b.Histograms[histograms].T) {
			at.index = int32(floats)
			floats++
		} else {
			at.index, at.histogram = int32(histograms), true
			histograms++
		}
		newRef, err := p.sample(ref, s.Labels, at)
		if err == nil {
			ref, appliedAny = newRef, true
			continue
		}
		if errors.Is(err, tsdb.ErrInvalidSample) && s.Ref != 0 {
			// The reference is unknown. Nothing of the series may count, so that all of it can be sent again.
			if appliedAny {
				return errkind.Wrap(errkind.Unavailable, errVanished)
			}
			p.late = p.late[:lateBefore]
			p.forgetRefusals(i)
			p.r.Stale = append(p.r.Stale, i)
			return nil
		}
		if err := p.sort(at, err); err != nil {
			return err
		}
	}
	p.r.Refs[i] = uint64(ref)
	return nil
}

// sample appends one sample and returns the series' reference, or stock's error, or an error that ends the push.
func (p *pusher) sample(ref storage.SeriesRef, lset labels.Labels, at place) (storage.SeriesRef, error) {
	t, st, v, h, fh := p.at(at)
	var known *seenEntry
	if ref != 0 {
		if known = p.seen.find(ref); p.seen.holds(known) && (t <= known.t || known.stale) {
			// Stock judges each sample against what is committed, and Commit drops in silence what then does not fit: the
			// second of two samples that do not ascend. A stale marker may become a histogram in Commit and then lands
			// behind the others. So what came before is committed first.
			if err := p.commit(); err != nil {
				return 0, err
			}
			p.open()
			known = p.seen.find(ref)
		}
	}
	newRef, err := p.app.Append(ref, lset, st, t, v, h, fh, storage.AOptions{RejectOutOfOrder: true})
	if err == nil && newRef == 0 {
		err = errors.New("append returned no reference")
	}
	if err != nil {
		return 0, err
	}
	if newRef != ref || known == nil {
		known = p.seen.find(newRef)
	}
	p.seen.set(known, newRef, t, !at.histogram && value.IsStaleNaN(v))
	p.queued = append(p.queued, at)
	if t < p.life.lowest {
		p.life.lowest = t
	}
	return newRef, nil
}

// sampleAt returns the sample as a lookup compares it.
func (p *pusher) sampleAt(at place) sample {
	t, _, v, h, fh := p.at(at)
	return sample{t: t, v: v, h: h, fh: fh}
}

// at returns the sample as Append takes it.
func (p *pusher) at(at place) (t, st int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram) {
	if at.histogram {
		s := &p.b.Histograms[at.index]
		return s.T, s.ST, 0, s.H, s.FH
	}
	s := &p.b.Floats[at.index]
	return s.T, s.ST, s.V, nil, nil
}

// sort decides what an error of Append means for the sample: late, refused, or the end of the push.
func (p *pusher) sort(at place, err error) error {
	var limit *seriesLimitError
	switch {
	case errors.Is(err, storage.ErrOutOfOrderSample), errors.Is(err, storage.ErrTooOldSample),
		errors.Is(err, storage.ErrOutOfBounds), errors.Is(err, storage.ErrDuplicateSampleForTimestamp):
		p.late = append(p.late, at)
		return nil
	case errors.As(err, &limit):
		p.refuse(at, duramenpb.ReasonSeriesLimit, limit.Error())
		return nil
	case errors.Is(err, tsdb.ErrInvalidSample):
		p.refuse(at, duramenpb.ReasonDuplicateLabel, err.Error())
		return nil
	case at.histogram && errors.As(err, new(histogram.Error)):
		p.refuse(at, duramenpb.ReasonInvalidHistogram, err.Error())
		return nil
	default:
		return err
	}
}

// commit ends the open appender and counts what it held as stored. When stock kept fewer than it took, all of them are
// looked up: equal samples that were held already are fine, others were dropped.
func (p *pusher) commit() error {
	if p.app == nil {
		return nil
	}
	err := p.app.Commit()
	p.app = nil
	if err != nil {
		return &brokenError{fmt.Errorf("commit: %w", err)}
	}
	if p.life.counters.wblFailures() != p.wblBefore {
		return &brokenError{errWBL}
	}
	p.raiseHighest()
	kept := p.life.counters.appended() - p.keptBefore
	if int(kept) != len(p.queued) {
		for _, at := range p.queued {
			at.taken = true
			p.late = append(p.late, at)
		}
		p.queued = p.queued[:0]
		return nil
	}
	for _, at := range p.queued {
		p.stored(at)
	}
	p.queued = p.queued[:0]
	return nil
}

// raiseHighest notes the newest timestamp that the head may hold. Only pushes write it, one at a time.
func (p *pusher) raiseHighest() {
	highest := p.life.highest.Load()
	for _, at := range p.queued {
		if at.histogram {
			highest = max(highest, p.b.Histograms[at.index].T)
		} else {
			highest = max(highest, p.b.Floats[at.index].T)
		}
	}
	p.life.highest.Store(highest)
}

// stored counts a sample that is held without having been appended now.
func (p *pusher) stored(at place) {
	if at.histogram {
		p.r.Histograms++
	} else {
		p.r.Floats++
	}
}

// refuse notes that a sample is refused for good.
func (p *pusher) refuse(at place, reason duramenpb.Reason, detail string) {
	key := refusalKey{at.series, reason}
	i, ok := p.refusals[key]
	t, _, _, _, _ := p.at(at)
	if !ok {
		if p.refusals == nil {
			p.refusals = map[refusalKey]int{}
		}
		i = len(p.r.Refused)
		p.refusals[key] = i
		p.r.Refused = append(p.r.Refused, duramenpb.Refusal{
			Series: int(at.series), Reason: reason, Timestamp: t, Detail: detail,
		})
	}
	ref := &p.r.Refused[i]
	ref.Timestamp = min(ref.Timestamp, t)
	if at.histogram {
		ref.Histograms++
		ref.Samples = append(ref.Samples, ^at.index)
	} else {
		ref.Floats++
		ref.Samples = append(ref.Samples, at.index)
	}
}

// forgetRefusals takes back the refusals of the series that is being appended: they are the newest.
func (p *pusher) forgetRefusals(series int) {
	for n := len(p.r.Refused); n > 0 && p.r.Refused[n-1].Series == series; n-- {
		delete(p.refusals, refusalKey{int32(series), p.r.Refused[n-1].Reason})
		p.r.Refused = p.r.Refused[:n-1]
	}
}

// seenTable remembers the last timestamp of each series that the open appender holds. It is an open-addressing table that
// is emptied by counting the epoch up, so that it costs neither an allocation nor a sweep per push.
type seenTable struct {
	entries []seenEntry // a power of two, at most half full
	epoch   uint32
}

type seenEntry struct {
	ref   storage.SeriesRef
	t     int64
	epoch uint32
	stale bool // the last sample is a float stale marker
}

// reserve makes room for n series and empties the table.
func (s *seenTable) reserve(n int) {
	size := 64
	for size < 2*n {
		size *= 2
	}
	if len(s.entries) < size || len(s.entries) > 64*size {
		s.entries, s.epoch = make([]seenEntry, size), 0
	}
	s.clear()
}

func (s *seenTable) clear() {
	if s.epoch++; s.epoch == 0 {
		clear(s.entries)
		s.epoch = 1
	}
}

// find returns the entry of ref, or the free one that set may take for it. It holds until the next set or clear.
func (s *seenTable) find(ref storage.SeriesRef) *seenEntry {
	mask := uint64(len(s.entries) - 1)
	for i := uint64(ref) * 0x9E3779B97F4A7C15 >> 20 & mask; ; i = (i + 1) & mask {
		if e := &s.entries[i]; e.epoch != s.epoch || e.ref == ref {
			return e
		}
	}
}

func (s *seenTable) holds(e *seenEntry) bool { return e.epoch == s.epoch }

func (s *seenTable) set(e *seenEntry, ref storage.SeriesRef, t int64, stale bool) {
	*e = seenEntry{ref: ref, t: t, epoch: s.epoch, stale: stale}
}
