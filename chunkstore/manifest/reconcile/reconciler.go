package reconcile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/tenantmark"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/service"
)

const (
	// tenantsAtOnce is how many tenants are compared at a time; a comparison is mostly waiting.
	tenantsAtOnce = 4

	// firstPass is when after the start the first pass begins at the latest, so that it disturbs no start.
	firstPass = 10 * time.Second

	// publishDelay gathers changes of a manifest before the peers' index is written.
	publishDelay = 15 * time.Second

	// publishRetry is the pause after an index could not be written.
	publishRetry = time.Minute

	// clockKey is an object at the top of the bucket, where no tenant can be, that is written to learn the store's time.
	clockKey = "~duramen/clock"

	// mostNamed is how many blocks one pass names in the log for each tenant.
	mostNamed = 10
)

// Reconciler compares all tenants' folders with their manifests, over and over. Several of them, in any processes, may
// work on one bucket: a manifest changes by swaps, and what is deleted is deleted by all of them.
type Reconciler struct {
	cfg     Config
	bkt     bucket.Bucket
	owner   *manifest.Owner
	now     func() time.Time
	log     *slog.Logger
	metrics *metrics
	marks   *tenantmark.Watch

	mu      sync.Mutex
	tenants map[string]*tenantState
	changed map[string]struct{} // tenants whose manifest this process has changed since their index was written
	poke    chan struct{}
}

// tenantState is what is known of a tenant from one pass to the next.
type tenantState struct {
	mu sync.Mutex // held by a pass and by a write of the index
	// seen and index are used by the holder of mu.
	seen  *sighting
	index *peerIndex
	rest  rest
	// unmarked is set when the tenant was to be deleted and had no mark, receipted when all but its receipt is gone.
	unmarked, receipted bool

	// Guarded by Reconciler.mu: how the last pass ended.
	left    map[string]int
	damaged map[ulid.ULID]string
	foreign map[ulid.ULID]foreignDeletion
	failed  bool
	doomed  bool
	isBlock bool
}

// New returns a reconciler that does nothing yet. owner has to be the one by whom this process changes manifests, so
// that its changes are published.
func New(
	cfg Config, bkt bucket.Bucket, owner *manifest.Owner, now func() time.Time, log *slog.Logger, reg prometheus.Registerer,
) (*Reconciler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	r := &Reconciler{
		cfg: cfg, bkt: bkt, owner: owner, now: now, log: log, metrics: newMetrics(reg),
		marks:   tenantmark.NewWatch(bkt),
		tenants: map[string]*tenantState{}, changed: map[string]struct{}{}, poke: make(chan struct{}, 1),
	}
	if cfg.PeerFiles && cfg.ReconcileInterval > 0 {
		owner.OnChange(r.noteChange)
	}
	return r, nil
}

// Service returns the service that compares and publishes. It is ready at once.
func (r *Reconciler) Service() *service.Service {
	return service.NewService("reconciler", service.Phases{Running: r.running})
}

func (r *Reconciler) running(ctx context.Context) error {
	if r.cfg.ReconcileInterval == 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.passLoop(ctx) })
	g.Go(func() error { return r.publishLoop(ctx) })
	return g.Wait()
}

// passLoop makes passes. The pauses between them vary, so that processes that start together drift apart.
func (r *Reconciler) passLoop(ctx context.Context) error {
	pause := min(r.cfg.ReconcileInterval, firstPass)
	for first := true; ; first = false {
		if err := wait(ctx, vary(pause)); err != nil {
			return err
		}
		spread := r.cfg.ReconcileInterval / 2
		if first {
			spread = 0
		}
		if err := r.Pass(ctx, spread); err != nil && ctx.Err() == nil {
			r.log.Warn("tenants were not compared with their manifests", "err", err)
		}
		pause = r.cfg.ReconcileInterval - spread
	}
}

// vary returns between 80 and 120 % of d.
func vary(d time.Duration) time.Duration {
	return d*4/5 + time.Duration(rand.Int64N(int64(d)*2/5+1))
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Pass compares the tenants of this process that are due, their begins spread over the given time, a few at a time. An error
// of one tenant is logged and counted and stops no other; one that Pass returns concerns all.
func (r *Reconciler) Pass(ctx context.Context, spread time.Duration) error {
	now, err := r.storeTime(ctx)
	if err != nil {
		return err
	}
	tenants, err := r.owner.Tenants(ctx)
	if err != nil {
		return err
	}
	marks, err := r.marks.Look(ctx)
	if err != nil {
		return err
	}
	if r.cfg.Owns != nil {
		tenants = slices.DeleteFunc(tenants, func(id string) bool { return !r.cfg.Owns(id) })
	}
	rand.Shuffle(len(tenants), func(i, j int) { tenants[i], tenants[j] = tenants[j], tenants[i] })
	r.forgetAllBut(tenants)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(tenantsAtOnce)
	for _, id := range tenants {
		if err := wait(gctx, spread/time.Duration(len(tenants))); err != nil {
			break
		}
		g.Go(func() error { r.passTenant(gctx, id, now, marks); return nil })
	}
	err = g.Wait()
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		r.metrics.lastPass.Set(float64(r.now().Unix()))
	}
	return err
}

// storeTime returns a time that is not after the present, neither by the store's clock nor by ours. What is deleted for
// its age is so by both.
func (r *Reconciler) storeTime(ctx context.Context) (time.Time, error) {
	before := r.now()
	if err := r.bkt.Put(ctx, clockKey, bytes.NewReader(nil), 0); err != nil {
		return time.Time{}, fmt.Errorf("ask for the store's time: %w", unavailable(err))
	}
	o, err := r.bkt.Stat(ctx, clockKey)
	if err != nil {
		return time.Time{}, fmt.Errorf("ask for the store's time: %w", unavailable(err))
	}
	if o.LastModified.Before(before) {
		return o.LastModified, nil
	}
	return before, nil
}

// passTenant compares one tenant and notes how it went.
func (r *Reconciler) passTenant(ctx context.Context, tenantID string, now time.Time, marks map[string]tenantmark.Mark) {
	state := r.state(tenantID)
	if r.knownBlock(state) {
		return
	}
	state.mu.Lock()
	defer state.mu.Unlock()
	doomed, err := r.passDoomed(ctx, tenantID, state, now, marks)
	if ctx.Err() != nil {
		return
	}
	if doomed || err != nil {
		r.note(tenantID, state, nil, nil, err)
		return
	}
	if !r.listDue(ctx, tenantID, state) {
		r.refreshIndex(ctx, tenantID, state)
		return
	}
	began, listed := time.Now(), r.now()
	p := &pass{Reconciler: r, tenant: tenantID, now: now, seen: state.seen}
	s, wanted, err := p.run(ctx)
	if ctx.Err() != nil {
		return
	}
	r.metrics.passSeconds.Observe(time.Since(began).Seconds())
	if s != nil && wanted != nil && wanted.left[leftSettling] == 0 { // what settles is not left out on purpose
		r.owner.Compared(tenantID)
	}
	state.rest = restAfter(listed, s, wanted, err)
	if err == nil && s.listing.tenantMark && !s.manifest.Deleting() {
		_, err = r.owner.Doom(ctx, tenantID, r.cfg.TenantDeletionGrace)
		state.rest.again = true
	}
	if err == nil && !s.listing.isBlock {
		err = r.publishSeen(ctx, tenantID, state, s)
	}
	r.note(tenantID, state, s, wanted, err)
}

func (r *Reconciler) state(tenantID string) *tenantState {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tenants[tenantID]
	if t == nil {
		t = &tenantState{seen: newSighting(), index: &peerIndex{tenant: tenantID}}
		r.tenants[tenantID] = t
	}
	return t
}

func (r *Reconciler) knownBlock(t *tenantState) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return t.isBlock
}

// forgetAllBut forgets tenants that are no longer in the bucket, or no longer this process' own.
func (r *Reconciler) forgetAllBut(tenants []string) {
	there := make(map[string]struct{}, len(tenants))
	for _, id := range tenants {
		there[id] = struct{}{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.tenants {
		if _, ok := there[id]; !ok {
			delete(r.tenants, id)
		}
	}
	r.sum()
}

// note records how a tenant's pass ended, in the metrics and in the log.
func (r *Reconciler) note(tenantID string, t *tenantState, s *situation, wanted *plan, err error) {
	r.mu.Lock()
	if s != nil && s.listing.isBlock && !t.isBlock {
		t.isBlock = true
		r.log.Warn("block at the top of the bucket belongs to no tenant and is left alone; bucket.root_tenant gives it to one",
			"block", tenantID)
	}
	t.failed = err != nil
	t.doomed = s == nil && err == nil
	if wanted != nil {
		t.left, t.damaged = wanted.left, wanted.damaged
		r.noteForeign(tenantID, t, wanted.foreign)
	}
	r.sum()
	r.mu.Unlock()
	if wanted != nil {
		r.name(tenantID, wanted)
	}
	if err != nil {
		r.metrics.passes.WithLabelValues(passFailed).Inc()
		level := slog.LevelWarn
		if errkind.Of(err) == errkind.Corrupt {
			level = slog.LevelError
		}
		r.log.Log(context.Background(), level, "tenant was not compared with its manifest in full", "tenant", tenantID, "err", err)
		return
	}
	r.metrics.passes.WithLabelValues(passDone).Inc()
}

// sum sets the gauges. The caller holds r.mu.
func (r *Reconciler) sum() {
	left, damaged, foreign, failing, doomed := map[string]int{}, 0, 0, 0, 0
	for _, t := range r.tenants {
		for reason, n := range t.left {
			left[reason] += n
		}
		damaged += len(t.damaged)
		foreign += len(t.foreign)
		if t.failed {
			failing++
		}
		if t.doomed {
			doomed++
		}
	}
	for _, reason := range leftReasons {
		r.metrics.left.WithLabelValues(reason).Set(float64(left[reason]))
	}
	r.metrics.damaged.Set(float64(damaged))
	r.metrics.foreign.Set(float64(foreign))
	r.metrics.failing.Set(float64(failing))
	r.metrics.doomed.Set(float64(doomed))
}

// Damaged returns the listed blocks of a tenant of which objects are missing, and why each is one, as the last pass has
// seen them.
func (r *Reconciler) Damaged(tenantID string) map[ulid.ULID]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.tenants[tenantID]; t != nil {
		return maps.Clone(t.damaged)
	}
	return nil
}

// name says which blocks somebody should look at.
func (r *Reconciler) name(tenantID string, wanted *plan) {
	n := 0
	for id, reason := range wanted.damaged {
		if n++; n <= mostNamed {
			r.log.Error("objects of a listed block are missing", "tenant", tenantID, "block", id, "reason", reason)
		}
	}
	for id, reason := range wanted.named {
		if n++; n <= mostNamed {
			r.log.Warn("block in the bucket is not taken into the manifest", "tenant", tenantID, "block", id, "reason", reason)
		}
	}
}

// noteChange is told of each version that this process writes. It does not block.
func (r *Reconciler) noteChange(tenantID string) {
	r.mu.Lock()
	r.changed[tenantID] = struct{}{}
	r.mu.Unlock()
	select {
	case r.poke <- struct{}{}:
	default:
	}
}

// publishLoop writes the indexes of tenants whose manifests change.
func (r *Reconciler) publishLoop(ctx context.Context) error {
	pause := publishDelay
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.poke:
		}
		if err := wait(ctx, pause); err != nil {
			return err
		}
		pause = publishDelay
		if !r.publishChanged(ctx) {
			pause = publishRetry
		}
	}
}

// publishChanged reports whether all indexes are written. The others are noted again.
func (r *Reconciler) publishChanged(ctx context.Context) bool {
	r.mu.Lock()
	changed := r.changed
	r.changed = map[string]struct{}{}
	r.mu.Unlock()
	all := true
	for id := range changed {
		if err := r.publish(ctx, id); err != nil && ctx.Err() == nil {
			all = false
			r.noteChange(id)
			r.log.Warn("index of blocks for peers was not written", "tenant", id, "err", err)
		}
	}
	return all
}

// publish writes a tenant's index unless it is current.
func (r *Reconciler) publish(ctx context.Context, tenantID string) error {
	state := r.state(tenantID)
	state.mu.Lock()
	defer state.mu.Unlock()
	m, err := r.owner.Refresh(ctx, tenantID)
	if err != nil {
		return err
	}
	return r.writeIndex(ctx, state.index, m)
}

// publishSeen is publish after a pass.
func (r *Reconciler) publishSeen(ctx context.Context, tenantID string, t *tenantState, s *situation) error {
	if !r.cfg.PeerFiles {
		return nil
	}
	t.index.learn(s.listing)
	if err := r.writeIndex(ctx, t.index, s.manifest); err != nil {
		return fmt.Errorf("publish blocks of tenant %s: %w", tenantID, err)
	}
	return nil
}

func (r *Reconciler) writeIndex(ctx context.Context, x *peerIndex, m *manifest.Manifest) error {
	now := r.now()
	if !x.due(m, now, r.cfg.IdlePeerFilesInterval) {
		return nil
	}
	if err := x.write(ctx, r.bkt, m, now); err != nil {
		if !errors.Is(err, context.Canceled) {
			r.metrics.peerFailures.Inc()
		}
		return err
	}
	r.metrics.peerFiles.Inc()
	return nil
}
