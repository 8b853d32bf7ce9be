package querier

import (
	"context"
	"net/url"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
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

// below reports whether a request to a route that selects series reads samples with t < cut. It guesses, for slots: what it
// cannot read the engine will refuse, and a floor may have moved the cut when the query is planned.
func (q *Querier) below(route string, form url.Values, cut int64) bool {
	var names [2]string
	switch route {
	case "query":
		names = [2]string{"time", "time"}
	case "query_range":
		names = [2]string{"start", "end"}
	default: // a list, of all times if it does not say otherwise
		start, ok := q.timeParameter(form.Get("start"))
		return ok && (form.Get("start") == "" || start.UnixMilli() < cut)
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
