package querier

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/duramendb/duramen/tenant"
)

const (
	// storeMargin is the part of a query's remaining time, and mostStoreMargin the most of it, by which the store has to
	// answer earlier: so the query fails with the store's error, which says what it waited for and where, and not with
	// the engine's, which says that time is up.
	storeMargin     = 10
	mostStoreMargin = 2 * time.Second
)

// beforeDeadline returns a context that ends a little before ctx's deadline, if there is one.
func beforeDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, deadline.Add(-min(time.Until(deadline)/storeMargin, mostStoreMargin)))
}

// needsStoreKey marks the context of a query that reads below the cut.
type needsStoreKey struct{}

// markStore marks the context of a PromQL request that reads samples below the cut, for slots. It guesses: what it cannot
// read the engine will refuse, and a floor may have moved the cut when the query is planned.
func (q *Querier) markStore(r *http.Request, route string) *http.Request {
	id, err := tenant.FromContext(r.Context())
	if err != nil || !q.below(route, r.Form, q.cut(id)) {
		return r
	}
	return r.WithContext(context.WithValue(r.Context(), needsStoreKey{}, true))
}

func needsStore(ctx context.Context) bool { return ctx.Value(needsStoreKey{}) != nil }

// below reports whether a PromQL request reads samples with t < cut.
func (q *Querier) below(route string, form url.Values, cut int64) bool {
	names := [2]string{"time", "time"}
	if route == "query_range" {
		names = [2]string{"start", "end"}
	}
	var ends [2]time.Time
	for i, name := range names {
		var ok bool
		if ends[i], ok = q.timeParameter(form.Get(name)); !ok {
			return false
		}
	}
	expr, err := q.parser.ParseExpr(form.Get("query"))
	if err != nil {
		return false
	}
	if expr, err = promql.PreprocessExpr(expr, ends[0], ends[1], 0); err != nil {
		return false
	}
	mint, maxt := promql.FindMinMaxTime(&parser.EvalStmt{
		Expr: expr, Start: ends[0], End: ends[1], LookbackDelta: q.cfg.LookbackDelta,
	})
	return mint < cut && maxt != 0 // both are 0 without a selector
}

// timeParameter reads a time as Prometheus' API does: seconds since the Unix epoch, or RFC 3339. Without one it is now.
func (q *Querier) timeParameter(s string) (time.Time, bool) {
	if s == "" {
		return q.now(), true
	}
	if seconds, err := strconv.ParseFloat(s, 64); err == nil {
		return time.UnixMilli(int64(seconds * 1000)), true
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	return t, err == nil
}
