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

// ErrAnew means that an answer of Recent ended before it was whole, and that a query which is carried out anew may get a
// whole one: a member was lost on the way, or has deleted since the plan what the plan counts on. Recent wraps it.
var ErrAnew = errors.New("the answer about recent samples broke off")

// maxAnew bounds how often a query is carried out again.
const maxAnew = 3

// anew marks the context of a query that is carried out again: its plan is made again, once.
type anew struct {
	// fresh asks for a manifest that the bucket has just been asked for.
	fresh bool
	// broke says that the answer about recent samples broke off.
	broke bool
}

type anewKey struct{}

// anewOf returns the mark of a context, nil for a first attempt.
func anewOf(ctx context.Context) *anew {
	a, _ := ctx.Value(anewKey{}).(*anew)
	return a
}

func wantsFresh(ctx context.Context) bool {
	a := anewOf(ctx)
	return a != nil && a.fresh
}

// gone reports that an object of a planned block was not in the bucket.
func gone(err error) bool { return errors.Is(cause(err), reader.ErrGone) }

// brokeOff reports that the answer about recent samples ended early.
func brokeOff(err error) bool { return errors.Is(cause(err), ErrAnew) }

// again carries out a query, and again when what it was planned on did not last:
//   - A block of the plan is gone. Blocks leave the manifest hours before the bucket, but a query may be planned on an old
//     one; so it is planned on a fresh one, once. What the newest manifest lists and the bucket does not have is damage.
//   - The answer about recent samples broke off. Recent knows better whom to ask the next time.
//
// undelivered says whether an attempt left nothing behind: what a client has got cannot be begun anew.
func (q *Querier) again(ctx context.Context, undelivered func() bool, attempt func(context.Context) error) error {
	err := attempt(ctx)
	fresh := false
	for n := 0; n < maxAnew && ctx.Err() == nil && undelivered(); n++ {
		broke := brokeOff(err)
		switch {
		case broke:
			q.metrics.anew.Inc()
		case gone(err) && !fresh:
			q.metrics.gone.Inc()
			fresh = true
		default:
			return lastingly(ctx, fresh, err)
		}
		id, _ := tenant.FromContext(ctx)
		q.log.WarnContext(ctx, "query is carried out anew", "tenant", id, "attempt", n+2, "fresh_manifest", fresh,
			"err", cause(err))
		err = attempt(context.WithValue(ctx, anewKey{}, &anew{fresh, broke}))
	}
	return lastingly(ctx, fresh, err)
}

// lastingly explains the error of the last attempt.
func lastingly(ctx context.Context, fresh bool, err error) error {
	if !fresh || !gone(err) {
		return err
	}
	id, _ := tenant.FromContext(ctx)
	return errkind.Wrap(errkind.Corrupt, fmt.Errorf(
		"tenant %s: the newest manifest lists a block that is not in the bucket: %w", id, cause(err)))
}

// always is the undelivered of what is delivered whole or not at all.
func always() bool { return true }

// replanning is an engine that carries out a query as a whole again when its plan did not last, or when it is too large
// for its seat. Its result is in memory, so that nothing of the first attempt has been delivered.
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
	if result == nil { // no query could be made
		return &promql.Result{Err: err}
	}
	if err != nil && errkind.Of(err) == errkind.Corrupt && gone(err) {
		err = promql.ErrStorage{Err: err} // for the API it is the storage that failed
	}
	result.Err = err
	return result
}
