package querier

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/samplemerge"
	"github.com/duramendb/duramen/tenant"
)

// ErrClosed means that a querier was used after its Close.
var ErrClosed = errors.New("querier is closed")

// errOtherTenant means that one querier was asked for two tenants: a fault of the caller.
var errOtherTenant = errors.New("querier belongs to another tenant")

// Queryable returns the tenants' samples as Prometheus' interfaces want them. The tenant comes from the context of the
// first Select, LabelValues or LabelNames, because opening a querier has none; that call also pins the plan. A querier
// belongs to one goroutine, because the head of a TSDB allows no more, and is closed once by it.
func (q *Querier) Queryable() storage.SampleAndChunkQueryable { return queryable{q} }

type queryable struct{ q *Querier }

// Querier returns a querier for samples with mint ≤ t ≤ maxt in milliseconds.
func (a queryable) Querier(mint, maxt int64) (storage.Querier, error) {
	q := a.q
	from := source[storage.Querier]{q.recent.Querier, q.store.Querier, storage.NoopQuerier()}
	plan := func(ctx context.Context, id string) (tiers[storage.Querier], error) {
		return open(ctx, q, id, mint, maxt, from)
	}
	return &sampleQuerier{tiered[storage.Querier]{q: q, mint: mint, maxt: maxt, open: plan}}, nil
}

// ChunkQuerier returns a querier for chunks with samples in mint ≤ t ≤ maxt in milliseconds.
func (a queryable) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	q := a.q
	from := source[storage.ChunkQuerier]{q.recent.ChunkQuerier, q.store.ChunkQuerier, storage.NoopChunkedQuerier()}
	plan := func(ctx context.Context, id string) (tiers[storage.ChunkQuerier], error) {
		return open(ctx, q, id, mint, maxt, from)
	}
	return &chunkQuerier{tiered[storage.ChunkQuerier]{q: q, mint: mint, maxt: maxt, open: plan}}, nil
}

// tiered is what both kinds of querier share: a plan that is made by the first call.
type tiered[Q storage.LabelQuerier] struct {
	q          *Querier
	mint, maxt int64
	open       func(ctx context.Context, tenantID string) (tiers[Q], error)

	tenantID string // of the first plan; empty until there is one
	planned  bool   // tiers is open
	tiers    tiers[Q]
	anew     *anew       // the attempt that the plan was made for, nil for a first one
	older    []tiers[Q]  // of plans before, which what has been answered may need until Close
	count    seriesCount // of all Selects
	spans    []*tierSpan // of the Selects
	cancels  []context.CancelFunc
	closed   bool
}

// plan returns the tiers for the tenant of ctx. It plans once, and once more for each further attempt, which the context
// tells. A plan that failed is tried again by the next call.
func (t *tiered[Q]) plan(ctx context.Context) (tiers[Q], error) {
	id, err := tenant.FromContext(ctx)
	switch {
	case err != nil:
		return tiers[Q]{}, err
	case t.closed:
		return tiers[Q]{}, ErrClosed
	case t.tenantID == id && t.planned && t.lasts(anewOf(ctx)):
		return t.tiers, nil
	case t.tenantID != "" && t.tenantID != id:
		return tiers[Q]{}, fmt.Errorf("query tenant %s: %w", id, errOtherTenant)
	}
	if t.planned {
		t.older, t.planned = append(t.older, t.tiers), false
	}
	if t.tiers, err = t.open(ctx, id); err != nil {
		return tiers[Q]{}, err
	}
	if t.tenantID == "" {
		t.count = seriesCount{tenantID: id, most: t.q.limits.MaxFetchedSeriesPerQuery(id)}
	}
	t.count.held.most = seatOf(ctx).bytes()
	t.tenantID, t.planned, t.anew = id, true, anewOf(ctx)
	return t.tiers, nil
}

// lasts reports that the plan will do for an attempt. A plan on a fresh manifest will not become better when it is made
// again because a block was gone.
func (t *tiered[Q]) lasts(attempt *anew) bool {
	return attempt == nil || attempt == t.anew || !attempt.broke && t.anew != nil && t.anew.fresh
}

// planSelect is plan for a Select with these hints, which may be nil. One over a limit is refused before anything is opened.
func (t *tiered[Q]) planSelect(ctx context.Context, hints *storage.SelectHints) (tiers[Q], error) {
	if id, err := tenant.FromContext(ctx); err == nil { // else plan says what is wrong
		err := checkLength(t.q.limits, id, t.q.cfg.LookbackDelta, t.mint, t.maxt, hints)
		if err != nil {
			return tiers[Q]{}, err
		}
	}
	return t.plan(ctx)
}

// Close closes both tiers. Further calls do nothing.
func (t *tiered[Q]) Close() error {
	if t.closed {
		return nil
	}
	t.closed = true
	for _, s := range t.spans {
		s.end(nil)
	}
	for _, cancel := range t.cancels {
		cancel()
	}
	var err error
	if t.planned {
		err = t.tiers.Close()
	}
	for _, o := range t.older {
		err = errors.Join(err, o.Close())
	}
	return err
}

// storeContext returns the context for a call of the store, which ends before that of the query, and at Close.
func (t *tiered[Q]) storeContext(ctx context.Context) context.Context {
	ctx, cancel := beforeDeadline(ctx)
	t.cancels = append(t.cancels, cancel)
	return ctx
}

// LabelValues returns the values of a label in order. Unlike Prometheus' they stay valid after Close.
func (t *tiered[Q]) LabelValues(
	ctx context.Context, name string, hints *storage.LabelHints, matchers ...*labels.Matcher,
) ([]string, annotations.Annotations, error) {
	return t.union(ctx, hints, func(ctx context.Context, q Q, hints *storage.LabelHints) (
		[]string, annotations.Annotations, error,
	) {
		return q.LabelValues(ctx, name, hints, slices.Clone(matchers)...)
	})
}

// LabelNames returns the names of all labels in order. Unlike Prometheus' they stay valid after Close: the HTTP API
// closes the querier before it writes them.
func (t *tiered[Q]) LabelNames(
	ctx context.Context, hints *storage.LabelHints, matchers ...*labels.Matcher,
) ([]string, annotations.Annotations, error) {
	return t.union(ctx, hints, func(ctx context.Context, q Q, hints *storage.LabelHints) (
		[]string, annotations.Annotations, error,
	) {
		return q.LabelNames(ctx, hints, slices.Clone(matchers)...)
	})
}

// asking asks one tier for names or values.
type asking[Q any] func(context.Context, Q, *storage.LabelHints) ([]string, annotations.Annotations, error)

// union asks both tiers and returns the distinct answers in order, at most as many as hints allow. Strings are copied:
// those of an ingester may lie in a mapped file, which is unmapped some time after Close.
func (t *tiered[Q]) union(
	ctx context.Context, hints *storage.LabelHints, ask asking[Q],
) (all []string, warnings annotations.Annotations, err error) {
	before := t.count.held.bytes
	err = t.q.fitting(ctx, func(bool) error {
		return t.q.again(ctx, always, func(ctx context.Context) error {
			all, warnings, err = t.unionOnce(ctx, hints, before, ask)
			return err
		})
	})
	if err != nil {
		return nil, nil, err
	}
	if hints != nil && hints.Limit > 0 && len(all) > hints.Limit {
		all = all[:hints.Limit]
	}
	return all, warnings, nil
}

// unionOnce is one attempt of union, of a query that held so many bytes before.
func (t *tiered[Q]) unionOnce(
	ctx context.Context, hints *storage.LabelHints, before int64, ask asking[Q],
) ([]string, annotations.Annotations, error) {
	tiers, err := t.plan(ctx)
	if err != nil {
		return nil, nil, err
	}
	t.count.held = held{before, seatOf(ctx).bytes()}
	hints = t.count.held.within(hints)
	type answer struct {
		values   []string
		warnings annotations.Annotations
		err      error
	}
	contexts := [2]context.Context{ctx, t.storeContext(ctx)}
	recent, store := both(tiers, func(of tier, q Q) (a answer) {
		a.values, a.warnings, a.err = ask(contexts[of], q, hints)
		return a
	}, func(err error) answer { return answer{err: err} })
	if recent.err != nil || store.err != nil {
		return nil, nil, cmp.Or(recent.err, store.err) // the same one whoever was faster
	}
	if err := t.count.held.addStrings(recent.values, store.values); err != nil {
		return nil, nil, err
	}
	all := copyStrings(recent.values)
	if tiers.both {
		all = append(all, store.values...)
		slices.Sort(all)
		all = slices.Compact(all)
	}
	return all, withWarnings(withWarnings(recent.warnings, store.warnings), tiers.warnings), nil
}

// copyStrings copies all strings into one piece of memory.
func copyStrings(values []string) []string {
	if values == nil {
		return nil
	}
	all, out := strings.Join(values, ""), make([]string, len(values))
	for i, v := range values {
		out[i], all = all[:len(v)], all[len(v):]
	}
	return out
}

// both asks the two tiers at the same time and waits for both: the store in a goroutine of its own, recent data in the
// caller's, which is the only one that may use its querier. A panic over a block fails the query and not the process.
func both[Q storage.LabelQuerier, A any](
	t tiers[Q], ask func(tier, Q) A, failed func(error) A,
) (recent, store A) {
	if !t.both {
		return ask(recentTier, t.recent), store
	}
	done := make(chan struct{})
	defer func() { <-done }()
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				store = failed(errkind.New(errkind.Internal, "query blocks: panic: %v\n%s", p, debug.Stack()))
			}
		}()
		store = ask(storeTier, t.store)
	}()
	recent = ask(recentTier, t.recent)
	<-done
	return recent, store
}

// sampleQuerier is a storage.Querier over both tiers.
type sampleQuerier struct{ tiered[storage.Querier] }

// Select returns the series of both tiers, merged. An error of either is the set's.
func (q *sampleQuerier) Select(
	ctx context.Context, sortSeries bool, hints *storage.SelectHints, matchers ...*labels.Matcher,
) storage.SeriesSet {
	if hints != nil && hints.Func == listsSeries {
		return q.list(ctx, sortSeries, hints, matchers)
	}
	return q.selectOnce(ctx, sortSeries, hints, matchers)
}

func (q *sampleQuerier) selectOnce(
	ctx context.Context, sortSeries bool, hints *storage.SelectHints, matchers []*labels.Matcher,
) storage.SeriesSet {
	t, err := q.planSelect(ctx, hints)
	if err != nil {
		return storage.ErrSeriesSet(err)
	}
	hints, some := t.within(hints)
	if !some {
		return storage.EmptySeriesSet()
	}
	spans := q.startSelects(ctx, t.both, matchers)
	recent, store := both(t, func(of tier, q storage.Querier) storage.SeriesSet {
		s := spans[of]
		return s.seriesSet(q.Select(s.ctx, sortSeries || t.both, hints, slices.Clone(matchers)...))
	}, storage.ErrSeriesSet)
	recent = t.hidden.Series(recent)
	set := recent
	if t.both {
		set = storage.NewMergeSeriesSet([]storage.SeriesSet{recent, store}, limit(hints), samplemerge.Series)
	}
	return &countedSeries{SeriesSet: warnedSeries{set, t.warnings}, count: &q.count}
}

// chunkQuerier is a storage.ChunkQuerier over both tiers.
type chunkQuerier struct{ tiered[storage.ChunkQuerier] }

// Select is sampleQuerier.Select for chunks.
func (q *chunkQuerier) Select(
	ctx context.Context, sortSeries bool, hints *storage.SelectHints, matchers ...*labels.Matcher,
) storage.ChunkSeriesSet {
	t, err := q.planSelect(ctx, hints)
	if err != nil {
		return storage.ErrChunkSeriesSet(err)
	}
	hints, some := t.within(hints)
	if !some {
		return storage.EmptyChunkSeriesSet()
	}
	spans := q.startSelects(ctx, t.both, matchers)
	recent, store := both(t, func(of tier, q storage.ChunkQuerier) storage.ChunkSeriesSet {
		s := spans[of]
		return s.chunkSeriesSet(q.Select(s.ctx, sortSeries || t.both, hints, slices.Clone(matchers)...))
	}, storage.ErrChunkSeriesSet)
	recent = t.hidden.Chunks(recent)
	set := recent
	if t.both {
		sets := []storage.ChunkSeriesSet{recent, store}
		set = storage.NewMergeChunkSeriesSet(sets, limit(hints), samplemerge.ChunkSeries)
	}
	return &countedChunks{ChunkSeriesSet: warnedChunks{set, t.warnings}, count: &q.count}
}

func limit(hints *storage.SelectHints) int {
	if hints == nil {
		return 0
	}
	return hints.Limit
}
