package querier

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"

	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/tracing"
)

// tracedEngine puts the evaluation of a query into the trace of its request. The engine's own spans go to OpenTelemetry's
// global provider, which stays unset.
type tracedEngine struct{ promql.QueryEngine }

// NewInstantQuery implements promql.QueryEngine.
func (e tracedEngine) NewInstantQuery(
	ctx context.Context, q storage.Queryable, opts promql.QueryOpts, qs string, ts time.Time,
) (promql.Query, error) {
	query, err := e.QueryEngine.NewInstantQuery(ctx, q, opts, qs, ts)
	return traceQuery(ctx, query, err, ts, ts, 0)
}

// NewRangeQuery implements promql.QueryEngine.
func (e tracedEngine) NewRangeQuery(
	ctx context.Context, q storage.Queryable, opts promql.QueryOpts, qs string, start, end time.Time, step time.Duration,
) (promql.Query, error) {
	query, err := e.QueryEngine.NewRangeQuery(ctx, q, opts, qs, start, end, step)
	return traceQuery(ctx, query, err, start, end, step)
}

func traceQuery(
	ctx context.Context, q promql.Query, err error, start, end time.Time, step time.Duration,
) (promql.Query, error) {
	if err != nil || !tracing.Current(ctx).Recording() {
		return q, err
	}
	return tracedQuery{q, start, end, step}, nil
}

type tracedQuery struct {
	promql.Query
	start, end time.Time
	step       time.Duration
}

// Exec implements promql.Query.
func (q tracedQuery) Exec(ctx context.Context) *promql.Result {
	ctx, span := tracing.Start(ctx, "querier.eval")
	defer span.End()
	span.String("query", q.String())
	span.Int("start_ms", q.start.UnixMilli())
	span.Int("end_ms", q.end.UnixMilli())
	span.Int("step_ms", q.step.Milliseconds())
	result := q.Query.Exec(ctx)
	if s := q.Stats(); s != nil && s.Samples != nil {
		span.Int("samples", s.Samples.TotalSamples)
		span.Int("samples.peak", int64(s.Samples.PeakSamples))
	}
	failSpan(span, result.Err)
	return result
}

// failSpan marks a span. The engine's own errors have no kind of ours.
func failSpan(span tracing.Span, err error) {
	var kinded *errkind.Error
	switch {
	case err == nil:
	case errors.As(cause(err), &kinded):
		span.Fail(kinded)
	default:
		span.FailBecause(err.Error())
	}
}

// tier numbers the two sources of a query.
type tier int

const (
	recentTier tier = iota
	storeTier
)

// tierSpan is the span of a Select on one tier, until its series have been listed. Samples in blocks are read later, by
// whoever iterates over the series: spans of the bucket below this one may follow its end.
type tierSpan struct {
	ctx    context.Context //nolint:containedctx // it lives as long as the Select that it is made for
	span   tracing.Span
	series int64
	ended  bool
}

// startSelects makes the contexts of a Select on both tiers, and begins their spans. Close ends what was not read to its end.
func (t *tiered[Q]) startSelects(ctx context.Context, both bool, matchers []*labels.Matcher) [2]*tierSpan {
	spans := [2]*tierSpan{{ctx: ctx}, {ctx: ctx}}
	if both {
		spans[storeTier].ctx = t.storeContext(ctx)
	}
	if !tracing.Current(ctx).Recording() {
		return spans
	}
	for i, name := range []string{"querier.select_recent", "querier.select_store"} {
		if i == int(storeTier) && !both {
			break
		}
		s := spans[i]
		s.ctx, s.span = tracing.Start(s.ctx, name)
		s.span.String("matchers", matcherText(matchers))
		t.spans = append(t.spans, s)
	}
	return spans
}

func matcherText(matchers []*labels.Matcher) string {
	var b strings.Builder
	for i, m := range matchers {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(m.String())
	}
	return b.String()
}

func (s *tierSpan) end(err error) {
	if s.ended {
		return
	}
	s.ended = true
	s.span.Int("series", s.series)
	failSpan(s.span, err)
	s.span.End()
}

// next counts a series and ends the span behind the last.
func (s *tierSpan) next(more bool, err func() error) bool {
	if more {
		s.series++
	} else {
		s.end(err())
	}
	return more
}

func (s *tierSpan) seriesSet(set storage.SeriesSet) storage.SeriesSet {
	if !s.span.Recording() {
		return set
	}
	return tracedSeriesSet{set, s}
}

func (s *tierSpan) chunkSeriesSet(set storage.ChunkSeriesSet) storage.ChunkSeriesSet {
	if !s.span.Recording() {
		return set
	}
	return tracedChunkSeriesSet{set, s}
}

type tracedSeriesSet struct {
	storage.SeriesSet
	tier *tierSpan
}

// Next implements storage.SeriesSet.
func (s tracedSeriesSet) Next() bool { return s.tier.next(s.SeriesSet.Next(), s.Err) }

type tracedChunkSeriesSet struct {
	storage.ChunkSeriesSet
	tier *tierSpan
}

// Next implements storage.ChunkSeriesSet.
func (s tracedChunkSeriesSet) Next() bool { return s.tier.next(s.ChunkSeriesSet.Next(), s.Err) }

// endPlan says in the span of a plan what was decided.
func endPlan(span tracing.Span, tenantID string, p plan, plans int, err error) {
	if !span.Recording() {
		return
	}
	span.String("tenant", tenantID)
	span.Int("cut_ms", p.view.Cut)
	span.Int("version", int64(p.view.Version))
	span.Int("blocks", int64(len(p.blocks)))
	span.Int("plans", int64(plans))
	span.Fail(err)
	span.End()
}
