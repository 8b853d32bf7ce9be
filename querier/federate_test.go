package querier

import (
	"compress/gzip"
	"context"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/tenant"
)

// The answers of a real Prometheus over equal samples are compared in e2e.

func federated(
	ctx context.Context, h http.Handler, header http.Header, match ...string,
) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(tenant.WithID(ctx, tenantID), http.MethodGet,
		"/federate?"+url.Values{"match[]": match}.Encode(), nil)
	r.Header = header
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// federatedDB holds series whose newest samples are of all kinds and ages.
func federatedDB(t *testing.T) *tsdb.DB {
	t.Helper()
	db := openDB(t)
	app := db.AppenderV2(t.Context())
	add := func(ago time.Duration, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, kv ...string) {
		_, err := app.Append(0, labels.FromStrings(kv...), 0, now.Add(-ago).UnixMilli(), v, h, fh, storage.AOptions{})
		require.NoError(t, err)
	}
	stale := math.Float64frombits(value.StaleNaN)
	gauge := tsdbutil.GenerateTestFloatHistogram(2)
	gauge.CounterResetHint = histogram.GaugeType
	staleHistogram := &histogram.Histogram{Sum: stale}
	add(4*time.Minute, 1, nil, nil, "__name__", "up", "instance", "b")
	add(time.Minute, 2, nil, nil, "__name__", "up", "instance", "b")
	add(0, math.NaN(), nil, nil, "__name__", "up", "instance", "a", "job", "x y\"z")
	add(-time.Minute, 9, nil, nil, "__name__", "up", "instance", "a", "job", "x y\"z") // the future is not asked for
	add(5*time.Minute, 3, nil, nil, "__name__", "edge")
	add(5*time.Minute+time.Millisecond, 3, nil, nil, "__name__", "old")
	add(2*time.Minute, 3, nil, nil, "__name__", "gone")
	add(time.Minute, stale, nil, nil, "__name__", "gone")
	add(2*time.Minute, 0, tsdbutil.GenerateTestHistogram(1), nil, "__name__", "gone_hist")
	add(time.Minute, 0, staleHistogram, nil, "__name__", "gone_hist")
	add(time.Minute, stale, nil, nil, "__name__", "back")
	add(0, 4, nil, nil, "__name__", "back")
	add(time.Minute, 0, tsdbutil.GenerateTestHistogram(1), nil, "__name__", "both", "k", "hist")
	add(time.Minute, 7, nil, nil, "__name__", "both", "k", "float")
	add(time.Minute, 0, nil, gauge, "__name__", "both", "k", "gauge")
	add(time.Minute, 0, tsdbutil.GenerateTestCustomBucketsHistogram(1), nil, "__name__", "custom")
	require.NoError(t, app.Commit())
	return db
}

func federation(t *testing.T, change func(*Config)) (http.Handler, *tsdbRecent, *Querier) {
	t.Helper()
	cfg := testConfig(t)
	change(&cfg)
	recent := &tsdbRecent{db: federatedDB(t)}
	q, err := New(cfg, recent, &tsdbExtras{t: t}, brokenStore{}, &fakeManifests{current: &manifest.Manifest{Version: 1}},
		noLimits, clock, nopLog, nil)
	require.NoError(t, err)
	return q.Federate(), recent, q
}

func TestFederation(t *testing.T) {
	h, recent, q := federation(t, func(*Config) {})
	for name, c := range map[string]struct {
		match  []string
		status int
		body   string
	}{
		"nothing asked":  {nil, 200, ""},
		"nothing found":  {[]string{"nothing"}, 200, ""},
		"no selector":    {[]string{"up", "up{"}, 400, "1:4: parse error: unexpected end of input inside braces\n"},
		"empty selector": {[]string{"{}"}, 200, ""},
		"newest of each": {[]string{"up"}, 200, `# TYPE up untyped
up{instance="a",job="x y\"z"} NaN 1772366400000
up{instance="b"} 2 1772366340000
`},
		"ages": {[]string{`{__name__=~"edge|old|gone|gone_hist|back"}`}, 200, `# TYPE back untyped
back{instance=""} 4 1772366400000
# TYPE edge untyped
edge{instance=""} 3 1772366100000
`},
		"selectors that meet": {[]string{"up", `{instance="b"}`, "edge"}, 200, `# TYPE edge untyped
edge{instance=""} 3 1772366100000
# TYPE up untyped
up{instance="a",job="x y\"z"} NaN 1772366400000
up{instance="b"} 2 1772366340000
`},
		"kinds as text": {[]string{"both", "custom"}, 200, `# TYPE both untyped
both{k="float",instance=""} 7 1772366340000
# TYPE custom histogram
custom_bucket{instance="",le="0"} 2 1772366340000
custom_bucket{instance="",le="1"} 5 1772366340000
custom_bucket{instance="",le="2"} 5 1772366340000
custom_bucket{instance="",le="3"} 7 1772366340000
custom_bucket{instance="",le="4"} 9 1772366340000
custom_bucket{instance="",le="+Inf"} 9 1772366340000
custom_sum{instance=""} 36.8 1772366340000
custom_count{instance=""} 9 1772366340000
`},
	} {
		w := federated(t.Context(), h, nil, c.match...)
		require.Equal(t, c.status, w.Code, name)
		require.Equal(t, c.body, w.Body.String(), name)
	}

	w := federated(t.Context(), h, http.Header{"Accept": {
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text",
	}}, "both")
	require.Equal(t, http.StatusOK, w.Code)
	require.Contains(t, w.Header().Get("Content-Type"), "encoding=text")
	for _, part := range []string{"UNTYPED", "GAUGE_HISTOGRAM", ":HISTOGRAM", "sample_count_float", "positive_span"} {
		require.Contains(t, strings.ReplaceAll(w.Body.String(), " ", ""), part)
	}

	w = federated(t.Context(), h, http.Header{"Accept-Encoding": {"gzip"}}, "edge")
	require.Equal(t, "gzip", w.Header().Get("Content-Encoding"))
	zr, err := gzip.NewReader(w.Body)
	require.NoError(t, err)
	plain, err := io.ReadAll(zr)
	require.NoError(t, err)
	require.Contains(t, string(plain), `edge{instance=""} 3`)

	for kind, status := range map[errkind.Kind]int{errkind.Unavailable: 503, errkind.Corrupt: 500} {
		recent.err = errkind.New(kind, "ingester says %s", kind)
		w := federated(t.Context(), h, nil, "up")
		require.Equal(t, status, w.Code)
		require.Contains(t, w.Body.String(), "ingester says "+kind.String()+"\n")
	}
	recent.err = nil

	// All slots are taken by queries.
	var taken []func()
	for range q.slots.most[recentSlot] {
		release, err := q.slots.take(t.Context(), "other", recentSlot)
		require.NoError(t, err)
		taken = append(taken, release)
	}
	late, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	w = federated(late, h, nil, "up")
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	for _, release := range taken {
		release()
	}
	require.Equal(t, http.StatusOK, federated(t.Context(), h, nil, "up").Code)
	require.Zero(t, q.slots.running, "a slot was not given back")
}

func TestFederationIsBoundedLikeAQuery(t *testing.T) {
	h, _, _ := federation(t, func(cfg *Config) { cfg.MaxSamples = 1 })
	w := federated(t.Context(), h, nil, "up")
	require.Equal(t, http.StatusUnprocessableEntity, w.Code)
	require.Contains(t, w.Body.String(), "too many samples")
	require.Equal(t, http.StatusOK, federated(t.Context(), h, nil, "edge").Code)
}

func TestFederationWithAFaultIsAnError(t *testing.T) {
	for name, next := range faults() {
		cfg := testConfig(t)
		if name == "the timeout" {
			cfg.Timeout = 50 * time.Millisecond
		}
		q, err := New(cfg, &scriptedRecent{next: next}, &tsdbExtras{t: t}, brokenStore{}, &fakeManifests{}, noLimits,
			clock, nopLog, nil)
		require.NoError(t, err)
		ask := func() int { return federated(t.Context(), q.Federate(), nil, `{__name__=~".+"}`).Code }
		if name == "a panic" {
			require.Panics(t, func() { ask() }) // the router's to answer, and nothing is sent yet
			continue
		}
		require.GreaterOrEqual(t, ask(), 500, name)
		require.Zero(t, q.slots.running)
	}
}
