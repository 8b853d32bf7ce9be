package querier

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/config"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/duramendb/duramen/internal/tracing"
)

// routes are the paths behind /api/v1/ that are answered, with their name in the metric; "*" is one segment. What
// Prometheus has besides (snapshots, remote write, its own configuration and state) is 404 here.
var routes = map[string]string{
	"query":                       "query",
	"query_range":                 "query_range",
	"series":                      "series",
	"labels":                      "labels",
	"label/*/values":              "label_values",
	"format_query":                "format_query",
	"parse_query":                 "parse_query",
	"status/buildinfo":            "buildinfo",
	"read":                        "read",
	"query_exemplars":             "query_exemplars",
	"metadata":                    "metadata",
	"status/tsdb":                 "tsdb",
	"admin/tsdb/delete_series":    "delete_series",
	"admin/tsdb/clean_tombstones": "clean_tombstones",
	"admin/tsdb/deletions":        "deletions",
	"admin/tsdb/deletions/*":      "deletion",
	"status/runtimeinfo":          "status", // from here on: about a tenant's Prometheus, which is not here: little or nothing
	"status/config":               "status",
	"status/flags":                "status",
	"status/walreplay":            "status",
	"features":                    "status",
	"rules":                       "none",
	"alerts":                      "none",
	"alertmanagers":               "none",
	"targets":                     "none",
	"targets/metadata":            "none",
	"scrape_pools":                "none",
	"notifications":               "none",
	"notifications/live":          "none",
}

// hints say where something is that is often looked for here.
var hints = map[string]string{
	"write": "; remote write is at /api/v1/push",
	"push":  "; remote write is at /api/v1/push",
}

// Handler answers the Prometheus HTTP API under prefix + "/api/v1/". The tenant must be in the request's context.
func (q *Querier) Handler(prefix string) http.Handler {
	base := strings.TrimSuffix(prefix, "/") + "/api/v1"
	// Built by the first request: Prometheus renders its OpenAPI documents meanwhile, which is no part of our start.
	router := sync.OnceValue(func() *route.Router {
		r := route.New().WithPrefix(base)
		q.api().Register(r)
		return r
	})
	own, admin := q.ownAnswers(), q.adminAnswers()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, under := strings.CutPrefix(r.URL.Path, base+"/")
		name, known := routeOf(path)
		if !under || !known {
			fail(w, http.StatusNotFound, "not_found", "no such endpoint: "+r.URL.Path+hints[path])
			return
		}
		if span := tracing.Current(r.Context()); span.Recording() {
			span.Rename(r.Method + " " + base + "/" + name)
		}
		r, done := q.accept(w, r, name)
		defer done()
		w = patientWriter{w, r, time.Now()}
		if name == "read" && r.Method == http.MethodPost {
			q.remoteRead(w, r)
			return
		}
		if err := bounded(w, r, name); err != nil {
			fail(w, http.StatusBadRequest, "bad_data", err.Error())
			return
		}
		if h := own[name]; h != nil && r.Method == http.MethodGet {
			h.ServeHTTP(w, r)
			return
		}
		if methods := admin[name]; methods != nil && r.Method != http.MethodOptions {
			q.administer(w, r, methods)
			return
		}
		r, release, err := q.admit(r, name)
		if err != nil {
			q.refuse(w, err)
			return
		}
		defer release()
		router().ServeHTTP(w, r)
	})
}

// accept counts and times a request to a route, and bounds its time. The caller calls done at the end.
func (q *Querier) accept(w http.ResponseWriter, r *http.Request, route string) (bounded *http.Request, done func()) {
	start := time.Now()
	q.metrics.requests.Inc()
	lift := boundConnection(w, 2*q.cfg.Timeout) // the time of the answer itself, and as much to take it
	// The engine bounds a query, too, but not how long it waits for a slot.
	ctx, cancel := context.WithTimeout(r.Context(), q.cfg.Timeout)
	return r.WithContext(ctx), func() {
		cancel()
		lift()
		q.metrics.requests.Dec()
		q.metrics.seconds.WithLabelValues(route).Observe(time.Since(start).Seconds())
	}
}

// routeOf returns the metric name of a path behind /api/v1/.
func routeOf(path string) (name string, known bool) {
	if rest, ok := strings.CutPrefix(path, "label/"); ok {
		if value, ok := strings.CutSuffix(rest, "/values"); ok && value != "" && !strings.Contains(value, "/") {
			path = "label/*/values"
		}
	}
	if id, ok := strings.CutPrefix(path, deletionPath); ok && id != "" && !strings.Contains(id, "/") {
		path = deletionPath + "*"
	}
	name, known = routes[path]
	return name, known
}

// Answers says whether there is something at a path behind /api/v1/.
func Answers(path string) bool {
	_, known := routeOf(path)
	return known
}

// fail answers in the form of Prometheus' errors.
func fail(w http.ResponseWriter, status int, kind, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v1.Response{ // the client is gone if this fails
		Status: "error", ErrorType: kind, Error: text,
	})
}

// api builds Prometheus' own API over our Queryable. What it could ask beyond samples is absent and empty.
func (q *Querier) api() *v1.API {
	b := q.cfg.BuildInfo
	build := v1.PrometheusVersion{
		Version: b.Version, Revision: b.Revision, Branch: b.Branch,
		BuildUser: b.BuildUser, BuildDate: b.BuildDate, GoVersion: b.GoVersion,
	}
	return v1.NewAPI(
		replanning{q}, q.Queryable(),
		nil, nil, // appenders: writes have their own path
		exemplarQueryable{q},
		func(context.Context) v1.ScrapePoolsRetriever { return absent{} },
		func(context.Context) v1.TargetRetriever { return absent{} },
		func(context.Context) v1.AlertmanagerRetriever { return absent{} },
		func() config.Config { return config.Config{} },
		map[string]string{}, // flags
		v1.GlobalURLOptions{},
		func(f http.HandlerFunc) http.HandlerFunc { return f }, // readiness is the server's
		absent{}, "", // the TSDB behind administration and status
		false, false, 0, // administration, search, its limit
		q.log,
		func(context.Context) v1.RulesRetriever { return absent{} },
		0, 1, 0, // remote read, which is answered by Querier.remoteRead
		false, // agent
		q.anyOrigin,
		q.runtimeInfo,
		&build,
		absent{}.notifications, absent{}.subscribe,
		absent{},   // gatherer
		nil,        // registerer: the only metric is remote read's
		nil,        // statistics: Prometheus' own renderer
		false, nil, // remote write and its messages
		false, false, false, // OTLP
		false, // start timestamps
		q.cfg.LookbackDelta,
		false, false, // type and unit labels, metadata
		overrideStatus(q.metrics, v1.ErrorNone),
		q.features,
		v1.OpenAPIOptions{IncludePaths: []string{"/query"}}, // all paths would take 0.2 s; it is not routed
		q.parser,
	)
}
