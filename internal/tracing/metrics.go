package tracing

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Reasons for which spans are dropped.
const (
	droppedQueueFull = "queue_full"
	droppedExport    = "export_failed"
	droppedAtStop    = "stopped"
)

type metrics struct {
	exported prometheus.Counter
	dropped  *prometheus.CounterVec
	failures prometheus.Counter
	seconds  prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	m := &metrics{
		exported: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_tracing_exported_spans_total",
			Help: "Spans that the collector took. No rise while requests come means that sampling leaves them all out.",
		}),
		dropped: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_tracing_dropped_spans_total",
			Help: "Spans that nobody will see, by reason. A rise means that the collector is away or slow, or that too " +
				"much is sampled; requests do not suffer.",
		}, []string{"reason"}),
		failures: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_tracing_export_failures_total",
			Help: "Exports that failed after retries, or in part. A rise means that the collector is away or refuses them.",
		}),
		seconds: f.NewHistogram(prometheus.HistogramOpts{
			Name: "duramen_tracing_export_duration_seconds", Buckets: []float64{.005, .02, .1, .5, 2, 10},
			Help: "Time of an export, retries included. A rise means that the collector is slow.",
		}),
	}
	for _, reason := range []string{droppedQueueFull, droppedExport, droppedAtStop} {
		m.dropped.WithLabelValues(reason)
	}
	return m
}
