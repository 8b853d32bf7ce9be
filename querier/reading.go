package querier

import (
	"context"
	"io"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/duramendb/duramen/tenant"
)

// What the answers that do not go through Prometheus' engine have in common: remote read and federation.

// closeRead closes a querier whose answer is complete or failed already.
func (q *Querier) closeRead(ctx context.Context, querier io.Closer) {
	if err := querier.Close(); err != nil {
		id, _ := tenant.FromContext(ctx)
		q.log.Warn("querier did not close", "tenant", id, "err", err)
	}
}

// logWarnings logs what the answer of a route has no place for.
func (q *Querier) logWarnings(ctx context.Context, route string, warnings annotations.Annotations) {
	for _, w := range warnings {
		id, _ := tenant.FromContext(ctx)
		q.log.Warn("query has a warning", "tenant", id, "route", route, "warning", w)
	}
}

// timedSeries ends a set with its context, which sets look at only where they wait.
type timedSeries struct {
	storage.SeriesSet
	ctx context.Context //nolint:containedctx // lives as long as the request
}

func (s timedSeries) Next() bool { return s.ctx.Err() == nil && s.SeriesSet.Next() }

func (s timedSeries) Err() error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	return s.SeriesSet.Err()
}

// timedChunks is timedSeries for chunks.
type timedChunks struct {
	storage.ChunkSeriesSet
	ctx context.Context //nolint:containedctx // lives as long as the request
}

func (s timedChunks) Next() bool { return s.ctx.Err() == nil && s.ChunkSeriesSet.Next() }

func (s timedChunks) Err() error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	return s.ChunkSeriesSet.Err()
}
