package app

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/duramendb/duramen/internal/buildinfo"
)

type httpMetrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	inflight prometheus.Gauge
	panics   prometheus.Counter
}

func newHTTPMetrics(reg prometheus.Registerer) *httpMetrics {
	f := promauto.With(reg)
	return &httpMetrics{
		requests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_http_requests_total",
			Help: "Requests answered, by route, method and status. A rise of 5xx means failing work.",
		}, []string{"route", "method", "code"}),
		seconds: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "duramen_http_request_duration_seconds",
			Help:    "Time from a request's header to the end of its answer. A rise means that clients wait longer.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120},
		}, []string{"route"}),
		inflight: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_http_requests_in_flight",
			Help: "Requests that are being answered. A rise that lasts means that they come faster than they are done.",
		}),
		panics: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_http_panics_total",
			Help: "Handlers that panicked. Any rise is a bug; the log has the stack.",
		}),
	}
}

func registerBuildInfo(reg prometheus.Registerer, b buildinfo.Info) {
	promauto.With(reg).NewGauge(prometheus.GaugeOpts{
		Name: "duramen_build_info",
		Help: "Always 1; the labels say what runs. A change is a deployment.",
		ConstLabels: prometheus.Labels{
			"version": b.Version, "revision": b.Revision, "goversion": runtime.Version(), "prometheus": b.Prometheus,
		},
	}).Set(1)
}
