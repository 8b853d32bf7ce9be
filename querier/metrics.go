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
	gone        prometheus.Counter
	anew        prometheus.Counter
	lost        prometheus.Counter
	deletions   prometheus.Counter
	enlarged    prometheus.Counter
	tooLarge    prometheus.Counter
	large       prometheus.Gauge
	versions    versionMetrics
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
		gone: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_querier_gone_blocks_total",
			Help: "Queries planned anew on a fresh manifest because a block of their plan was not in the bucket. Many mean " +
				"that blocks are deleted by hand, or too soon.",
		}),
		anew: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_querier_broken_answers_total",
			Help: "Queries carried out anew because the answer about recent samples broke off: an ingester went away, or had " +
				"deleted since the plan what the plan counts on. Many mean ingesters that come and go.",
		}),
		lost: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_querier_lost_range_warnings_total",
			Help: "Queries answered with a warning because they touch times of which samples are known to be lost. A rise " +
				"means that somebody looks at such times.",
		}),
		deletions: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_querier_series_deletions_total",
			Help: "Deletions of series that were asked for by the administration API and recorded. Each costs all queries of " +
				"its tenant a little for a month: many of them should be one.",
		}),
		enlarged: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_querier_enlarged_queries_total",
			Help: "Queries carried out anew as large ones because they held too much for a small one. Many, and waiting for " +
				"large slots, mean that querier.memory-share or the memory is small for what is asked.",
		}),
		tooLarge: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_querier_too_large_queries_total",
			Help: "Queries refused because they hold more than a large one may. A rise means that somebody asks for more " +
				"than the memory allows.",
		}),
		large: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_querier_running_large_queries",
			Help: "Queries in large slots that run now. At an eighth of querier.max-concurrent for long, others wait.",
		}),
		versions: versionMetrics{
			polled: f.NewGauge(prometheus.GaugeOpts{
				Name: "duramen_querier_polled_tenants",
				Help: "Tenants queried lately, whose manifests are compared with the bucket every few seconds. A rise costs a " +
					"small request each.",
			}),
			looks: f.NewCounter(prometheus.CounterOpts{
				Name: "duramen_querier_manifest_looks_total",
				Help: "Looks for a newer manifest in the bucket, by the poller or by a query. A rise is one of tenants queried.",
			}),
			failed: f.NewCounter(prometheus.CounterOpts{
				Name: "duramen_querier_manifest_look_failures_total",
				Help: "Looks for a newer manifest that failed. A rise means that the bucket cannot be reached; what is known of " +
					"it is used for half an hour, without the blocks that others add meanwhile.",
			}),
			tooLate: f.NewCounter(prometheus.CounterOpts{
				Name: "duramen_querier_manifest_too_old_total",
				Help: "Queries refused because the manifest could not be compared with the bucket for half an hour. A rise " +
					"means that older samples cannot be queried until the bucket is back.",
			}),
		},
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
