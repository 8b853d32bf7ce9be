package ingester

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// Limits are asked for a tenant each time and never copied. Epoch changes whenever one of the tenant's limits does.
type Limits interface {
	Epoch(tenant string) uint64
	// MaxSeries is how many series the tenant may have in memory; 0 means no limit.
	MaxSeries(tenant string) int
	// MaxMetadata is how many metric families' metadata are kept, MaxExemplars the size of the tenant's ring.
	MaxMetadata(tenant string) int
	MaxExemplars(tenant string) int
	// OutOfOrderWindow is how much older than the tenant's newest sample a sample may be.
	OutOfOrderWindow(tenant string) time.Duration
}

// seriesGate refuses the creation of series over the tenant's limit. Stock calls it for each new series, in a replay too:
// until opened it lets everything pass, for what was accepted stays accepted when the limit falls.
type seriesGate struct {
	tenant string
	limits Limits
	head   atomic.Pointer[tsdb.Head]
}

func (g *seriesGate) opened(h *tsdb.Head) { g.head.Store(h) }

// PreCreation implements tsdb.SeriesLifecycleCallback.
func (g *seriesGate) PreCreation(labels.Labels) error {
	h := g.head.Load()
	if h == nil {
		return nil
	}
	limit := g.limits.MaxSeries(g.tenant)
	if have := h.NumSeries(); limit > 0 && have >= uint64(limit) {
		return &seriesLimitError{limit: uint64(limit), have: have}
	}
	return nil
}

// PostCreation implements tsdb.SeriesLifecycleCallback.
func (g *seriesGate) PostCreation(labels.Labels) {}

// PostDeletion implements tsdb.SeriesLifecycleCallback.
func (g *seriesGate) PostDeletion(map[chunks.HeadSeriesRef]labels.Labels) {}

// applyLimits brings the TSDB in line with the tenant's limits when they changed since the last call, or when the first
// exemplar asks for the ring. The caller holds appendMu. While a cut runs it is put off to the next push: stock swaps its
// out-of-order log without a lock.
func (l *life) applyLimits(hasExemplars bool) error {
	limits := l.tenant.set.limits
	epoch := limits.Epoch(l.tenant.id)
	ring := hasExemplars && !l.ring && limits.MaxExemplars(l.tenant.id) > 0
	if epoch == l.limitsEpoch && !ring {
		return nil
	}
	if !l.cutMu.TryLock() {
		return nil
	}
	defer l.cutMu.Unlock()
	c := &config.Config{StorageConfig: config.StorageConfig{
		TSDBConfig:      &config.TSDBConfig{OutOfOrderTimeWindow: limits.OutOfOrderWindow(l.tenant.id).Milliseconds()},
		ExemplarsConfig: &config.ExemplarsConfig{},
	}}
	if l.ring || ring {
		c.StorageConfig.ExemplarsConfig.MaxExemplars = int64(limits.MaxExemplars(l.tenant.id))
	}
	if err := l.db.ApplyConfig(c); err != nil {
		return fmt.Errorf("apply limits of tenant %s: %w", l.tenant.id, err)
	}
	l.limitsEpoch = epoch
	l.ring = c.StorageConfig.ExemplarsConfig.MaxExemplars > 0
	return l.counters.findWBL(c.StorageConfig.TSDBConfig.OutOfOrderTimeWindow > 0)
}
