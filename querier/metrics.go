package querier

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	running     prometheus.Gauge
	waiting     prometheus.Gauge
	waitSeconds prometheus.Histogram
	queueFull   prometheus.Counter
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
			Help: "Queries that run now: PromQL, federation, lists of series and labels. At querier.max-concurrent for long, " +
				"others wait.",
		}),
		waiting: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_querier_waiting_queries",
			Help: "Queries and remote reads that wait for their turn. A rise means more or slower ones than slots.",
		}),
		queueFull: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_querier_queue_full_total",
			Help: "Queries and remote reads refused with 429 because their tenant had too many waiting. A rise means that a " +
				"tenant asks for more than its share, or that there are too few slots.",
		}),
		waitSeconds: f.NewHistogram(prometheus.HistogramOpts{
			Name: "duramen_querier_wait_seconds", Buckets: buckets,
			Help: "Time that a query or a remote read waited for its turn. A rise means more or slower ones than slots.",
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

// slots returns the metrics of slots whose use running counts.
func (m *metrics) slots(running prometheus.Gauge) slotMetrics {
	return slotMetrics{running: running, waiting: m.waiting, waitSeconds: m.waitSeconds, refused: m.queueFull}
}
