package querier

import (
	"context"
	"net/http"
	"testing"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/errkind"
)

// tsdbExtras is an ingester's answer for the one tenant, from a TSDB; without one the tenant has no data there.
type tsdbExtras struct {
	t   testing.TB
	db  *tsdb.DB
	err error
}

func (e *tsdbExtras) Exemplars(
	ctx context.Context, id string, mint, maxt int64, matchers ...[]*labels.Matcher,
) ([]exemplar.QueryResult, error) {
	require.Equal(e.t, tenantID, id)
	if e.err != nil || e.db == nil {
		return []exemplar.QueryResult{}, e.err
	}
	q, err := e.db.ExemplarQuerier(ctx)
	if err != nil {
		return nil, err
	}
	return q.Select(mint, maxt, matchers...)
}

// TestExtrasFailLoudly: what cannot be asked for is an error with its kind's status, not an empty answer.
func TestExtrasFailLoudly(t *testing.T) {
	extras := &tsdbExtras{t: t, err: errkind.New(errkind.Unavailable, "ingester is starting")}
	q, err := New(testConfig(t), nil, extras, nil, nil, clock, nopLog, nil)
	require.NoError(t, err)
	for _, path := range []string{"query_exemplars"} {
		w := do(t, q.Handler("/prometheus"), http.MethodGet, path, form("query=up"))
		require.Equal(t, http.StatusServiceUnavailable, w.Code, path)
		require.Contains(t, w.Body.String(), "ingester is starting", path)
	}
}
