package tenant

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type limitsMetrics struct {
	reloadFailures prometheus.Counter
	lastSuccess    prometheus.Gauge
	hash           prometheus.Gauge
}

func newLimitsMetrics(reg prometheus.Registerer) *limitsMetrics {
	f := promauto.With(reg)
	return &limitsMetrics{
		reloadFailures: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_limits_reload_failures_total",
			Help: "Times that the overrides file could not be loaded. A rise means that it has a fault, named in the " +
				"log, and that older limits are in force.",
		}),
		lastSuccess: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_limits_last_reload_success_timestamp_seconds",
			Help: "When the overrides file was last read without a fault, in Unix time. Falling behind the clock means " +
				"that edits have no effect.",
		}),
		hash: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_limits_overrides_hash",
			Help: "Hash of the overrides file in force. Instances with different values apply different limits.",
		}),
	}
}
