package compactor

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/compactor/merge"
	"github.com/duramendb/duramen/compactor/plan"
	"github.com/duramendb/duramen/internal/service"
)

// Limits are the settings of one tenant that the compactor goes by. They are asked for at each use and may change.
type Limits interface {
	// RetentionPeriod is how long samples are kept; 0 means for ever.
	RetentionPeriod(tenantID string) time.Duration
	// OutOfOrderWindow is how much older than a tenant's newest sample another may be.
	OutOfOrderWindow(tenantID string) time.Duration
}

// Cluster is what the compactor has to know of other processes.
type Cluster interface {
	// Owner names the process whose tenant this is and tells whether it is this one. The name is empty when none is known;
	// then the tenant is everybody's.
	Owner(tenantID string) (name string, here bool)
	// ShippedUpTo is a time in milliseconds since the Unix epoch: no ingester holds a sample before it that the bucket
	// has not. It is math.MinInt64 when that is not known.
	ShippedUpTo() int64
	// Replicas is how many ingesters hold each series.
	Replicas() int
}

// Compactor looks after the blocks of all tenants of this process. Several of them, in any processes, may work on one
// bucket and even on one tenant: the manifest changes by swaps, of two outputs one gets in, and the other is swept up.
type Compactor struct {
	cfg       Config
	bkt       bucket.Bucket
	manifests *manifest.Owner
	limits    Limits
	cluster   Cluster
	now       func() time.Time
	log       *slog.Logger
	metrics   *metrics

	// plan, merger and salvager do the work.
	plan     func(*manifest.Manifest, time.Time, plan.Limits) *plan.Plan
	merger   Merger
	salvager Salvager

	// poke wakes the loop that looks at tenants. listAt, when the tenants are to be listed next, is used by that loop.
	poke   chan struct{}
	listAt time.Time

	mu      sync.Mutex
	tenants map[string]*tenantState
	damage  Damage                  // nil when nobody tells
	looked  map[ulid.ULID]time.Time // when blocks that miss objects were looked at
	changed map[string]struct{}     // tenants whose manifest this process has changed since they were looked at
	turns   uint64                  // jobs that were begun
	news    chan struct{}           // closed and replaced when there may be work, or some is done
}

// New returns a compactor that does nothing yet. manifests has to be the one by whom this process changes manifests, so
// that its changes are seen at once.
func New(
	cfg Config, bkt bucket.Bucket, manifests *manifest.Owner, limits Limits, cluster Cluster, now func() time.Time,
	log *slog.Logger, reg prometheus.Registerer,
) (*Compactor, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	merging := cfg.merging()
	if err := merging.Validate(); err != nil {
		return nil, err
	}
	c := &Compactor{
		cfg: cfg, bkt: bkt, manifests: manifests, limits: limits, cluster: cluster, now: now, log: log,
		plan: plan.Make, merger: mergers{merging, bkt},
		poke: make(chan struct{}, 1), tenants: map[string]*tenantState{}, changed: map[string]struct{}{},
		news: make(chan struct{}),
	}
	c.salvager = salvagers{cfg.salvaging(), cfg.Writer, bkt, manifests, now, log}
	c.metrics = newMetrics(reg, c)
	manifests.OnChange(c.noteChange)
	return c, nil
}

// Service returns the service that looks and works. It is ready at once, with or without the bucket.
func (c *Compactor) Service() *service.Service {
	return service.NewService("compactor", service.Phases{Starting: c.starting, Running: c.running})
}

// starting removes what jobs of an earlier life have left. A disk that cannot be written to fails jobs, and no start.
func (c *Compactor) starting(context.Context) error {
	err := errors.Join(merge.Sweep(c.cfg.merging()), os.RemoveAll(c.cfg.salvaging().Scratch))
	if err != nil {
		c.log.Warn("scratch directory of merges was not emptied", "dir", c.cfg.Dir, "err", err)
	}
	return nil
}

func (c *Compactor) running(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.lookLoop(ctx) })
	for _, l := range lanes(c.cfg.Concurrency) {
		g.Go(func() error { return c.workLoop(ctx, l) })
	}
	return g.Wait()
}

// noteChange is told of each version that this process writes. It does not block.
func (c *Compactor) noteChange(tenantID string) {
	c.mu.Lock()
	c.changed[tenantID] = struct{}{}
	c.mu.Unlock()
	c.wake()
}

func (c *Compactor) wake() {
	select {
	case c.poke <- struct{}{}:
	default:
	}
}
