package app

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/tenant"
)

// statsSource knows how much a tenant writes: the ingester, or all of a cluster.
type statsSource interface {
	UserStats(ctx context.Context, tenantID string) (duramenpb.UserStats, error)
}

// userStats is what Cortex and its descendants tell a tenant about itself, with their names.
type userStats struct {
	IngestionRate     float64 `json:"ingestionRate"`
	NumSeries         uint64  `json:"numSeries"`
	APIIngestionRate  float64 `json:"APIIngestionRate"`
	RuleIngestionRate float64 `json:"RuleIngestionRate"` // there are no rules
}

// userStatsHandler tells the tenant in the request's context its series in memory and its samples per second.
func userStatsHandler(source statsSource) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, err := tenant.FromContext(r.Context())
		var s duramenpb.UserStats
		if err == nil {
			s, err = source.UserStats(r.Context(), id)
		}
		status, answer := http.StatusOK, any(userStats{
			IngestionRate: s.SamplesPerSecond, NumSeries: s.Series, APIIngestionRate: s.SamplesPerSecond,
		})
		if err != nil {
			status, answer = errkind.Of(err).HTTPStatus(), map[string]string{"error": err.Error()}
			if wait := errkind.RetryAfter(err); wait > 0 {
				w.Header().Set("Retry-After", strconv.Itoa(int(max(1, wait.Seconds()))))
			}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(answer) // the client is gone when this fails
	})
}
