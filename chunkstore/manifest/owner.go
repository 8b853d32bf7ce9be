package manifest

import (
	"container/list"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/tenant"
)

const (
	// maxLoadedWeight bounds the manifests in memory. One unit is one block, about 250 bytes with its sources at level
	// 1, so this is some 250 MB at most; beyond it the tenants used longest ago are forgotten and listed anew when
	// they come back.
	maxLoadedWeight = 1 << 20

	// tenantWeight is what a tenant weighs beside its blocks, so that a flood of invented tenants is bounded as well.
	tenantWeight = 4
)

// Owner reads and advances the manifests of all tenants in one bucket. Any number of owners, in any processes, may work
// on one bucket: a version number can be taken once. Safe for concurrent use.
//
// It has no life of its own: it starts no goroutine, and work is done by those who call.
type Owner struct {
	bkt     bucket.Bucket
	now     func() time.Time
	random  io.Reader // for swap IDs
	log     *slog.Logger
	metrics *metrics

	maxWeight int

	mu      sync.Mutex
	tenants map[string]*catalog
	// compared are tenants whose folder has been compared with the manifest.
	compared map[string]struct{}
	recent   *list.List // of *catalog, the one used last in front
	weight   int
	blocks   int

	// observed says of the tenants of Observe when they were looked at.
	observed map[string]*observation

	onChange []func(tenantID string) // set before the owner is used
}

// OnChange has fn called after each version that this owner writes, whoever of this process asked for it, beside those
// that were given before: fn must not block and must not use the owner. Call it before anything else.
func (o *Owner) OnChange(fn func(tenantID string)) { o.onChange = append(o.onChange, fn) }

func (o *Owner) noteChange(tenantID string) {
	for _, fn := range o.onChange {
		fn(tenantID)
	}
}

// catalog is what an Owner knows of one tenant.
type catalog struct {
	tenant string

	// turn is held by whoever talks to the bucket about this tenant. A channel, because waiting has to end with the
	// waiter's context.
	turn chan struct{}
	// current is nil until it has been loaded. It is written by the holder of turn.
	current atomic.Pointer[Manifest]
	// confirmed is when current was last known to be the newest version, by the owner's clock. It is used by the
	// holder of turn; the zero time means never.
	confirmed time.Time
	// listed is the entry that a listing had for current, the zero value when none is known. It is used by the holder of
	// turn.
	listed entry
	// looks counts the looks for newer versions that began, looked is the last one that succeeded.
	looks, looked atomic.Uint64

	queue queue

	// Guarded by Owner.mu: how many calls use it, its place in Owner.recent, and what it was counted for.
	users   int
	place   *list.Element
	weight  int
	nblocks int
}

// NewOwner returns an owner that has loaded nothing yet. now is the clock for Block.AddedAt and for how long a manifest
// may be trusted to be the newest.
func NewOwner(bkt bucket.Bucket, now func() time.Time, log *slog.Logger, reg prometheus.Registerer) *Owner {
	return &Owner{
		bkt:       bkt,
		now:       now,
		random:    rand.Reader,
		log:       log,
		metrics:   newMetrics(reg),
		maxWeight: maxLoadedWeight,
		tenants:   map[string]*catalog{},
		compared:  map[string]struct{}{},
		observed:  map[string]*observation{},
		recent:    list.New(),
	}
}

// Current returns the newest manifest that this owner knows of. The first call for a tenant asks the bucket, later ones
// do not: use Refresh to learn what other processes have done. A tenant without a manifest has version 0, without
// blocks.
//
// A manifest that cannot be read is an error of kind Corrupt, a bucket that fails one of kind Unavailable; neither is
// remembered, the next call asks again.
func (o *Owner) Current(ctx context.Context, tenantID string) (*Manifest, error) {
	c, err := o.use(tenantID)
	if err != nil {
		return nil, err
	}
	defer o.release(c)
	if m := c.current.Load(); m != nil {
		return m, nil
	}
	if err := c.lock(ctx); err != nil {
		return nil, fmt.Errorf("load manifest of tenant %s: wait for %s: %w", tenantID, o.bkt.Name(), err)
	}
	defer c.unlock()
	if m := c.current.Load(); m != nil {
		return m, nil
	}
	m, err := o.load(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("load manifest of tenant %s: %w", tenantID, err)
	}
	return m, nil
}

// Known returns the manifest of a tenant that is in memory, or nil. It asks nobody and waits for nobody.
func (o *Owner) Known(tenantID string) *Manifest {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c, ok := o.tenants[tenantID]; ok {
		return c.current.Load()
	}
	return nil
}

// Refresh returns the newest manifest in the bucket. It costs one small request when there is nothing new. Concurrent
// calls share their requests. Errors are as for Current; after a Corrupt one, Current fails as well.
func (o *Owner) Refresh(ctx context.Context, tenantID string) (*Manifest, error) {
	c, err := o.use(tenantID)
	if err != nil {
		return nil, err
	}
	defer o.release(c)
	before := c.looks.Load()
	if err := c.lock(ctx); err != nil {
		return nil, fmt.Errorf("refresh manifest of tenant %s: wait for %s: %w", tenantID, o.bkt.Name(), err)
	}
	defer c.unlock()
	if m := c.current.Load(); m != nil && c.looked.Load() > before {
		return m, nil // somebody has looked after this call began
	}
	m, err := o.look(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("refresh manifest of tenant %s: %w", tenantID, err)
	}
	return m, nil
}

// Tenants returns the tenants that have anything in the bucket, sorted. It costs one listing of the bucket's top level.
func (o *Owner) Tenants(ctx context.Context) ([]string, error) {
	var tenants []string
	err := o.bkt.List(ctx, "", false, func(e bucket.Object) error {
		id, isFolder := strings.CutSuffix(e.Key, "/")
		if isFolder && tenant.ValidateID(id) == nil {
			tenants = append(tenants, id)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list tenants: %w", unavailable(err))
	}
	return tenants, nil
}

// use returns the catalog of a tenant, which stays in memory until release.
func (o *Owner) use(tenantID string) (*catalog, error) {
	if err := tenant.ValidateID(tenantID); err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	c, ok := o.tenants[tenantID]
	if !ok {
		c = &catalog{tenant: tenantID, turn: make(chan struct{}, 1)}
		c.place = o.recent.PushFront(c)
		o.tenants[tenantID] = c
	}
	c.users++
	o.recent.MoveToFront(c.place)
	return c, nil
}

// release ends a use, weighs what the catalog holds now and forgets others when that is too much.
func (o *Owner) release(c *catalog) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c.users--
	m := c.current.Load()
	if m == nil && c.users == 0 {
		o.forget(c)
		return
	}
	if m != nil {
		o.count(c, tenantWeight+len(m.Blocks)+len(m.Removed)+len(m.Deletions)+len(m.Lost), len(m.Blocks))
	}
	for e := o.recent.Back(); e != nil && o.weight > o.maxWeight; {
		old := e.Value.(*catalog) //nolint:forcetypeassert // the list holds nothing else
		e = e.Prev()
		if old.users == 0 {
			o.forget(old)
		}
	}
}

// forget drops a catalog that nobody uses. The caller holds o.mu.
func (o *Owner) forget(c *catalog) {
	o.count(c, 0, 0)
	o.recent.Remove(c.place)
	delete(o.tenants, c.tenant)
	o.metrics.loaded.Set(float64(len(o.tenants)))
}

// count replaces what a catalog was counted for. The caller holds o.mu.
func (o *Owner) count(c *catalog, weight, blocks int) {
	o.weight += weight - c.weight
	o.blocks += blocks - c.nblocks
	c.weight, c.nblocks = weight, blocks
	o.metrics.loaded.Set(float64(len(o.tenants)))
	o.metrics.loadedBlocks.Set(float64(o.blocks))
}

// lock waits for the turn until ctx ends.
func (c *catalog) lock(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case c.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *catalog) unlock() { <-c.turn }
