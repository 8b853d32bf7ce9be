package compactor

import (
	"context"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/compactor/plan"
)

// listEvery is how often the bucket is asked which tenants there are. Those that this process hears of by a change of
// their manifest need no listing.
const listEvery = 10 * time.Minute

// tenantState is what is known of a tenant of this process.
type tenantState struct {
	id string

	// turn is held by whoever looks at the tenant. A channel, because waiting has to end with the waiter's context.
	turn chan struct{}

	// The rest is guarded by Compactor.mu.

	lookAt   time.Time // when it is to be looked at next
	lastLook time.Time
	failedAt time.Time // since when it cannot be looked at; zero when the last look went well
	lookErr  string
	sum      summary

	jobs    []plan.Job             // of the last look
	repairs map[ulid.ULID]plan.Job // that looks have asked for, by block
	running map[string]*activity
	served  uint64 // Compactor.turns when it last got a worker
	lastRun time.Time
	jobErr  string // of the last job that failed, until one succeeds

	settled  bool              // somebody has asked for a run, and there still are jobs
	trials   map[string]*trial // of jobs that failed, by their ID
	refused  map[string]verdict
	excluded map[ulid.ULID]verdict
	salvaged map[ulid.ULID]int // how often, of blocks that are damaged
	disputed map[ulid.ULID]int // how often a merge called a block damaged that a check called sound
}

// verdict is why something is left alone, until when.
type verdict struct {
	why   string
	until time.Time
}

func newTenantState(id string) *tenantState {
	return &tenantState{
		id: id, turn: make(chan struct{}, 1), running: map[string]*activity{}, trials: map[string]*trial{},
		repairs: map[ulid.ULID]plan.Job{},
		refused: map[string]verdict{}, excluded: map[ulid.ULID]verdict{}, salvaged: map[ulid.ULID]int{}, disputed: map[ulid.ULID]int{},
	}
}

// list notes the tenants that are in the bucket.
func (c *Compactor) list(ctx context.Context) error {
	tenants, err := c.manifests.Tenants(ctx)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range tenants {
		if c.tenants[id] == nil {
			c.changed[id] = struct{}{}
		}
	}
	return nil
}

// settle takes in tenants that have changed or were listed, and lets go of those that are no longer this process'. What
// runs of them ends by itself, without a swap.
func (c *Compactor) settle(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.changed {
		if _, here := c.cluster.Owner(id); here {
			c.tenant(id).lookAt = now
		}
	}
	clear(c.changed)
	for id, t := range c.tenants {
		if _, here := c.cluster.Owner(id); !here && len(t.running) == 0 {
			delete(c.tenants, id)
		}
	}
}

// tenant returns the state of a tenant of this process. The caller holds c.mu.
func (c *Compactor) tenant(id string) *tenantState {
	t := c.tenants[id]
	if t == nil {
		t = newTenantState(id)
		c.tenants[id] = t
	}
	return t
}

// planLimits are what a plan of the tenant depends on. Ask for them before the manifest, for the sake of ShippedUpTo.
func (c *Compactor) planLimits(t *tenantState) plan.Limits {
	l := plan.Limits{
		ShippedUpTo: c.cluster.ShippedUpTo(), OutOfOrderWindow: c.limits.OutOfOrderWindow(t.id),
		Retention: c.limits.RetentionPeriod(t.id), Replicas: c.cluster.Replicas(),
		MaxIndexBytes: c.cfg.MaxIndexBytes, DeletionDelay: c.cfg.DeletionDelay,
		Refused: map[string]string{}, Excluded: map[ulid.ULID]string{},
	}
	if c.damage != nil {
		l.Foreign = c.damage.Foreign(t.id)
	}
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	l.Settled = t.settled
	for id, v := range t.refused {
		if l.Refused[id] = v.why; !now.Before(v.until) {
			delete(t.refused, id)
			delete(l.Refused, id)
		}
	}
	for id, v := range t.excluded {
		if l.Excluded[id] = v.why; !now.Before(v.until) {
			delete(t.excluded, id)
			delete(l.Excluded, id)
		}
	}
	return l
}

// summary is what is kept of a plan beside its jobs: thousands of idle tenants must not cost more than their manifests.
type summary struct {
	version     uint64
	blocks      int
	bytes       int64
	jobs        int
	uncompacted int
	oldest      int64 // plan.Plan.OldestUncompacted
	skips       []plan.Skip
	skipped     map[plan.Reason]int // blocks
	deletions   int                 // that are not worked in everywhere
	doomed      bool
}

// mostSkips and mostNamed bound what is kept and shown of a tenant's skips.
const (
	mostSkips = 50
	mostNamed = 20
)

func summarize(m *manifest.Manifest, p *plan.Plan) summary {
	s := summary{version: m.Version, blocks: len(m.Blocks), skipped: map[plan.Reason]int{}}
	for i := range m.Blocks {
		s.bytes += m.Blocks[i].SizeBytes
	}
	for _, concerns := range pending(m) {
		if concerns {
			s.deletions++
		}
	}
	s.doomed = m.Doomed != nil && m.Doomed.FinishedAt == 0
	if p == nil {
		return s
	}
	s.jobs, s.uncompacted, s.oldest = len(p.Jobs), p.Uncompacted(), p.OldestUncompacted
	for _, skip := range p.Skips {
		s.skipped[skip.Reason] += len(skip.Blocks)
		if len(s.skips) < mostSkips {
			skip.Blocks = skip.Blocks[:min(len(skip.Blocks), mostNamed)]
			s.skips = append(s.skips, skip)
		}
	}
	return s
}
