package loadverify

import (
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/grafana/regexp"
	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	v1 "github.com/prometheus/prometheus/web/api/v1"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/internal/loadplan"
	"github.com/duramendb/duramen/internal/remotewrite"
	"github.com/duramendb/duramen/internal/seriesgen"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const scrapes = 30

func newPlan(t testing.TB, change func(*loadplan.Config)) *loadplan.Plan {
	t.Helper()
	cfg := loadplan.Config{
		Seed: 7, Tenants: []string{"a", "b"}, Series: 100, Start: 1_790_000_000_000, Interval: 15 * time.Second,
		Scrapes: scrapes, Histograms: true, PerRequest: 50, Protocols: []remotewrite.Version{remotewrite.V1},
	}
	if change != nil {
		change(&cfg)
	}
	p, err := loadplan.New(cfg)
	require.NoError(t, err)
	return p
}

// stored is what a server has of one series.
type stored struct {
	lset    labels.Labels
	samples map[int64]seriesgen.Sample
}

// content is what a server has, by tenant and series.
type content map[string]map[string]*stored

func (c content) put(tenant string, lset labels.Labels, s seriesgen.Sample) {
	if c[tenant] == nil {
		c[tenant] = map[string]*stored{}
	}
	of := c[tenant][lset.String()]
	if of == nil {
		of = &stored{lset, map[int64]seriesgen.Sample{}}
		c[tenant][lset.String()] = of
	}
	of.samples[s.T] = s
}

// of returns a series of the content.
func (c content) of(p *loadplan.Plan, tenant, series int) *stored {
	return c[p.Tenants()[tenant]][p.Generator(tenant).Labels(series).String()]
}

// everything is what a server has that kept all of a plan.
func everything(p *loadplan.Plan) content {
	c := content{}
	for tenant, name := range p.Tenants() {
		for series := range p.Pods() * seriesgen.SeriesPerPod {
			from, to := p.Alive(series / seriesgen.SeriesPerPod)
			for scrape := from; scrape < to; scrape++ {
				c.put(name, p.Generator(tenant).Labels(series), p.Generator(tenant).Expected(series, scrape))
			}
		}
	}
	return c
}

// serve puts the content into a TSDB for each tenant and serves it by Prometheus' own API, with an optional handler around
// it that spoils answers.
func serve(t testing.TB, c content, around func(http.Handler) http.Handler) *Server {
	t.Helper()
	apis := map[string]http.Handler{}
	for tenant, series := range c {
		apis[tenant] = api(t, tenant, series)
	}
	return serveAPIs(t, apis, around)
}

func serveAPIs(t testing.TB, apis map[string]http.Handler, around func(http.Handler) http.Handler) *Server {
	t.Helper()
	var handler http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		api, ok := apis[r.Header.Get("X-Scope-OrgID")]
		if !ok {
			http.Error(w, "no such tenant", http.StatusNotFound)
			return
		}
		api.ServeHTTP(w, r)
	})
	if around != nil {
		handler = around(handler)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	s := NewServer(server.URL + "/prometheus")
	t.Cleanup(s.Close)
	return s
}

// dbs are the TSDBs that the API of each tenant asks, one test after another.
var dbs = map[string]*swap{}

// swap is a TSDB that is replaced from test to test. Building Prometheus' API takes longer than a test.
type swap struct {
	storage.SampleAndChunkQueryable
	api http.Handler
}

// api returns the API of a tenant over a TSDB with the given content. It answers until the next one of the same tenant.
func api(t testing.TB, tenant string, series map[string]*stored) http.Handler {
	t.Helper()
	s := dbs[tenant]
	if s == nil {
		s = &swap{}
		s.api = newAPI(s)
		dbs[tenant] = s
	}
	s.SampleAndChunkQueryable = newDB(t, series)
	return s.api
}

func newDB(t testing.TB, series map[string]*stored) *tsdb.DB {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	options := tsdb.DefaultOptions()
	options.OutOfOrderTimeWindow, options.OutOfOrderCapMax = (24 * time.Hour).Milliseconds(), 30
	db, err := tsdb.Open(t.TempDir(), log, nil, options, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	for _, key := range slices.Sorted(maps.Keys(series)) {
		of := series[key]
		app := db.Appender(t.Context())
		for _, at := range slices.Sorted(maps.Keys(of.samples)) {
			s := of.samples[at]
			if s.H != nil || s.FH != nil {
				_, err = app.AppendHistogram(0, of.lset, s.T, copyOf(s.H), copyOfFloat(s.FH))
			} else {
				_, err = app.Append(0, of.lset, s.T, s.V)
			}
			require.NoError(t, err)
		}
		require.NoError(t, app.Commit())
	}
	return db
}

func newAPI(db storage.SampleAndChunkQueryable) http.Handler {
	log := slog.New(slog.DiscardHandler)
	p := parser.NewParser(parser.Options{})
	engine := promql.NewEngine(promql.EngineOpts{Logger: log, MaxSamples: 1_000_000, Timeout: time.Minute, Parser: p})
	router := route.New().WithPrefix("/prometheus/api/v1")
	v1.NewAPI(
		engine, db, nil, nil, nil, nil, nil, nil, func() config.Config { return config.Config{} }, nil,
		v1.GlobalURLOptions{}, func(f http.HandlerFunc) http.HandlerFunc { return f }, nil, "", false, false, 0, log, nil,
		0, 10, 4096, false, regexp.MustCompile("^(?:.*)$"), nil, &v1.PrometheusVersion{},
		nil, nil, nil, nil, nil, false, nil, false, false, false, false, 5*time.Minute, false, false, nil, nil,
		v1.OpenAPIOptions{IncludePaths: []string{"/query"}}, p,
	).Register(router)
	return router
}

func copyOf(h *histogram.Histogram) *histogram.Histogram {
	if h == nil {
		return nil
	}
	return h.Copy()
}

func copyOfFloat(h *histogram.FloatHistogram) *histogram.FloatHistogram {
	if h == nil {
		return nil
	}
	return h.Copy()
}

// verify reads a run back by both ways.
func verify(t *testing.T, p *loadplan.Plan, fates Fates, s *Server) (*Report, error) {
	t.Helper()
	v, err := New(Config{Ways: []string{Query, RemoteRead}, Connections: 2, PerQuery: 1500, Margin: time.Hour}, p, fates, s)
	require.NoError(t, err)
	return v.Run(t.Context())
}
