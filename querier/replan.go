package querier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"

	"github.com/duramendb/duramen/chunkstore/reader"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/tenant"
)

// freshKey marks the context of a query that is to be planned on a manifest which the bucket has just been asked for.
type freshKey struct{}

func wantsFresh(ctx context.Context) bool { return ctx.Value(freshKey{}) != nil }

// gone reports that an object of a planned block was not in the bucket.
func gone(err error) bool { return errors.Is(cause(err), reader.ErrGone) }

// again carries out a query, and once more on a fresh manifest when a block of its plan is gone: blocks leave the manifest
// hours before the bucket, but a query may be planned on an old one. What the newest manifest lists and the bucket does
// not have is damage, and is not tried a third time. undelivered says whether the first attempt left nothing behind.
func (q *Querier) again(ctx context.Context, undelivered func() bool, attempt func(context.Context) error) error {
	err := attempt(ctx)
	if !gone(err) || !undelivered() {
		return err
	}
	id, _ := tenant.FromContext(ctx)
	q.metrics.gone.Inc()
	q.log.WarnContext(ctx, "block of a plan is gone, planning again on a fresh manifest", "tenant", id, "err", cause(err))
	err = attempt(context.WithValue(ctx, freshKey{}, true))
	if gone(err) {
		err = errkind.Wrap(errkind.Corrupt, fmt.Errorf(
			"tenant %s: the newest manifest lists a block that is not in the bucket: %w", id, cause(err)))
	}
	return err
}

// always is the undelivered of what is delivered whole or not at all.
func always() bool { return true }

// replanning is an engine that carries out a query as a whole again when a block of its plan is gone, or when it is too
// large for its seat. Its result is in memory, so that nothing of the first attempt has been delivered.
type replanning struct{ q *Querier }

// of returns the engine for small or large queries.
func (e replanning) of(large bool) promql.QueryEngine {
	if large {
		return tracedEngine{e.q.engine}
	}
	return tracedEngine{e.q.small}
}

// NewInstantQuery implements promql.QueryEngine.
func (e replanning) NewInstantQuery(
	ctx context.Context, q storage.Queryable, opts promql.QueryOpts, qs string, ts time.Time,
) (promql.Query, error) {
	return e.query(func(large bool) (promql.Query, error) { return e.of(large).NewInstantQuery(ctx, q, opts, qs, ts) })
}

// NewRangeQuery implements promql.QueryEngine.
func (e replanning) NewRangeQuery(
	ctx context.Context, q storage.Queryable, opts promql.QueryOpts, qs string, start, end time.Time, step time.Duration,
) (promql.Query, error) {
	return e.query(func(large bool) (promql.Query, error) {
		return e.of(large).NewRangeQuery(ctx, q, opts, qs, start, end, step)
	})
}

func (e replanning) query(newQuery func(large bool) (promql.Query, error)) (promql.Query, error) {
	first, err := newQuery(false)
	if err != nil {
		return nil, err
	}
	return &replannedQuery{Query: first, newQuery: newQuery, q: e.q}, nil
}

// replannedQuery is the query of the last attempt.
type replannedQuery struct {
	promql.Query
	newQuery func(large bool) (promql.Query, error)
	q        *Querier
}

// Exec implements promql.Query.
func (r *replannedQuery) Exec(ctx context.Context) *promql.Result {
	var result *promql.Result
	err := r.q.fitting(ctx, func(large bool) error {
		return r.q.again(ctx, always, func(ctx context.Context) error {
			if result != nil || large { // a query remembers the series of its first execution
				next, err := r.newQuery(large)
				if err != nil {
					return err
				}
				r.Query.Close()
				r.Query = next
			}
			result = r.Query.Exec(ctx)
			return result.Err
		})
	})
	if err != nil && errkind.Of(err) == errkind.Corrupt && gone(err) {
		err = promql.ErrStorage{Err: err} // for the API it is the storage that failed
	}
	result.Err = err
	return result
}
