package querier

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	running     prometheus.Gauge
	waitSeconds prometheus.Histogram
	reads       prometheus.Gauge
	requests    prometheus.Gauge
	seconds     *prometheus.HistogramVec
	replans     prometheus.Counter
	errors      *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	buckets := prometheus.ExponentialBuckets(0.001, 4, 9) // 1 ms to 65 s
	return &metrics{
		running: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_querier_running_queries",
			Help: "PromQL queries that run now. At querier.max-concurrent for long, others wait.",
		}),
		waitSeconds: f.NewHistogram(prometheus.HistogramOpts{
			Name: "duramen_querier_wait_seconds", Buckets: buckets,
			Help: "Time that a PromQL query waited for its turn. A rise means more or slower queries than slots.",
		}),
		reads: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_querier_running_remote_reads",
			Help: "Remote reads that run now. At querier.remote-read-concurrent-limit for long, others wait.",
		}),
		requests: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_querier_requests_in_flight",
			Help: "Requests to the Prometheus API that are being answered. A rise means slow queries or many clients.",
		}),
		seconds: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "duramen_querier_request_seconds", Buckets: buckets,
			Help: "Time to answer a request. A rise means larger queries, a slow bucket or a machine at its limit.",
		}, []string{"route"}),
		replans: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_querier_replans_total",
			Help: "Plans made anew because an ingester had deleted blocks meanwhile. Many mean a manifest that is known late.",
		}),
		errors: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_querier_errors_total",
			Help: "Requests answered with an error, by kind. Corrupt and internal ones need someone to look.",
		}, []string{"kind"}),
	}
}
