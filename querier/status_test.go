package querier

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWhatATenantHasNot: answers about a Prometheus' own state are valid and empty; nothing of the process is in them.
func TestWhatATenantHasNot(t *testing.T) {
	cfg := testConfig(t)
	cfg.BuildInfo = build
	q, err := New(cfg, nil, &tsdbExtras{t: t}, nil, nil, noLimits, clock, nopLog, nil)
	require.NoError(t, err)
	for path, want := range map[string]string{
		"rules":                `{"groups":[]}`,
		"rules?type=alert":     `{"groups":[]}`,
		"rules?group_limit=1":  `{"groups":[]}`,
		"alerts":               `{"alerts":[]}`,
		"alertmanagers":        `{"activeAlertmanagers":[],"droppedAlertmanagers":[]}`,
		"targets":              `{"activeTargets":[],"droppedTargets":[],"droppedTargetCounts":{}}`,
		"targets?state=active": `{"activeTargets":[],"droppedTargets":[],"droppedTargetCounts":null}`,
		"targets/metadata":     `[]`,
		"scrape_pools":         `{"scrapePools":[]}`,
		"notifications":        `[]`,
		"status/config":        `{"yaml":"global: {}\n"}`,
		"status/flags":         `{}`,
		"status/walreplay":     `{"min":0,"max":0,"current":0}`,
		"status/runtimeinfo": `{"startTime":"2026-03-01T12:00:00Z","CWD":"","hostname":"","serverTime":"2026-03-01T12:00:00Z",
			"reloadConfigSuccess":true,"lastConfigTime":"2026-03-01T12:00:00Z","corruptionCount":0,"goroutineCount":0,
			"GOMAXPROCS":0,"GOMEMLIMIT":0,"GOGC":"","GODEBUG":"","storageRetention":""}`,
		// Grafana takes a server without "features" and "application" for a Prometheus of this version, with rules that can
		// be read and not written.
		"status/buildinfo": `{"version":"3.15.0","revision":"abc","branch":"","buildUser":"","buildDate":"","goVersion":"go1.26"}`,
	} {
		w := do(t, q.Handler("/prometheus"), http.MethodGet, path, nil)
		require.Equal(t, http.StatusOK, w.Code, path)
		require.JSONEq(t, `{"status":"success","data":`+want+`}`, w.Body.String(), path)
	}
	w := do(t, q.Handler("/prometheus"), http.MethodGet, "notifications/live", nil)
	require.Equal(t, http.StatusNoContent, w.Code, "an event source does not ask again")
}

// TestFeatures: experimental functions are named as what they are, off unless the setting turns them on.
func TestFeatures(t *testing.T) {
	for _, on := range []bool{false, true} {
		cfg := testConfig(t)
		cfg.EnablePromQLExperimentalFunctions, cfg.UseStartTimestamps = on, on
		q, err := New(cfg, nil, &tsdbExtras{t: t}, nil, nil, noLimits, clock, nopLog, nil)
		require.NoError(t, err)
		var got struct {
			Data map[string]map[string]bool `json:"data"`
		}
		w := do(t, q.Handler("/prometheus"), http.MethodGet, "features", nil)
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
		require.True(t, got.Data["promql_functions"]["rate"])
		require.Equal(t, on, got.Data["promql_functions"]["sort_by_label"])
		require.True(t, got.Data["promql"]["at_modifier"])
		require.True(t, got.Data["api"]["query_stats"])
		require.False(t, got.Data["api"]["admin"])
		require.Equal(t, on, got.Data["tsdb"]["st_storage"])
	}
}
