package querier

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grafana/regexp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	v1 "github.com/prometheus/prometheus/web/api/v1"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/budget"
	"github.com/duramendb/duramen/chunkstore/localstore"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/tenant"
)

var build = BuildInfo{Version: "3.15.0", Revision: "abc", GoVersion: "go1.26"}

// tsdbRecent is an ingester that holds a TSDB from floor on.
type tsdbRecent struct {
	db    *tsdb.DB
	floor int64
	err   error
}

func (r *tsdbRecent) Querier(
	_ context.Context, _ string, _ duramenpb.View, mint, maxt int64,
) (storage.Querier, duramenpb.Held, error) {
	if r.err != nil {
		return nil, duramenpb.Held{}, r.err
	}
	q, err := r.db.Querier(mint, maxt)
	return q, duramenpb.Held{Floor: r.floor, DeletedVersion: 1}, err
}

func (r *tsdbRecent) ChunkQuerier(
	_ context.Context, _ string, _ duramenpb.View, mint, maxt int64,
) (storage.ChunkQuerier, duramenpb.Held, error) {
	if r.err != nil {
		return nil, duramenpb.Held{}, r.err
	}
	q, err := r.db.ChunkQuerier(mint, maxt)
	return q, duramenpb.Held{Floor: r.floor, DeletedVersion: 1}, err
}

func openDB(t testing.TB) *tsdb.DB { return openDBWith(t, nil) }

func openDBWith(t testing.TB, reg prometheus.Registerer) *tsdb.DB {
	t.Helper()
	opts := tsdb.DefaultOptions()
	opts.RetentionDuration, opts.MinBlockDuration, opts.MaxBlockDuration = 0, 2*hour, 2*hour
	opts.EnableOverlappingCompaction = false
	opts.EnableExemplarStorage, opts.MaxExemplars = true, 100
	db, err := tsdb.Open(t.TempDir(), nopLog, reg, opts, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// fill writes the same day of samples into db, from a time on, and cuts blocks.
func fill(t testing.TB, db *tsdb.DB, from int64) {
	t.Helper()
	stale, end := math.Float64frombits(value.StaleNaN), now.UnixMilli()
	for ts := end - 24*hour; ts <= end; ts += 60_000 {
		if ts < from {
			continue
		}
		app := db.AppenderV2(t.Context())
		n := (ts - end) / 60_000
		add := func(v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, name string, kv ...string) {
			lset := labels.FromStrings(append([]string{labels.MetricName, name}, kv...)...)
			_, err := app.Append(0, lset, 0, ts, v, h, fh, storage.AOptions{})
			require.NoError(t, err)
		}
		for i := range 3 {
			inst := fmt.Sprint(i)
			add(float64((n+int64(i))%7%2), nil, nil, "up", "instance", inst, "job", "a")
			add(float64((n+2000)%500*int64(i+1)), nil, nil, "requests_total", "code", "200", "instance", inst)
		}
		add(math.NaN(), nil, nil, "special", "kind", "nan")
		add(math.Inf(1), nil, nil, "special", "kind", "inf")
		add(math.Inf(-1), nil, nil, "special", "kind", "neg")
		add([]float64{1, stale}[n&1], nil, nil, "special", "kind", "stale")
		add(0, tsdbutil.GenerateTestHistogram((n+2000)%300), nil, "hist", "le_kind", "exponential")
		add(0, tsdbutil.GenerateTestCustomBucketsHistogram(n+2000), nil, "hist", "le_kind", "custom")
		add(0, nil, tsdbutil.GenerateTestFloatHistogram(n+2000), "fhist")
		add(float64(n), nil, nil, "weird.name", "with.dots", "ü")
		if n < -900 {
			add(1, nil, nil, "only_old", "age", "old")
		}
		if n > -60 {
			add(1, nil, nil, "only_new", "age", "new")
		}
		require.NoError(t, app.Commit())
	}
	require.NoError(t, db.Compact(t.Context()))
	require.NotEmpty(t, db.Blocks())
	app := db.Appender(t.Context())
	for ts := end - 10*60_000; ts <= end; ts += 60_000 {
		for i := range 3 {
			e := exemplar.Exemplar{Labels: labels.FromStrings("trace_id", fmt.Sprint(ts, "é<", i)), Value: float64(i) / 3, Ts: ts}
			_, err := app.AppendExemplar(0, labels.FromStrings(
				labels.MetricName, "requests_total", "code", "200", "instance", fmt.Sprint(i)), e)
			require.NoError(t, err)
		}
	}
	require.NoError(t, app.Commit())
}

// upload puts all blocks that end by maxt into the bucket and returns the manifest that lists them.
func upload(t testing.TB, db *tsdb.DB, bkt bucket.Bucket, maxt int64) *manifest.Manifest {
	t.Helper()
	m := &manifest.Manifest{Tenant: tenantID, Version: 1}
	for _, b := range db.Blocks() {
		if b.MaxTime() > maxt {
			continue
		}
		uploaded, err := block.Upload(t.Context(), bkt, tenantID, b.Dir(), "test")
		require.NoError(t, err)
		m.Blocks = append(m.Blocks, uploaded)
	}
	require.NotEmpty(t, m.Blocks)
	return m
}

// pair is Prometheus' handler over one TSDB and ours over a TSDB of 13 h and a bucket of all but the last 9 h.
type pair struct {
	reference, ours http.Handler
	whole           *tsdb.DB
	recent          *tsdbRecent
	extras          *tsdbExtras
	manifests       *fakeManifests
	bkt             *bucket.InMemory
	limits          *adminLimits
}

func newPair(t testing.TB) *pair {
	t.Helper()
	full, part := openDB(t), openDB(t)
	floor := now.UnixMilli() - 13*hour
	fill(t, full, math.MinInt64)
	fill(t, part, floor)
	p := &pair{whole: full, recent: &tsdbRecent{db: part, floor: floor}, bkt: bucket.NewInMemory()}
	p.manifests = &fakeManifests{current: upload(t, full, p.bkt, now.UnixMilli()-9*hour)}
	memory := budget.Config{LimitBytes: 1 << 30, DirectoriesShare: 0.05, PagesShare: 0.1, ChunksShare: 0.25, QueryShare: 0.25}
	store, err := localstore.Open(
		localstore.Config{Memory: memory}, t.TempDir(), p.bkt, nil, noLimits, time.Now, nopLog, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	cfg := testConfig(t)
	cfg.BuildInfo, cfg.MaxSamples, cfg.EnableAdminAPI = build, 100_000, true
	p.extras = &tsdbExtras{t: t, db: full}
	p.limits = &adminLimits{Limits: noLimits}
	q, err := New(cfg, p.recent, p.extras, store.Reader, p.manifests, p.limits, clock, nopLog, nil)
	require.NoError(t, err)
	p.ours = q.Handler("/prometheus")

	p.reference = referenceHandler(full, nil, nil)
	return p
}

// referenceHandler is the API as a Prometheus server with default settings builds it.
func referenceHandler(db *tsdb.DB, targets v1.TargetRetriever, gatherer prometheus.Gatherer) http.Handler {
	return referenceHandlerWith(db, targets, gatherer, false)
}

// referenceHandlerWith is referenceHandler, with the administration API switched on or off.
func referenceHandlerWith(
	db *tsdb.DB, targets v1.TargetRetriever, gatherer prometheus.Gatherer, admin bool,
) http.Handler {
	p := parser.NewParser(parser.Options{ExperimentalDurationExpr: true})
	engine := promql.NewEngine(promql.EngineOpts{
		Logger: nopLog, MaxSamples: 100_000, Timeout: time.Minute, LookbackDelta: 5 * time.Minute,
		NoStepSubqueryIntervalFn: func(int64) int64 { return 60_000 },
		EnableAtModifier:         true, EnableNegativeOffset: true, Parser: p,
	})
	api := v1.NewAPI(
		engine, db, nil, nil, db, nil, func(context.Context) v1.TargetRetriever { return targets }, nil,
		func() config.Config { return config.Config{} }, nil, v1.GlobalURLOptions{},
		func(f http.HandlerFunc) http.HandlerFunc { return f }, adminOf{absent{}, db}, "", admin, false, 0, nopLog, nil,
		0, 1, 0, false, regexp.MustCompile("^(?s:.*)$"), nil,
		&v1.PrometheusVersion{Version: build.Version, Revision: build.Revision, GoVersion: build.GoVersion},
		nil, nil, gatherer, nil, nil, false, nil, false, false, false, false, 5*time.Minute, false, false, nil, nil,
		v1.OpenAPIOptions{}, p,
	)
	router := route.New().WithPrefix("/prometheus/api/v1")
	api.Register(router)
	return router
}

func do(t testing.TB, h http.Handler, method, target string, form url.Values) *httptest.ResponseRecorder {
	t.Helper()
	target = "/prometheus/api/v1/" + target
	var r *http.Request
	if method == http.MethodPost {
		r = httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	} else {
		if form != nil {
			target += "?" + form.Encode()
		}
		r = httptest.NewRequestWithContext(t.Context(), method, target, nil)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r.WithContext(tenant.WithID(r.Context(), tenantID)))
	return w
}

// normal removes from a body what may differ between two runs of one server: timings, and the order of warnings.
func normal(t testing.TB, body []byte, unordered bool) string {
	t.Helper()
	var v map[string]any
	if json.Unmarshal(body, &v) != nil {
		return string(body)
	}
	if data, ok := v["data"].(map[string]any); ok {
		if stats, ok := data["stats"].(map[string]any); ok {
			for k := range stats["timings"].(map[string]any) {
				stats["timings"].(map[string]any)[k] = 0
			}
		}
		if list, ok := data["result"].([]any); ok && unordered {
			slices.SortFunc(list, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		}
	}
	for _, k := range []string{"warnings", "infos"} {
		if list, ok := v[k].([]any); ok {
			slices.SortFunc(list, func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
		}
	}
	out, err := json.Marshal(v)
	require.NoError(t, err)
	return string(out)
}

func at(ago time.Duration) string { return fmt.Sprint(now.Add(-ago).Unix()) }

// form builds parameters from "name=value" strings.
func form(params ...string) url.Values {
	v := url.Values{}
	for _, p := range params {
		name, val, _ := strings.Cut(p, "=")
		v.Add(name, val)
	}
	return v
}

type request struct {
	path string
	form url.Values
}

// requests are what both servers must answer alike.
func requests() []request {
	var out []request
	instant := func(query string, more ...string) {
		for _, ago := range []time.Duration{5 * time.Minute, 11 * time.Hour, 20 * time.Hour} {
			out = append(out, request{"query", form(append(more, "query="+query, "time="+at(ago))...)})
		}
	}
	ranges := func(query string, more ...string) {
		day := append([]string{"query=" + query, "start=" + at(24*time.Hour), "end=" + at(0), "step=600"}, more...)
		cut := append([]string{"query=" + query, "start=" + at(12*time.Hour), "end=" + at(10*time.Hour), "step=1m"}, more...)
		out = append(out, request{"query_range", form(day...)}, request{"query_range", form(cut...)})
	}
	for _, query := range []string{
		`up`, `sum by (job) (up)`, `special`, `hist`, `fhist`, `{"weird.name"}`, `{__name__=~".+_total", instance!="1"}`,
		`rate(requests_total[5m])`, `histogram_quantile(0.9, rate(hist[10m]))`, `histogram_count(fhist)`,
		`max_over_time(rate(requests_total[5m])[1h:])`, `up offset 3h`, `up @ ` + at(15*time.Hour), `requests_total[3m]`,
		`topk(2, requests_total)`, `count_values("v", up)`, `absent(nothing)`, `special == special`, `1 + 1`, `"text"`,
		`sum(rate(hist{le_kind="exponential"}[30m]))`, `label_replace(up, "x", "$1", "job", "(.*)")`, `time()`,
		`only_old`, `only_new or only_old`, `rate(only_old[2h])`, `changes(up[12h])`, `requests_total[6h:30m]`,
		`up{`, `sum(`, `foo bar`, `rate(up)`, `up == on(job) requests_total`, `sort_by_label(up, "job")`, `1[5m]`,
		`sum_over_time({__name__=~"up|requests_total|special"}[24h:1s])`, `info(up)`,
	} {
		instant(query)
		ranges(query)
	}
	instant(`requests_total`, "limit=2")
	instant(`up`, "stats=all")
	instant(`up`, "stats=odd")
	instant(`up`, "lookback_delta=1ms")
	instant(`up`, "timeout=0.000000001")
	instant(`up`, "timeout=x")
	ranges(`up`, "stats=true")
	ranges(`up`, "limit=1")
	add := func(path string, params ...string) { out = append(out, request{path, form(params...)}) }
	add("query")
	add("query", "query=up", "time=yesterday")
	add("query", "query=up", "limit=-1")
	add("query_range", "query=up")
	add("query_range", "query=up", "start="+at(time.Hour), "end="+at(2*time.Hour), "step=60")
	add("query_range", "query=up", "start="+at(time.Hour), "end="+at(0), "step=0")
	add("query_range", "query=up", "start=0", "end="+at(0), "step=1")
	for _, window := range [][]string{
		nil,
		{"start=" + at(time.Hour)},
		{"start=" + at(20*time.Hour), "end=" + at(15*time.Hour)},
		{"start=x"},
		{"limit=2"},
		{"limit=0"},
		{"limit=x"},
		{"start=" + at(-48*time.Hour)},
	} {
		add("labels", window...)
		add("labels", append([]string{"match[]=up"}, window...)...)
		add("labels", append([]string{"match[]=up", `match[]={age="old"}`}, window...)...)
		add("series", window...)
		add("series", append([]string{"match[]=up"}, window...)...)
		add("series", append([]string{`match[]={__name__=~"only.*"}`, "match[]=special"}, window...)...)
		for _, name := range []string{"instance", "__name__", "kind", "with.dots", "U__with_2e_dots", "nothing"} {
			add("label/"+name+"/values", window...)
			add("label/"+name+"/values", append([]string{`match[]={__name__=~"up|special"}`}, window...)...)
			add("label/"+name+"/values", append([]string{"match[]=up", "match[]=only_old"}, window...)...)
		}
	}
	add("series", "match[]={}")
	add("series", "match[]=up{")
	add("labels", "match[]={}")
	add("label/instance/values", "match[]=up{")
	add("label/%ff/values")
	add("format_query", "query=sum by(a)(rate( x [5m]))")
	add("format_query", "query=sum(")
	add("parse_query", "query=sum by(a)(rate(x[5m]))")
	add("parse_query", "query=(")
	add("parse_query")
	add("status/buildinfo")
	for _, query := range []string{"requests_total", `rate(requests_total{code="200"}[5m]) / on() up`, "up", "1", "x{", ""} {
		add("query_exemplars", "query="+query)
		add("query_exemplars", "query="+query, "start="+at(3*time.Minute), "end="+at(time.Minute))
	}
	add("query_exemplars", "query=up", "start="+at(0), "end="+at(time.Hour))
	add("query_exemplars", "query=up", "start=x")
	add("query_exemplars")
	return out
}

func TestAPI(t *testing.T) {
	p := newPair(t)
	t.Run("answers as Prometheus", func(t *testing.T) { answersAsPrometheus(t, p) })
	t.Run("experimental functions are a setting", func(t *testing.T) { experimentalFunctions(t, p) })
	t.Run("status of our errors", func(t *testing.T) { statusOfOurErrors(t, p) }) // breaks p
}

func answersAsPrometheus(t *testing.T, p *pair) {
	statuses := map[int]int{}
	for _, r := range requests() {
		methods := []string{http.MethodGet}
		if !strings.HasPrefix(r.path, "label/") && r.path != "status/buildinfo" {
			methods = append(methods, http.MethodPost)
		}
		for _, method := range methods {
			want, got := do(t, p.reference, method, r.path, r.form), do(t, p.ours, method, r.path, r.form)
			name := fmt.Sprintf("%s %s %v", method, r.path, r.form)
			require.Equal(t, want.Code, got.Code, "%s: %s", name, got.Body)
			require.Equal(t, want.Header(), got.Header(), name)
			unordered := strings.HasPrefix(r.form.Get("query"), "count_values") // by a map in the engine
			require.Equal(t, normal(t, want.Body.Bytes(), unordered), normal(t, got.Body.Bytes(), unordered), name)
			statuses[got.Code]++
		}
	}
	for _, code := range []int{200, 400, 422, 503} {
		require.Positive(t, statuses[code], "no request was answered with %d: %v", code, statuses)
	}
}

func experimentalFunctions(t *testing.T, p *pair) {
	cfg := testConfig(t)
	cfg.EnablePromQLExperimentalFunctions = true
	q, err := New(cfg, p.recent, p.extras, brokenStore{}, p.manifests, noLimits, clock, nopLog, nil)
	require.NoError(t, err)
	f := form(`query=sort_by_label(up, "instance")`, "time="+at(time.Minute))
	require.Equal(t, http.StatusOK, do(t, q.Handler("/prometheus"), http.MethodGet, "query", f).Code)
	require.Equal(t, http.StatusBadRequest, do(t, p.ours, http.MethodGet, "query", f).Code)
}

func TestQueryThatGetsNoSlotMayBeSentAgain(t *testing.T) {
	cfg := testConfig(t)
	cfg.MaxConcurrent, cfg.Timeout = 1, time.Minute
	recent := &fakeRecent{t: t}
	q, err := New(cfg, recent, nil, brokenStore{}, &fakeManifests{}, noLimits, clock, nopLog, nil)
	require.NoError(t, err)
	h := q.Handler("/prometheus")
	recent.answer = func(duramenpb.View, int64, int64) (*listQuerier, duramenpb.Held, error) {
		// The only slot is taken by the query that asks this.
		w := do(t, h, http.MethodGet, "query", form("query=up", "time="+at(time.Minute), "timeout=0.001"))
		require.Equal(t, http.StatusServiceUnavailable, w.Code, w.Body)
		require.Contains(t, w.Body.String(), "waiting for other queries")
		return &listQuerier{}, duramenpb.Held{}, nil
	}
	w := do(t, h, http.MethodGet, "query", form("query=up", "time="+at(time.Minute)))
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	require.Len(t, recent.views, 1)
}

func statusOfOurErrors(t *testing.T, p *pair) {
	all := []request{
		{"query", form("query=up", "time="+at(time.Minute))},
		{"query_range", form("query=rate(up[5m])", "start="+at(time.Hour), "end="+at(0), "step=60")},
		{"series", form("match[]=up", "start="+at(time.Hour))},
		{"series", form("match[]=up", "match[]=special")},
		{"labels", form("start=" + at(time.Hour))},
		{"labels", form("match[]=up", "match[]=special")},
		{"label/job/values", nil},
	}
	for kind, status := range map[errkind.Kind]int{
		errkind.Unavailable: 503, errkind.Unauthenticated: 401, errkind.Unprocessable: 422, errkind.Limited: 429,
		errkind.Corrupt: 500, errkind.Forbidden: 403,
	} {
		p.recent.err = errkind.New(kind, "ingester says %s", kind)
		for _, r := range all {
			w := do(t, p.ours, http.MethodGet, r.path, r.form)
			require.Equal(t, status, w.Code, "%s: %s", r.path, w.Body)
			require.Contains(t, w.Body.String(), `"status":"error"`)
			require.Contains(t, w.Body.String(), "ingester says "+kind.String())
		}
	}
	p.recent.err = context.DeadlineExceeded
	require.Equal(t, http.StatusServiceUnavailable, do(t, p.ours, http.MethodGet, "labels", nil).Code)
	p.recent.err = nil

	// A block that the newest manifest lists is gone: 500 that names it, never a short answer.
	id := p.manifests.current.Blocks[0].ULID.String()
	require.NoError(t, p.bkt.Delete(t.Context(), tenantID+"/"+id+"/chunks/000001"))
	day := form("query=up", "start="+at(24*time.Hour), "end="+at(0), "step=600")
	w := do(t, p.ours, http.MethodGet, "query_range", day)
	require.Equal(t, http.StatusInternalServerError, w.Code, w.Body)
	require.Contains(t, w.Body.String(), `"errorType":"internal"`)
	require.Contains(t, w.Body.String(), "the newest manifest lists a block that is not in the bucket")
	require.Contains(t, w.Body.String(), id)
	require.NotContains(t, w.Body.String(), `"values"`)

	// A bucket that is away: recent ranges are answered, older ones are 503.
	p.manifests.err = errkind.New(errkind.Unavailable, "filesystem bucket /b: input/output error")
	w = do(t, p.ours, http.MethodGet, "query", form("query=up", "time="+at(20*time.Hour)))
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.Contains(t, w.Body.String(), "filesystem bucket /b")
	require.Equal(t, http.StatusOK, do(t, p.ours, http.MethodGet, "query", form("query=up", "time="+at(time.Hour))).Code)

	// A request without a tenant.
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/prometheus/api/v1/labels", nil)
	rec := httptest.NewRecorder()
	p.ours.ServeHTTP(rec, r)
	require.Equal(t, http.StatusUnauthorized, rec.Code)
}

// registered are all routes of Prometheus' API, v0.315.
var registered = map[string][]string{
	http.MethodGet: {
		"query", "query_range", "query_exemplars", "format_query", "parse_query", "labels", "label/x/values", "series",
		"scrape_pools", "scrape_pools/config", "targets", "targets/metadata", "targets/relabel_steps", "alertmanagers",
		"metadata", "status/config", "status/runtimeinfo", "status/buildinfo", "status/flags", "status/tsdb",
		"status/tsdb/blocks", "status/self_metrics", "features", "status/walreplay", "notifications", "notifications/live",
		"search/metric_names", "search/label_names", "search/label_values", "alerts", "rules", "openapi.yaml",
	},
	http.MethodPost: {
		"query", "query_range", "query_exemplars", "format_query", "parse_query", "labels", "series", "read", "write",
		"otlp/v1/metrics", "search/metric_names", "admin/tsdb/delete_series", "admin/tsdb/clean_tombstones",
		"admin/tsdb/snapshot",
	},
	http.MethodPut:     {"admin/tsdb/delete_series", "admin/tsdb/clean_tombstones", "admin/tsdb/snapshot"},
	http.MethodOptions: {"query", "series", "anything"},
	http.MethodDelete:  {"series", "query"},
}

func TestNoRouteOfPrometheusPanicsOrAdministers(t *testing.T) {
	q := newQuerier(t, &tsdbRecent{db: openDB(t)}, brokenStore{}, &fakeManifests{current: &manifest.Manifest{Version: 1}})
	h := q.Handler("/prometheus")
	params := form("query=up", "match[]=up", "scrapePool=x", "labels={}", "limit=1", "state=any")
	for method, paths := range registered {
		for _, p := range paths {
			for _, f := range []url.Values{nil, params} {
				w := do(t, h, method, p, f)
				_, known := routeOf(p)
				switch {
				case !known:
					require.Equal(t, http.StatusNotFound, w.Code, "%s %s", method, p)
					require.JSONEq(t, fmt.Sprintf(
						`{"status":"error","errorType":"not_found","error":"no such endpoint: /prometheus/api/v1/%s"}`, p+hints[p]),
						w.Body.String())
				case method == http.MethodDelete:
					require.Equal(t, http.StatusMethodNotAllowed, w.Code)
				case strings.HasPrefix(p, "admin/"): // off unless it is switched on
					require.Equal(t, http.StatusInternalServerError, w.Code, "%s %s", method, p)
					require.Contains(t, w.Body.String(), `"error":"admin APIs disabled"`)
				case w.Code == http.StatusOK:
					require.Contains(t, w.Body.String(), `"status":"success"`, "%s %s", method, p)
					require.NotContains(t, w.Body.String(), ":null}", "%s %s", method, p)
				default:
					require.Contains(t, []int{http.StatusNoContent, http.StatusBadRequest}, w.Code, "%s %s: %s", method, p, w.Body)
				}
			}
		}
	}
	w := do(t, h, http.MethodGet, "../../other", nil)
	require.Equal(t, http.StatusNotFound, w.Code)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodOptions, "/prometheus/api/v1/query", nil)
	r.Header.Set("Origin", "http://grafana.example")
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	require.Equal(t, http.StatusNoContent, rec.Code)
}

func TestHandlersOfOneQuerierAreIndependent(t *testing.T) {
	q := newQuerier(t, &tsdbRecent{db: openDB(t)}, brokenStore{}, &fakeManifests{current: &manifest.Manifest{Version: 1}})
	for _, prefix := range []string{"/prometheus", "/api/prom/", ""} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet,
			strings.TrimSuffix(prefix, "/")+"/api/v1/status/buildinfo", nil)
		w := httptest.NewRecorder()
		q.Handler(prefix).ServeHTTP(w, r)
		require.Equal(t, http.StatusOK, w.Code, prefix)
	}
}
