package compactor

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	lookFailures prometheus.Counter
	expired      prometheus.Counter
	expiredBytes prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, c *Compactor) *metrics {
	f := promauto.With(reg)
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "duramen_compactor_tenants",
		Help: "Tenants whose blocks this process looks after; a rise means new tenants, or a compactor that went away.",
	}, func() float64 { return float64(c.countTenants(func(*tenantState) bool { return true })) })
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "duramen_compactor_failing_tenants",
		Help: "Tenants whose manifest could not be read or changed when it was last tried. Above 0 means that the bucket fails " +
			"or a manifest is damaged: /compactor and the log name the tenant.",
	}, func() float64 {
		return float64(c.countTenants(func(t *tenantState) bool { return !t.failedAt.IsZero() }))
	})
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "duramen_compactor_oldest_uncompacted_slot_age_seconds",
		Help: "Time since the end of the oldest slot of any tenant that should be merged by now and is not, or since a tenant " +
			"cannot be looked at; 0 when there is none. A rise above some hours means that compaction does not keep up or that " +
			"something keeps a job from being done: /compactor says what. Queries stay right and become slower.",
	}, func() float64 { return c.lag().Seconds() })
	return &metrics{
		lookFailures: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_compactor_look_failures_total",
			Help: "Looks at a tenant's blocks that failed; a rise means that the bucket fails or a manifest cannot be read.",
		}),
		expired: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_compactor_expired_blocks_total",
			Help: "Blocks that left a manifest because all of their samples were older than the tenant's retention; a jump means " +
				"that a retention was shortened.",
		}),
		expiredBytes: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_compactor_expired_bytes_total",
			Help: "Size of the blocks that left a manifest for their age; a jump means that a retention was shortened.",
		}),
	}
}

func (c *Compactor) countTenants(counts func(*tenantState) bool) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, t := range c.tenants {
		if counts(t) {
			n++
		}
	}
	return n
}

// lag is how long the tenant that lags most has lagged.
func (c *Compactor) lag() time.Duration {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	var most time.Duration
	for _, t := range c.tenants {
		most = max(most, t.lag(now))
	}
	return most
}

// lag is the age of the tenant's oldest uncompacted slot. One that cannot be looked at lags since then at least. The
// caller holds Compactor.mu.
func (t *tenantState) lag(now time.Time) time.Duration {
	if t.failedAt.IsZero() {
		return 0
	}
	return now.Sub(t.failedAt)
}
