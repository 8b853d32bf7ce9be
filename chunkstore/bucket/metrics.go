package bucket

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	operations *prometheus.CounterVec
	failures   *prometheus.CounterVec
	seconds    *prometheus.HistogramVec
	bytes      *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	by := []string{"operation"}
	f := promauto.With(reg)
	return &metrics{
		operations: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_bucket_operations_total",
			Help: "Operations asked of the object store; a rise without a rise in load means that caches miss.",
		}, by),
		failures: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_bucket_operation_failures_total",
			Help: "Operations that failed, a missing object, a lost put-if-absent and a caller who went away not " +
				"counted; a rise means that the object store or the way to it is in trouble.",
		}, by),
		seconds: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "duramen_bucket_operation_duration_seconds",
			Help: "Time until an operation was done, for get and get_range until the body began; a rise means a " +
				"slow object store.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 9), // 1 ms to 65 s
		}, by),
		bytes: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_bucket_transferred_bytes_total",
			Help: "Bytes of bodies sent to and received from the object store; a rise without a rise in load means " +
				"that caches miss or that uploads are repeated.",
		}, by),
	}
}
