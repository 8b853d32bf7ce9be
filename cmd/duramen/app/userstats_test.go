package app

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/tenant"
)

type statsFunc func(tenantID string) (duramenpb.UserStats, error)

func (f statsFunc) UserStats(_ context.Context, tenantID string) (duramenpb.UserStats, error) {
	return f(tenantID)
}

// TestUserStats: a tenant sees its own numbers under the names that Cortex' clients know, or why it does not.
func TestUserStats(t *testing.T) {
	h := userStatsHandler(statsFunc(func(id string) (duramenpb.UserStats, error) {
		if id == "b" {
			return duramenpb.UserStats{}, &errkind.Error{
				Kind: errkind.Unavailable, RetryAfter: 3 * time.Second, Err: context.DeadlineExceeded,
			}
		}
		return duramenpb.UserStats{Series: 2, SamplesPerSecond: 0.5}, nil
	}))
	ask := func(id string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(tenant.WithID(t.Context(), id), http.MethodGet, "/api/v1/user_stats", nil))
		return w
	}
	a := ask("a")
	require.Equal(t, http.StatusOK, a.Code)
	require.JSONEq(t, `{"ingestionRate":0.5,"numSeries":2,"APIIngestionRate":0.5,"RuleIngestionRate":0}`, a.Body.String())
	b := ask("b")
	require.Equal(t, http.StatusServiceUnavailable, b.Code)
	require.Equal(t, "3", b.Header().Get("Retry-After"))
	require.JSONEq(t, `{"error":"context deadline exceeded"}`, b.Body.String())
}
