package app

import (
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/duramendb/duramen/querier"
	"github.com/duramendb/duramen/tenant"
)

// apiPrefix is where the Prometheus HTTP API stands, as at the peers.
const apiPrefix = "/prometheus"

// bodyTimeout bounds the time in which a write's body must have arrived.
const bodyTimeout = 2 * time.Minute

// route is one line of the table of everything that is served. Its path is a pattern of http.ServeMux, and the value of
// the label route in metrics.
type route struct {
	path    string
	methods []string
	// about is for the index page.
	about string
	// tenanted routes need the services: they answer 503 until all run, and know their tenant.
	tenanted bool
	// gated routes need the services, too, but no tenant.
	gated   bool
	handler http.Handler
}

// serve returns the handler of all routes.
func (a *App) serve() http.Handler {
	a.table = a.routes()
	for i, r := range a.table {
		switch {
		case r.tenanted:
			a.table[i].handler = a.whenStarted(a.withTenant(r.handler))
		case r.gated:
			a.table[i].handler = a.whenStarted(r.handler)
		}
	}
	return newRouter(a.table, a.notFound, a.tracing, a.logger("http"), a.reg)
}

// routes is the table. docs/api.md describes each; a test compares.
func (a *App) routes() []route {
	var table []route
	if a.distributor != nil {
		table = append(table, a.writeRoutes()...)
	}
	if a.querier != nil {
		table = append(table, a.queryRoutes()...)
	}
	if a.ingester != nil {
		table = append(table, a.ingesterRoutes()...)
	}
	if a.compactor != nil {
		table = append(table, a.compactorRoutes()...)
	}
	if a.deletions != nil {
		table = append(table, a.deletionRoutes()...)
	}
	if a.gateway != nil || a.gateways != nil {
		table = append(table, route{
			path: "/store-gateway/status", methods: []string{http.MethodGet}, handler: http.HandlerFunc(a.serveGateway),
			about: "blocks that are read for others here, and the store-gateways that read for this process, as JSON",
		})
	}
	if a.ring != nil {
		table = append(table, a.ringRoutes()...)
	}
	return append(table, a.processRoutes()...)
}

// ringRoutes are about the cluster. Every member answers them, from the start on: that others cannot be seen may be why
// this one does not become ready.
func (a *App) ringRoutes() []route {
	get, post := []string{http.MethodGet}, []string{http.MethodPost}
	return []route{
		{
			path: "/ring", methods: get, handler: http.HandlerFunc(a.ring.ServeRing),
			about: "the members of the cluster: roles, zones, states, shares; ?format=json",
		},
		{
			path: "/ring/forget", methods: post, handler: http.HandlerFunc(a.ring.ServeForget),
			about: "forget an ingester that will not come back, ?instance=; says what may be lost by it",
		},
		{
			path: "/memberlist", methods: get, handler: http.HandlerFunc(a.ring.ServeMemberlist),
			about: "who gossips with this process; ?format=json",
		},
	}
}

// writeRoutes are the distributor's.
func (a *App) writeRoutes() []route {
	post, push := []string{http.MethodPost}, readBodyInTime(a.distributor.Handler())
	return []route{
		{path: "/api/v1/push", methods: post, tenanted: true, handler: push, about: "remote write 1.0 and 2.0"},
		{path: "/api/v1/write", methods: post, tenanted: true, handler: push, about: "the same"},
		{path: "/api/prom/push", methods: post, tenanted: true, handler: push, about: "the same"},
	}
}

// queryRoutes are the querier's.
func (a *App) queryRoutes() []route {
	get, api := []string{http.MethodGet}, a.querier.Handler(apiPrefix)
	var stats statsSource = a.ingester
	if a.fanout != nil {
		stats = a.fanout
	}
	return []route{
		{
			path: apiPrefix + "/api/v1/", methods: []string{http.MethodGet, http.MethodPost, http.MethodOptions}, tenanted: true,
			handler: api, about: "the Prometheus HTTP API; its base URL is " + apiPrefix,
		},
		{
			path: apiPrefix + "/api/v1/admin/tsdb/", tenanted: true, handler: api,
			methods: []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions},
			about:   "its administration: series are deleted, when that is switched on",
		},
		{
			path: "/api/v1/user_stats", methods: get, tenanted: true, handler: userStatsHandler(stats),
			about: "a tenant's series in memory and samples per second, as Cortex tells it",
		},
		{
			path: apiPrefix + "/federate", methods: get, tenanted: true, handler: a.querier.Federate(),
			about: "the newest sample of each series, ?match[]= for a Prometheus that scrapes it",
		},
		{path: "/federate", methods: get, tenanted: true, handler: a.querier.Federate(), about: "the same"},
	}
}

// ingesterRoutes are about the data that this process holds.
func (a *App) ingesterRoutes() []route {
	get, post := []string{http.MethodGet}, []string{http.MethodPost}
	var leave []route
	if a.membership != nil {
		leave = []route{{
			path: "/ingester/prepare-shutdown", gated: true, handler: a.membership,
			methods: []string{http.MethodGet, http.MethodPost, http.MethodDelete},
			about:   "before this ingester is taken away for good: POST drains it, GET says how far that is, DELETE takes it back",
		}}
	}
	return append(leave, []route{
		{
			path: "/ingester/flush", methods: post, gated: true, handler: a.ingester.FlushHandler(),
			about: "cut and ship recent data now; ?tenant= for one tenant, ?wait=true to wait for the bucket",
		},
		{
			path: "/ingester/tenants", methods: get, gated: true, handler: a.ingester.TenantsHandler(),
			about: "the tenants with their series, rates, last flush and what is not in the bucket yet, as JSON",
		},
	}...)
}

// deletionRoutes are about the deletion of whole tenants. Any process of the role answers them, whoever does the work.
func (a *App) deletionRoutes() []route {
	get, post := []string{http.MethodGet}, []string{http.MethodPost}
	request, status := a.deletions.DeleteHandler(), a.deletions.StatusHandler()
	return []route{
		{
			path: "/compactor/delete_tenant", methods: post, tenanted: true, handler: request,
			about: "have everything of the request's tenant deleted, after a time of grace",
		},
		{path: "/purger/delete_tenant", methods: post, tenanted: true, handler: request, about: "the same"},
		{
			path: "/compactor/delete_tenant_status", methods: get, tenanted: true, handler: status,
			about: "how far that is, as JSON",
		},
		{path: "/purger/delete_tenant_status", methods: get, tenanted: true, handler: status, about: "the same"},
		{
			path: "/compactor/undelete_tenant", methods: post, tenanted: true, handler: a.deletions.UndeleteHandler(),
			about: "take it back, in the time of grace",
		},
	}
}

// processRoutes are about this process.
func (a *App) processRoutes() []route {
	get, getPost := []string{http.MethodGet}, []string{http.MethodGet, http.MethodPost}
	metrics := promhttp.HandlerFor(a.reg, promhttp.HandlerOpts{Registry: a.reg, EnableOpenMetrics: true})
	return []route{
		{
			path: "/ready", methods: get, handler: http.HandlerFunc(a.serveReady),
			about: "200 when this process can do its work",
		},
		{path: apiPrefix + "/-/ready", methods: get, handler: http.HandlerFunc(a.serveReady)}, // promtool check ready
		{path: apiPrefix + "/-/healthy", methods: get, handler: http.HandlerFunc(serveAlive)},
		{path: "/healthz", methods: get, handler: http.HandlerFunc(a.serveHealth), about: "every check with its state"},
		{path: "/metrics", methods: get, handler: metrics, about: "metrics of this process"},
		{path: "/config", methods: get, handler: http.HandlerFunc(a.serveConfig), about: "the settings in force"},
		{
			path: "/log-level", methods: []string{http.MethodGet, http.MethodPost, http.MethodPut},
			handler: http.HandlerFunc(a.serveLogLevel), about: "the log level; POST with ?level=debug changes it",
		},
		{path: "/debug/pprof/", methods: getPost, handler: http.HandlerFunc(pprof.Index), about: "profiles of this process"},
		{path: "/debug/pprof/cmdline", methods: get, handler: http.HandlerFunc(serveCmdline)},
		{path: "/debug/pprof/profile", methods: getPost, handler: http.HandlerFunc(pprof.Profile)},
		{path: "/debug/pprof/symbol", methods: getPost, handler: http.HandlerFunc(pprof.Symbol)},
		{path: "/debug/pprof/trace", methods: getPost, handler: http.HandlerFunc(pprof.Trace)},
		{path: "/{$}", methods: get, handler: http.HandlerFunc(a.serveIndex)},
	}
}

// readBodyInTime ends requests whose body does not arrive, so that slow senders do not hold memory.
func readBodyInTime(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The server resets the deadline before the next request. Only a test's writer does not support it.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
		next.ServeHTTP(w, r)
	})
}

// whenStarted answers 503 until all parts run. Senders repeat the request.
func (a *App) whenStarted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !a.started.Load() {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "starting: see /ready", http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// withTenant finds the request's tenant. A browser asks with OPTIONS, without our header, before it sends it.
func (a *App) withTenant(next http.Handler) http.Handler {
	tenanted := tenant.Middleware(a.cfg.headerRequired(), tellTenant(next))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodOptions {
			next.ServeHTTP(w, r)
			return
		}
		tenanted.ServeHTTP(w, r)
	})
}

// notFound answers every other path, with a hint where the path looks like a known mistake.
func (a *App) notFound(w http.ResponseWriter, r *http.Request) {
	hint := "see / for what there is"
	switch path := r.URL.Path; {
	case strings.HasSuffix(path, "/otlp/v1/metrics"):
		hint = "OTLP is not taken yet; remote write is at /api/v1/push"
	case path == apiPrefix || path == apiPrefix+"/":
		hint = "the base URL of a Prometheus datasource is right; there is no page here, only " + apiPrefix + "/api/v1/…"
	case strings.HasPrefix(path, "/api/v1/") || strings.HasPrefix(path, "/api/prom/api/v1/"):
		_, rest, _ := strings.Cut(path, "/api/v1/")
		if !querier.Answers(rest) {
			rest = "…"
		}
		hint = "the Prometheus API is at " + apiPrefix + "/api/v1/" + rest
	case a.ring == nil && slices.Contains([]string{"/ring", "/ring/forget", "/memberlist", "/ingester/prepare-shutdown"}, path):
		hint = "this process is no member of a cluster"
	}
	http.Error(w, "404: nothing at "+r.URL.Path+"; "+hint, http.StatusNotFound)
}
