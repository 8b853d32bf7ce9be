package compactor

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/duramendb/duramen/compactor/plan"
)

// registerGauges registers what is looked up when somebody asks, so that it goes on to age when nothing else moves.
func (c *Compactor) registerGauges(reg prometheus.Registerer) {
	f := promauto.With(reg)
	gauge := func(name, help string, labels prometheus.Labels, value func(t *tenantState) float64) {
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, func() float64 { return c.total(value) })
	}
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "duramen_compactor_oldest_uncompacted_slot_age_seconds",
		Help: "Time since the oldest slot of any tenant should have been merged and was not, or since a tenant cannot be looked " +
			"at; 0 when there is none. A rise above some hours means that compaction does not keep up, or that something keeps " +
			"a job from being done: /compactor says what. Queries stay right and become slower.",
	}, func() float64 { return c.lag().Seconds() })
	gauge("duramen_compactor_tenants",
		"Tenants whose blocks this process looks after; a rise means new tenants, or a compactor that went away.", nil,
		func(*tenantState) float64 { return 1 })
	gauge("duramen_compactor_failing_tenants",
		"Tenants whose manifest could not be read or changed when it was last tried. Above 0 means that the bucket fails "+
			"or a manifest is damaged: /compactor and the log name the tenant.", nil,
		func(t *tenantState) float64 {
			if t.failedAt.IsZero() {
				return 0
			}
			return 1
		})
	gauge("duramen_compactor_uncompacted_slots",
		"Slots that should be merged by now and are not; a rise that stays means that compaction does not keep up.", nil,
		func(t *tenantState) float64 { return float64(t.sum.uncompacted) })
	gauge("duramen_compactor_pending_jobs",
		"Jobs that are planned, those that run or wait after a failure included; a rise that stays means that compaction "+
			"does not keep up: raise compactor.concurrency, or add compactors.", nil,
		func(t *tenantState) float64 { return float64(len(t.jobs)) })
	gauge("duramen_compactor_running_jobs",
		"Jobs that run; compactor.concurrency at most, besides one that rests. A rise means work.", nil,
		func(t *tenantState) float64 { return float64(len(t.running)) })
	gauge("duramen_compactor_pending_deletions",
		"Deletions of series that are hidden from queries and not yet taken out of all blocks; a rise that stays means that "+
			"rewriting does not keep up.", nil,
		func(t *tenantState) float64 { return float64(t.sum.deletions) })
	for _, reason := range plan.Reasons() {
		gauge("duramen_compactor_skipped_blocks",
			"Blocks that are left as they are, by reason. A rise of foreign_compactor means that a peer compacts the same "+
				"bucket, of oversized that a tenant has too many series, of excluded and refused that something is damaged or "+
				"broken: /compactor says what to do.", prometheus.Labels{"reason": string(reason)},
			func(t *tenantState) float64 { return float64(t.sum.skipped[reason]) })
	}
}

// total sums over the tenants of this process.
func (c *Compactor) total(value func(*tenantState) float64) float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum := 0.0
	for _, t := range c.tenants {
		sum += value(t)
	}
	return sum
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

// lag is for how long the tenant's oldest slot waits. A tenant that cannot be looked at lags since then at least. The caller
// holds Compactor.mu.
func (t *tenantState) lag(now time.Time) time.Duration {
	var lag time.Duration
	if t.sum.oldest != 0 {
		lag = now.Sub(time.UnixMilli(t.sum.oldest))
	}
	if !t.failedAt.IsZero() {
		lag = max(lag, now.Sub(t.failedAt))
	}
	return max(0, lag)
}
