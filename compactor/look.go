package compactor

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/compactor/plan"
	"github.com/duramendb/duramen/internal/errkind"
)

const (
	// firstLook is when after the start the tenants are looked at first at the latest, so that it disturbs no start.
	firstLook = 10 * time.Second

	// roundPause is the least time between two rounds of looks: changes come in bursts, of several ingesters.
	roundPause = time.Second

	// looksAtOnce is how many tenants are looked at at a time; most looks ask nobody and take microseconds.
	looksAtOnce = 4
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
		if err := sleep(ctx, roundPause); err != nil {
			return err
		}
		pause = c.nextRound()
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
	if !now.Before(c.listAt) {
		pause := listEvery
		if err := c.list(ctx); err != nil {
			pause = min(c.cfg.Interval, time.Minute)
			if ctx.Err() == nil {
				c.log.Warn("tenants in the bucket were not listed, trying again", "err", err)
			}
		}
		c.listAt = now.Add(vary(pause))
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
	next := c.listAt
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.tenants {
		if t.lookAt.Before(next) {
			next = t.lookAt
		}
	}
	return max(0, next.Sub(c.now()))
}

// look finds out what is to be done for a tenant, and does what needs no job. Looks at one tenant exclude one another.
func (c *Compactor) look(ctx context.Context, t *tenantState) {
	select {
	case t.turn <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-t.turn }()
	defer func() {
		if p := recover(); p != nil { // of one tenant, by what is in its manifest
			c.note(t, nil, nil, c.panicked("look panicked", t.id, p))
		}
	}()
	limits := c.planLimits(t)
	m, err := c.observe(ctx, t.id)
	if m != nil {
		// What fails here keeps nothing else from being done.
		var expiring, forgetting error
		m, expiring = c.expire(ctx, m)
		m, forgetting = c.forget(ctx, m)
		err = errors.Join(err, expiring, forgetting)
	}
	if ctx.Err() != nil {
		return
	}
	p := c.makePlan(m, limits)
	if _, here := c.cluster.Owner(t.id); !here {
		p = nil
	} else if m != nil && !m.Deleting() {
		c.heal(ctx, t, m)
	}
	c.note(t, m, p, err)
}

// observe returns the manifest of a tenant. The bucket is asked the more seldom the longer nothing has changed.
func (c *Compactor) observe(ctx context.Context, tenantID string) (*manifest.Manifest, error) {
	m, err := c.manifests.Observe(ctx, tenantID)
	if err == nil && m == nil {
		m, err = c.manifests.Current(ctx, tenantID)
	}
	if err != nil && errkind.Of(err) != errkind.Corrupt {
		m = c.manifests.Known(tenantID) // what is known can be worked on; a swap finds out what is new
	}
	return m, err
}

// makePlan returns nil when nothing is known of the tenant.
func (c *Compactor) makePlan(m *manifest.Manifest, limits plan.Limits) *plan.Plan {
	if m == nil {
		return nil
	}
	return c.plan(m, c.now(), limits)
}

// slim drops what is planned anew before a job runs: of thousands of deletions in hundreds of jobs that adds up.
func slim(jobs []plan.Job) []plan.Job {
	for i := range jobs {
		jobs[i].Inputs, jobs[i].Deletions = nil, nil
	}
	return jobs
}

// note records what a look has found, and how it went.
func (c *Compactor) note(t *tenantState, m *manifest.Manifest, p *plan.Plan, err error) {
	now := c.now()
	var s summary
	if m != nil {
		s = summarize(m, p)
	}
	c.mu.Lock()
	c.metrics.looks.Inc()
	t.lastLook = now
	if c.cfg.Interval > 0 {
		t.lookAt = now.Add(vary(c.cfg.Interval))
	}
	if m != nil {
		t.sum, t.jobs = s, nil
		if s.doomed {
			t.stopJobs()
		}
	}
	if p != nil {
		t.jobs = slim(p.Jobs)
		t.settled = t.settled && len(t.jobs) > 0
		t.forgetTrials(now)
	}
	level := slog.LevelDebug
	if err == nil {
		t.failedAt, t.lookErr = time.Time{}, ""
	} else {
		if t.lookErr == "" { // said once: a bucket that is away would fill the log with all tenants
			level = slog.LevelWarn
		}
		t.lookErr = err.Error()
		if t.failedAt.IsZero() {
			t.failedAt = now
		}
	}
	c.announce()
	c.mu.Unlock()
	if err != nil {
		c.metrics.lookFailures.Inc()
		c.log.Log(context.Background(), level, "tenant was not looked through for compaction in full, trying again",
			"tenant", t.id, "err", err)
	}
}
