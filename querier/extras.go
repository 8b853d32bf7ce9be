package querier

import (
	"context"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/duramendb/duramen/tenant"
)

// Extras answers what ingesters keep of a tenant besides samples, all of it recent and in bounded memory. What it
// returns stays valid.
type Extras interface {
	// Exemplars returns those with mint ≤ t ≤ maxt, in milliseconds, of the series that match all matchers of one of the
	// sets, by series.
	Exemplars(ctx context.Context, tenantID string, mint, maxt int64, matchers ...[]*labels.Matcher) (
		[]exemplar.QueryResult, error)
}

// exemplarQueryable answers Prometheus' API, whose Select has no context: the tenant comes from the one before it.
type exemplarQueryable struct{ extras Extras }

func (q exemplarQueryable) ExemplarQuerier(ctx context.Context) (storage.ExemplarQuerier, error) {
	id, err := tenant.FromContext(ctx)
	if err != nil {
		return nil, err
	}
	return exemplarQuerier{ctx: ctx, extras: q.extras, tenantID: id}, nil
}

type exemplarQuerier struct {
	ctx      context.Context //nolint:containedctx // of the request, which the interface does not pass on
	extras   Extras
	tenantID string
}

func (q exemplarQuerier) Select(mint, maxt int64, matchers ...[]*labels.Matcher) ([]exemplar.QueryResult, error) {
	return q.extras.Exemplars(q.ctx, q.tenantID, mint, maxt, matchers...)
}
