package compactor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/duramendb/duramen/chunkstore/manifest"
)

// expire takes blocks out of the manifest whose samples are all older than the tenant's retention. The result is the
// newest manifest that is known then, also after an error.
func (c *Compactor) expire(ctx context.Context, m *manifest.Manifest) (*manifest.Manifest, error) {
	retention := c.limits.RetentionPeriod(m.Tenant)
	if retention <= 0 || m.Doomed != nil && m.Doomed.FinishedAt == 0 {
		return m, nil
	}
	oldest := c.now().Add(-retention).UnixMilli()
	var change manifest.Change
	var expired []*manifest.Block
	for i := range m.Blocks {
		if b := &m.Blocks[i]; b.MaxTime <= oldest {
			change.Drop = append(change.Drop, b.ULID)
			expired = append(expired, b)
		}
	}
	if _, here := c.cluster.Owner(m.Tenant); len(expired) == 0 || !here {
		return m, nil
	}
	_, err := c.manifests.Swap(ctx, m.Tenant, change)
	if errors.Is(err, manifest.ErrConflict) {
		return c.known(m), nil // one of them was merged or removed meanwhile; the next look goes by what is there then
	}
	if err != nil {
		return m, fmt.Errorf("drop %d blocks beyond the retention of %v: %w", len(expired), retention, err)
	}
	for _, b := range expired {
		c.metrics.expiredBytes.Add(float64(b.SizeBytes))
		c.log.Info("block expired", "tenant", m.Tenant, "block", b.ULID, "min_time", time.UnixMilli(b.MinTime).UTC(),
			"max_time", time.UnixMilli(b.MaxTime).UTC(), "retention", retention)
	}
	c.metrics.expired.Add(float64(len(expired)))
	return c.known(m), nil
}

// known is what is in memory of m's tenant, m when that is nothing.
func (c *Compactor) known(m *manifest.Manifest) *manifest.Manifest {
	if known := c.manifests.Known(m.Tenant); known != nil {
		return known
	}
	return m
}
