package app

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/tenant"
)

func TestRoutes(t *testing.T) {
	n := startNode(t, testConfig(t.TempDir()))
	for _, tc := range []struct {
		method, path string
		header       []string
		status       int
		want         string
	}{
		{"GET", "/ready", nil, 200, "ready\n"},
		{"HEAD", "/ready", nil, 200, ""},
		{"GET", "/prometheus/-/ready", nil, 200, "ready\n"},
		{"GET", "/prometheus/-/healthy", nil, 200, "alive\n"},
		{"GET", "/api/v1/user_stats", nil, 200, `{"ingestionRate":0,"numSeries":0,"APIIngestionRate":0,"RuleIngestionRate":0}`},
		{"GET", "/healthz", nil, 200, `"status": "ok"`},
		{"GET", "/metrics", nil, 200, "duramen_build_info{"},
		{"GET", "/metrics", nil, 200, "go_goroutines "},
		{"GET", "/metrics", nil, 200, "process_resident_memory_bytes "},
		{"GET", "/config", nil, 200, "http_listen_address: 127.0.0.1:0"},
		{"GET", "/", nil, 200, "None yet. Point a Prometheus here"},
		{"GET", "/log-level", nil, 200, "debug\n"},
		{"PUT", "/log-level?level=info", nil, 200, "info\n"},
		{"POST", "/log-level?level=loud", nil, 400, `parameter level is "loud"; use debug, info`},
		{"GET", "/debug/pprof/", nil, 200, "goroutine"},
		{"GET", "/debug/pprof/heap", nil, 200, ""},
		{"GET", "/debug/pprof/cmdline", nil, 200, "app.test"},
		{"GET", "/debug/pprof/symbol", nil, 200, ""},
		{"POST", "/ready", nil, 405, "use GET"},
		{"GET", "/api/v1/push", nil, 405, "use POST"},
		{"DELETE", "/prometheus/api/v1/query", nil, 405, "use GET or POST"},
		{"POST", "/prometheus/api/v1/admin/tsdb/delete_series?match[]=up", nil, 500, "admin APIs disabled"},
		{"GET", "/prometheus/api/v1/admin/tsdb/delete_series", nil, 405, "Method Not Allowed"},
		{"GET", "/prometheus/api/v1/admin/tsdb/snapshot", nil, 404, "no such endpoint"},
		{"GET", "/ingester/flush", nil, 405, "use POST"},
		{"POST", "/ingester/flush?wait=perhaps", nil, 400, "true or false"},
		{"POST", "/ingester/flush?wait=true", nil, 200, "results"},
		{"GET", "/ingester/tenants", nil, 200, `{"tenants":[`},
		{"POST", "/ingester/tenants", nil, 405, "use GET"},
		{"GET", "/compactor?format=json", nil, 200, `{"tenants":[`},
		{"GET", "/compactor", nil, 200, "<h1>Compactor</h1>"},
		{"POST", "/compactor/run", nil, 400, "parameter tenant is missing"},
		{"POST", "/compactor/run?tenant=a/b", nil, 400, "tenant ID"},
		{"POST", "/compactor/run?tenant=nobody&wait=perhaps", nil, 400, "true or false"},
		{"POST", "/compactor/run?tenant=nobody", nil, 404, "no blocks"},
		{"GET", "/purger/delete_tenant", nil, 405, "use POST"},
		{"GET", "/purger/delete_tenant_status", []string{tenant.HeaderName, "purged"}, 200, `"state":"none"`},
		{"POST", "/purger/delete_tenant", []string{tenant.HeaderName, "purged"}, 200, `"tenant_id":"purged"`},
		{"GET", "/compactor/delete_tenant_status", []string{tenant.HeaderName, "purged"}, 200, `"state":"grace"`},
		{"POST", "/prometheus/api/v1/write", nil, 404, "remote write is at /api/v1/push"},
		{"GET", "/nowhere", nil, 404, "see / for what there is"},
		{"GET", "/api/v1/query?query=1", nil, 404, "/prometheus/api/v1/query"},
		{"POST", "/api/v1/push/api/v1/write", nil, 404, "/prometheus/api/v1/…"},
		{"POST", "/api/v1/otlp/v1/metrics", nil, 404, "OTLP is not taken yet"},
		{"GET", "/ring", nil, 404, "no member of a cluster"},
		{"GET", "/prometheus", nil, 404, "base URL"},
		{"GET", "/prometheus/api/v1/query?query=1%2B1", nil, 200, `"2"`},
		{"GET", "/prometheus/api/v1/query?query=%29", nil, 400, `"errorType":"bad_data"`},
		{"GET", "/prometheus/api/v1/status/buildinfo", nil, 200, `"version":"3.`},
		{"OPTIONS", "/prometheus/api/v1/query", nil, 204, ""},
		{"GET", "/prometheus/api/v1/query?query=1", []string{tenant.HeaderName, "../x"}, 400, "tenant ID"},
		{"POST", "/api/v1/push", []string{tenant.HeaderName, "a/b"}, 400, "tenant ID"},
		{"POST", "/api/v1/push", []string{"Content-Type", "text/plain"}, 415, ""},
	} {
		t.Run(tc.method+" "+tc.path, func(t *testing.T) {
			n.t = t
			res := n.do(tc.method, tc.path, nil, tc.header...)
			require.Equal(t, tc.status, res.status, res.body)
			require.Contains(t, res.body, tc.want)
		})
	}
	n.t = t
	res := n.do("GET", "/prometheus/api/v1/query?query=1", nil, "Accept-Encoding", "gzip")
	require.Equal(t, "gzip", res.header.Get("Content-Encoding"))
}

func TestTheHeaderCanBeDemanded(t *testing.T) {
	n := startNode(t, testConfig(t.TempDir(), "-tenancy.header-required"))
	require.Equal(t, http.StatusUnauthorized, n.push("/api/v1/push", "", "m", 1, time.Now()).status)
	require.Equal(t, http.StatusUnauthorized, n.do("GET", "/prometheus/api/v1/query?query=1", nil).status)
	require.Equal(t, http.StatusNoContent, n.do("OPTIONS", "/prometheus/api/v1/query", nil).status)
	require.Equal(t, http.StatusOK, n.do("GET", "/prometheus/api/v1/query?query=1", nil, tenant.HeaderName, "a").status)
	require.Equal(t, http.StatusOK, n.do("GET", "/ready", nil).status, "what is no tenant's needs no header")
	require.Contains(t, n.do("GET", "/", nil).body, "X-Scope-OrgID")
}

// TestEveryRouteIsDocumented compares docs/api.md with the table, both ways.
func TestEveryRouteIsDocumented(t *testing.T) {
	a, err := New(testConfig(t.TempDir()), io.Discard)
	require.NoError(t, err)
	defer func() { require.NoError(t, a.close()) }()
	doc, err := os.ReadFile("../../../docs/api.md")
	require.NoError(t, err)
	gateway, err := New(testConfig(t.TempDir(), "-target=store-gateway"), io.Discard)
	require.NoError(t, err)
	defer func() { require.NoError(t, gateway.close()) }()
	member, err := New(testConfig(t.TempDir(), "-memberlist.join=localhost:1"), io.Discard)
	require.NoError(t, err)
	defer func() { require.NoError(t, member.close()) }()
	paths := map[string]bool{}
	for _, r := range slices.Concat(a.table, gateway.table, member.table) {
		path := strings.TrimSuffix(r.path, "{$}")
		paths[path] = true
		require.Contains(t, string(doc), "`"+path+"`", "docs/api.md does not describe it")
	}
	for line := range strings.Lines(string(doc)) {
		if heading, ok := strings.CutPrefix(line, "### "); ok {
			for word := range strings.FieldsSeq(heading) {
				if path := strings.Trim(word, "`,"); strings.HasPrefix(path, "/") && !strings.HasPrefix(path, apiPrefix) {
					require.True(t, paths[path], "docs/api.md describes %s, which is not served", path)
				}
			}
		}
	}
}

func TestBeforeTheStartIsOver(t *testing.T) {
	a, err := New(testConfig(t.TempDir()), io.Discard)
	require.NoError(t, err)
	defer func() { require.NoError(t, a.close()) }()
	for path, want := range map[string]string{
		"/ready":                           "not ready: http server is new",
		"/prometheus/api/v1/query?query=1": "starting",
		"/healthz":                         `"error": "ingester is new"`,
	} {
		w := httptest.NewRecorder()
		a.http.handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		require.Equal(t, http.StatusServiceUnavailable, w.Code, path)
		require.Contains(t, w.Body.String(), want, path)
	}
	for _, path := range []string{"/api/v1/push", "/ingester/flush"} {
		w := httptest.NewRecorder()
		a.http.handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, nil))
		require.Equal(t, http.StatusServiceUnavailable, w.Code, path)
		require.Equal(t, "1", w.Header().Get("Retry-After"))
	}
}

func TestADegradedNodeIsReadyAndSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	overrides := filepath.Join(dir, "overrides.yaml")
	require.NoError(t, os.WriteFile(overrides, nil, 0o600))
	n := startNode(t, testConfig(dir, "-limits.overrides-file="+overrides))
	require.NoError(t, os.WriteFile(overrides, []byte("overrides: {a: {max_series: -1}}"), 0o600))
	require.Error(t, n.limits.Reload())
	res := n.do("GET", "/healthz", nil)
	require.Equal(t, http.StatusServiceUnavailable, res.status)
	var health struct {
		Status string
		Checks []checkResult
	}
	require.NoError(t, json.Unmarshal([]byte(res.body), &health))
	require.Equal(t, "degraded", health.Status)
	require.Len(t, health.Checks, len(wiring(n.cfg)))
	for _, c := range health.Checks {
		if c.Name == "limits" {
			require.Contains(t, c.Error, "max_series is -1")
			continue
		}
		require.Equal(t, "ok", c.State, c.Name)
	}
	require.Equal(t, http.StatusOK, n.do("GET", "/ready", nil).status)
}

func TestReadinessIsOfTheOwnDiskOnly(t *testing.T) {
	dir := t.TempDir()
	n := startNode(t, testConfig(dir))
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "ingester")))
	res := n.do("GET", "/ready", nil)
	require.Equal(t, http.StatusServiceUnavailable, res.status)
	require.Contains(t, res.body, "not ready: ingester: ")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "ingester"), 0o755))
	require.Equal(t, http.StatusOK, n.do("GET", "/ready", nil).status)
	n.draining.Store(true)
	require.Contains(t, n.do("GET", "/ready", nil).body, "stopping")
}

func TestACheckThatHangsIsReportedAndNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release, calls := make(chan struct{}), atomic.Int32{}
		c := newChecker("disk", func(context.Context) error { calls.Add(1); <-release; return errors.New("slow") })
		r := c.check(t.Context())
		require.Equal(t, "failing", r.State)
		require.Contains(t, r.Error, "no answer for 3s")
		r = c.check(t.Context())
		require.Contains(t, r.Error, "no answer for 6s")
		require.EqualValues(t, 1, calls.Load())
		close(release)
		c.wait()
		r = c.check(t.Context())
		require.Equal(t, "slow", r.Error)
	})
}

func TestRouterCountsAndSurvivesPanics(t *testing.T) {
	reg, log := prometheus.NewRegistry(), &logBuffer{}
	routes := []route{
		{path: "/panic", methods: []string{"GET"}, handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			panic("boom")
		})},
		{path: "/half", methods: []string{"GET"}, handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "half")
			panic("boom")
		})},
	}
	notFound := func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }
	h := newRouter(routes, notFound, nil, slog.New(slog.NewTextHandler(log, nil)), reg)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/panic", nil))
	require.Equal(t, http.StatusInternalServerError, w.Code)
	require.Contains(t, log.String(), "boom")
	require.PanicsWithValue(t, http.ErrAbortHandler, func() {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/half", nil))
	}, "half an answer must not look whole")
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("BREW", "/teapot", nil))
	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP duramen_http_panics_total Handlers that panicked. Any rise is a bug; the log has the stack.
# TYPE duramen_http_panics_total counter
duramen_http_panics_total 2
# HELP duramen_http_requests_total Requests answered, by route, method and status. A rise of 5xx means failing work.
# TYPE duramen_http_requests_total counter
duramen_http_requests_total{code="200",method="GET",route="/half"} 1
duramen_http_requests_total{code="404",method="other",route="other"} 1
duramen_http_requests_total{code="500",method="GET",route="/panic"} 1
`), "duramen_http_panics_total", "duramen_http_requests_total"))
}

func TestHealthNamesABucketThatVanished(t *testing.T) {
	dir := t.TempDir()
	n := startNode(t, testConfig(dir))
	require.Equal(t, http.StatusOK, n.do("GET", "/healthz", nil).status)
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "bucket")))
	res := n.do("GET", "/healthz", nil)
	require.Equal(t, http.StatusServiceUnavailable, res.status)
	require.Contains(t, res.body, "bucket directory "+filepath.Join(dir, "bucket"))
	require.Equal(t, http.StatusOK, n.do("GET", "/ready", nil).status)
}
