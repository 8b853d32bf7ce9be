package compactor

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/duramendb/duramen/chunkstore/manifest"
)

const (
	// firstLook is when after the start the tenants are looked at first at the latest, so that it disturbs no start.
	firstLook = 10 * time.Second

	// roundPause is the least time between two rounds of looks: changes come in bursts, of several ingesters.
	roundPause = time.Second

	// looksAtOnce is how many tenants are looked at at a time; most looks ask nobody and take microseconds.
	looksAtOnce = 4

	// longestQuiet bounds how long the bucket is not asked for newer versions of a tenant that does not change.
	longestQuiet = 24 * time.Hour
)

// lookLoop looks at each tenant when it is due. It never ends before ctx does.
func (c *Compactor) lookLoop(ctx context.Context) error {
	if c.cfg.Interval == 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	pause := vary(min(c.cfg.Interval, firstLook))
	for {
		if err := c.wait(ctx, pause); err != nil {
			return err
		}
		c.round(ctx)
		pause = c.nextRound()
		if err := sleep(ctx, roundPause); err != nil {
			return err
		}
	}
}

// wait ends after d, or when somebody has something to look at.
func (c *Compactor) wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
	case <-c.poke:
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// vary returns between 80 and 120 % of d.
func vary(d time.Duration) time.Duration {
	return d*4/5 + time.Duration(rand.Int64N(int64(d)*2/5+1))
}

// round looks at all tenants that are due.
func (c *Compactor) round(ctx context.Context) {
	now := c.now()
	c.mu.Lock()
	listing := !now.Before(c.listAt)
	c.mu.Unlock()
	if listing {
		pause := listEvery
		if err := c.list(ctx); err != nil {
			pause = min(c.cfg.Interval, time.Minute)
			if ctx.Err() == nil {
				c.log.Warn("tenants in the bucket were not listed, trying again", "err", err)
			}
		}
		c.mu.Lock()
		c.listAt = now.Add(vary(pause))
		c.mu.Unlock()
	}
	c.settle(now)
	due := make(chan *tenantState)
	var wg sync.WaitGroup
	for range looksAtOnce {
		wg.Go(func() {
			for t := range due {
				c.look(ctx, t)
			}
		})
	}
	for _, t := range c.due(now) {
		due <- t
	}
	close(due)
	wg.Wait()
}

func (c *Compactor) due(now time.Time) []*tenantState {
	c.mu.Lock()
	defer c.mu.Unlock()
	var due []*tenantState
	for _, t := range c.tenants {
		if !now.Before(t.lookAt) {
			due = append(due, t)
		}
	}
	return due
}

// nextRound is the time until the next tenant is due.
func (c *Compactor) nextRound() time.Duration {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.listAt
	for _, t := range c.tenants {
		if t.lookAt.Before(next) {
			next = t.lookAt
		}
	}
	return max(0, next.Sub(now))
}

// look finds out what is to be done for a tenant. Looks at one tenant exclude one another.
func (c *Compactor) look(ctx context.Context, t *tenantState) {
	select {
	case t.turn <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-t.turn }()
	m, err := c.newest(ctx, t)
	if err == nil {
		m, err = c.expire(ctx, m)
	}
	if ctx.Err() != nil {
		return
	}
	c.note(t, m, err)
}

// newest returns the manifest of a tenant. The bucket is asked when nothing is known, and after a pause that grows with
// the time since the tenant last changed.
func (c *Compactor) newest(ctx context.Context, t *tenantState) (*manifest.Manifest, error) {
	now := c.now()
	c.mu.Lock()
	asking := !now.Before(t.refreshAt)
	c.mu.Unlock()
	if m := c.manifests.Known(t.id); m != nil && !asking {
		return m, nil
	}
	m, err := c.manifests.Refresh(ctx, t.id)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.found == nil || t.found.Version != m.Version {
		t.changedAt = lastAdded(m)
	}
	t.refreshAt = now.Add(vary(min(max(c.cfg.Interval, now.Sub(t.changedAt)/4, time.Second), longestQuiet)))
	return m, nil
}

// lastAdded is when the youngest block entered the manifest.
func lastAdded(m *manifest.Manifest) time.Time {
	var last int64
	for i := range m.Blocks {
		last = max(last, m.Blocks[i].AddedAt)
	}
	return time.UnixMilli(last)
}

// note records how a look went.
func (c *Compactor) note(t *tenantState, m *manifest.Manifest, err error) {
	now := c.now()
	c.mu.Lock()
	t.looks++
	t.lastLook = now
	if c.cfg.Interval > 0 {
		t.lookAt = now.Add(vary(c.cfg.Interval))
	}
	if m != nil {
		t.found = m
	}
	failedBefore := !t.failedAt.IsZero()
	switch {
	case err == nil:
		t.failedAt, t.lastError = time.Time{}, ""
	case !failedBefore:
		t.failedAt = now
	}
	if err != nil {
		t.lastError = err.Error()
	}
	c.mu.Unlock()
	if err != nil {
		c.metrics.lookFailures.Inc()
		c.log.Warn("tenant was not looked through for compaction, trying again", "tenant", t.id, "err", err)
	}
}

// expire takes blocks out of the manifest whose samples are all older than the tenant's retention.
func (c *Compactor) expire(ctx context.Context, m *manifest.Manifest) (*manifest.Manifest, error) {
	retention := c.limits.RetentionPeriod(m.Tenant)
	if retention <= 0 {
		return m, nil
	}
	oldest := c.now().Add(-retention).UnixMilli()
	var change manifest.Change
	var blocks []*manifest.Block
	for i := range m.Blocks {
		if b := &m.Blocks[i]; b.MaxTime <= oldest {
			change.Drop = append(change.Drop, b.ULID)
			blocks = append(blocks, b)
		}
	}
	if len(blocks) == 0 {
		return m, nil
	}
	if _, here := c.cluster.Owner(m.Tenant); !here {
		return m, nil
	}
	if _, err := c.manifests.Swap(ctx, m.Tenant, change); err != nil {
		return m, fmt.Errorf("drop %d blocks beyond the retention of %v: %w", len(blocks), retention, err)
	}
	var size int64
	for _, b := range blocks {
		size += b.SizeBytes
		c.log.Info("block expired", "tenant", m.Tenant, "block", b.ULID, "min_time", time.UnixMilli(b.MinTime).UTC(),
			"max_time", time.UnixMilli(b.MaxTime).UTC(), "retention", retention)
	}
	c.metrics.expired.Add(float64(len(blocks)))
	c.metrics.expiredBytes.Add(float64(size))
	if known := c.manifests.Known(m.Tenant); known != nil {
		return known, nil
	}
	return c.manifests.Current(ctx, m.Tenant)
}
