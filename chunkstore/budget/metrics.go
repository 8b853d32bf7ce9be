package budget

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type poolMetrics struct {
	used, limit, waiting prometheus.Gauge
	waitSeconds          prometheus.Histogram

	refusedSize, refusedTime, refusedGone prometheus.Counter
}

func newPoolMetrics(reg prometheus.Registerer) *poolMetrics {
	f := promauto.With(reg)
	refused := f.NewCounterVec(prometheus.CounterOpts{
		Name: "duramen_budget_pool_refused_total",
		Help: "Reservations of chunk buffers that were not granted: size, above what one query may hold; timeout, waited " +
			"too long; canceled, the query went away. A rise of timeout means more queries at once than the memory is for.",
	}, []string{"reason"})
	return &poolMetrics{
		used: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_budget_pool_used_bytes",
			Help: "Chunk buffers that running queries have reserved. At the limit, queries wait for one another.",
		}),
		limit: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_budget_pool_limit_bytes",
			Help: "Most bytes of chunk buffers that queries may reserve together. It changes with the memory limit at start.",
		}),
		waiting: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_budget_pool_waiting",
			Help: "Queries that wait for chunk buffers. A lasting rise means more queries at once than the memory is for.",
		}),
		waitSeconds: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "duramen_budget_pool_wait_seconds",
			Help:    "Time that reservations waited which had to. A rise means that memory, not the bucket, makes queries slow.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 9),
		}),
		refusedSize: refused.WithLabelValues("size"),
		refusedTime: refused.WithLabelValues("timeout"),
		refusedGone: refused.WithLabelValues("canceled"),
	}
}
