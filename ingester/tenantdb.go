package ingester

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/tsdb"

	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/tracing"
)

// tenantState is where a tenant's TSDB stands.
type tenantState uint8

const (
	tenantClosed tenantState = iota
	tenantOpening
	tenantOpen
	tenantReopening // a write failed: neither written nor read until the logs are replayed
	tenantClosing
)

var tenantStateNames = [...]string{"closed", "opening", "open", "reopening", "closing"}

func (s tenantState) String() string { return tenantStateNames[s] }

const (
	// openRetry is how long a failed open stands before a request may try again.
	openRetry = 5 * time.Second
	// reopenBackoffMax bounds the pause between attempts to reopen after a failed write.
	reopenBackoffMax = 30 * time.Second
)

// tenantDB is a tenant's place in the ingester. It outlives the TSDB, which is opened when someone asks, closed when the
// tenant idles, and opened again after a failed write. Each of these is a life with an incarnation of its own.
type tenantDB struct {
	id, dir  string
	set      *tenants
	metadata *metadataStore
	rate     sampleRate
	visitAt  atomic.Int64 // when a closed tenant is opened to delete old blocks, ms; 0: never
	// shippedUpTo is what oldestUnshipped said last. It begins with nothingUnshipped, for there is nothing, or with 0 when
	// the tenant was found on disk; and it is 0 from a failed write until the tenant is open again.
	shippedUpTo atomic.Int64
	blocks      *localBlocks // what is known of its blocks; only opens, of which there is one at a time, set it

	mu      sync.Mutex
	state   tenantState
	life    *life         // set while open
	handles int           // who uses life now; it is not closed before they are released
	drained chan struct{} // closed when handles falls to 0; made by who waits for it
	settled chan struct{} // closed when opening, reopening or closing is over
	openErr error         // why the last open failed
	retryAt time.Time     // no request tries to open before
	stopped bool          // the ingester stops: no new handle, no new open
	// unsynced is set when a sync of the logs failed, until an open wrote their newest segments anew.
	unsynced bool
}

// life is a tenant's TSDB from an open to its close. Whoever uses it holds a handle.
type life struct {
	tenant      *tenantDB
	db          *tsdb.DB
	incarnation uint64
	blocks      *localBlocks
	report      openReport
	quarantine  quarantineListing

	// ending ends when a write failed and the TSDB is to be closed; end ends it. What holds a handle and waits for the bucket
	// must not keep the tenant from its writes.
	ending context.Context //nolint:containedctx // it is the life's own
	end    context.CancelFunc

	// lastAppend is when a push last stored something, in milliseconds since the Unix epoch; at first when it was opened.
	lastAppend atomic.Int64
	lastFlush  atomic.Int64
	// highest is the largest timestamp stored in order. The head's own maximum moves by truncation, too.
	highest atomic.Int64
	// oooPending is set when something was stored out of order since the last out-of-order cut.
	oooPending atomic.Bool
	cutWanted  atomic.Bool
	cutRetryAt atomic.Int64

	// cutMu is held through a cut and while limits change. cutting says that it is a cut.
	cutMu   sync.Mutex
	cutting atomic.Bool
	// shipTurn is held by whoever ships. A channel, because a ship takes as long as the bucket lets it, and waiting has to
	// end with the waiter's context.
	shipTurn chan struct{}

	// appendMu is held from AppenderV2 to Commit: two appenders at a time could make Commit drop what Append took.
	appendMu    sync.Mutex
	broken      error // a write failed: nothing more is written in this life
	push        pusher
	counters    *stockCounters
	limitsEpoch uint64
	ring        bool  // the exemplar ring is allocated
	validFrom   int64 // below this everything is out of order; the head's own value can fall
	lowest      int64 // the smallest timestamp stored in order since the last barrier of a cut
}

// acquire returns the tenant's present life and takes a handle on it; release gives it back. It opens the TSDB when it
// is closed and waits for that, until ctx ends. An error is of kind Unavailable unless the TSDB cannot be opened.
func (t *tenantDB) acquire(ctx context.Context) (*life, error) {
	for {
		t.mu.Lock()
		switch {
		case t.stopped:
			t.mu.Unlock()
			return nil, unavailable(errStopping, 0)
		case t.state == tenantOpen:
			t.handles++
			l := t.life
			t.mu.Unlock()
			return l, nil
		case t.state == tenantReopening:
			t.mu.Unlock()
			return nil, unavailable(errReopening, time.Second)
		case t.state == tenantClosed:
			if wait := t.retryAt.Sub(t.set.now()); t.openErr != nil && wait > 0 {
				err := t.openErr
				t.mu.Unlock()
				return nil, unavailable(fmt.Errorf("tenant cannot be opened: %w", err), wait)
			}
			t.begin(tenantOpening)
			t.set.spawn(t.open)
		}
		settled := t.settled
		t.mu.Unlock()
		_, span := tracing.Start(ctx, "ingester.wait_for_tenant") // its log is replayed
		select {
		case <-settled:
			span.End()
		case <-ctx.Done():
			span.End()
			return nil, errkind.Wrap(errkind.Unavailable, fmt.Errorf("wait for tenant to open: %w", context.Cause(ctx)))
		}
	}
}

// tryAcquire takes a handle only when the TSDB is open.
func (t *tenantDB) tryAcquire() *life {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped || t.state != tenantOpen {
		return nil
	}
	t.handles++
	return t.life
}

// release gives a handle back. Call it once for each acquire.
func (l *life) release() {
	t := l.tenant
	t.mu.Lock()
	defer t.mu.Unlock()
	t.handles--
	if t.handles == 0 && t.drained != nil {
		close(t.drained)
		t.drained = nil
	}
}

// begin enters a passing state. The caller holds mu and sees to it that settle follows.
func (t *tenantDB) begin(s tenantState) {
	t.state = s
	t.settled = make(chan struct{})
}

func (t *tenantDB) settle(s tenantState, l *life, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.state, t.life, t.openErr = s, l, err
	if err != nil {
		t.retryAt = t.set.now().Add(openRetry)
	}
	close(t.settled)
}

// open is the work behind tenantOpening.
func (t *tenantDB) open(ctx context.Context) {
	l, err := t.openLife(ctx)
	if err != nil {
		t.set.log.Error("tenant not opened", "tenant", t.id, "err", err)
		t.settle(tenantClosed, nil, err)
		return
	}
	t.settle(tenantOpen, l, nil)
	t.set.onOpen()
}

// openLife opens the TSDB and prepares the life around it.
func (t *tenantDB) openLife(ctx context.Context) (*life, error) {
	t.mu.Lock()
	unsynced := t.unsynced
	t.mu.Unlock()
	begin := time.Now()
	l, err := t.openTSDB(ctx, unsynced)
	if err != nil {
		t.set.metrics.opens.WithLabelValues("failed").Inc()
		return nil, err
	}
	if unsynced {
		t.mu.Lock()
		t.unsynced = false
		t.mu.Unlock()
	}
	t.set.metrics.opens.WithLabelValues("ok").Inc()
	t.set.metrics.openTenants.Inc()
	t.set.metrics.openSeconds.Observe(time.Since(begin).Seconds())
	if len(l.report.LostWAL) > 0 || len(l.report.Quarantined) > 0 {
		t.set.metrics.damagedTenants.Inc()
	}
	return l, nil
}

func (t *tenantDB) openTSDB(ctx context.Context, unsynced bool) (*life, error) {
	if err := t.noteMade(); err != nil {
		return nil, fmt.Errorf("open tenant %s: %w", t.id, err)
	}
	if err := unmarkIdle(t.dir); err != nil {
		return nil, err
	}
	if t.blocks == nil {
		blocks, err := openLocalBlocks(t.dir, t.set.now, t.set.cfg.BlockRetention)
		if err == nil {
			err = blocks.begin()
		}
		if err != nil {
			return nil, fmt.Errorf("open tenant %s: %w", t.id, err)
		}
		t.blocks = blocks
	}
	gate, limits := &seriesGate{tenant: t.id, limits: t.set.limits}, t.set.limits
	epoch, exemplars := limits.Epoch(t.id), limits.MaxExemplars(t.id)
	opened, err := openTSDB(ctx, openOptions{
		Dir:  t.dir,
		TSDB: t.set.cfg.tsdbOptions(limits.OutOfOrderWindow(t.id), exemplars, t.blocks.deletable, gate),
		Log:  t.set.log.With("tenant", t.id), SyncFailed: unsynced,
	})
	if err != nil {
		return nil, fmt.Errorf("open tenant %s: %w", t.id, err)
	}
	// Cuts are ours: they need a barrier, and a thousand tenants must not cut at the same full hour.
	opened.DB.DisableCompactions()
	counters, err := newStockCounters(opened.Registry)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open tenant %s: %w", t.id, err), opened.DB.Close())
	}
	t.set.wal.opened(t.dir)
	gate.opened(opened.DB.Head())
	l := &life{
		tenant: t, db: opened.DB, incarnation: opened.Incarnation, report: opened.Report, blocks: t.blocks,
		counters: counters, limitsEpoch: epoch, ring: opened.Exemplars && exemplars > 0,
		validFrom: math.MinInt64, lowest: math.MaxInt64, shipTurn: make(chan struct{}, 1),
	}
	l.ending, l.end = context.WithCancel(context.Background())
	l.lastAppend.Store(t.set.now().UnixMilli())
	l.highest.Store(opened.DB.Head().MaxTime())
	l.oooPending.Store(opened.DB.Head().MaxOOOTime() != math.MinInt64)
	for _, b := range opened.DB.Blocks() {
		if m := b.Meta(); !m.Compaction.FromOutOfOrder() {
			l.validFrom = max(l.validFrom, m.MaxTime)
		}
	}
	l.push.life = l
	return l, nil
}

// fail ends the present life because a write or a sync failed: the TSDB is closed once all handles are released, and
// opened again by replay. It returns at once. A life that is over already is left alone. unsynced says that it was a sync.
func (t *tenantDB) fail(l *life, cause error, unsynced bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unsynced = t.unsynced || unsynced
	if t.life != l || t.state != tenantOpen || t.stopped {
		return
	}
	t.set.log.Error("write failed, tenant is reopened", "tenant", t.id, "err", cause)
	t.set.metrics.reopens.Inc()
	t.begin(tenantReopening)
	t.shippedUpTo.Store(0) // the last look may be older than what was acknowledged since, and nobody can look now
	l.end()
	t.set.spawn(func(ctx context.Context) { t.reopen(ctx, l) })
}

// reopen is the work behind tenantReopening. It tries until it succeeds or the ingester stops.
func (t *tenantDB) reopen(ctx context.Context, old *life) {
	t.waitDrained()
	if err := old.close(); err != nil {
		t.set.log.Warn("tenant closed with errors after a failed write", "tenant", t.id, "err", err)
	}
	for pause := time.Second; ; pause = min(2*pause, reopenBackoffMax) {
		l, err := t.openLife(ctx)
		if err == nil {
			t.set.log.Info("tenant reopened", "tenant", t.id)
			t.settle(tenantOpen, l, nil)
			return
		}
		t.set.log.Error("tenant not reopened", "tenant", t.id, "err", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			t.settle(tenantClosed, nil, err)
			return
		}
	}
}

// waitDrained returns when no handle is left. The state must be one that gives out none.
func (t *tenantDB) waitDrained() {
	t.mu.Lock()
	if t.handles == 0 {
		t.mu.Unlock()
		return
	}
	if t.drained == nil {
		t.drained = make(chan struct{})
	}
	drained := t.drained
	t.mu.Unlock()
	<-drained
}

// closeIdle closes the TSDB when idle says so and nobody uses it. Nothing of it needs the next start's replay.
func (t *tenantDB) closeIdle(l *life, idle func() bool) error {
	t.mu.Lock()
	if t.life != l || t.state != tenantOpen || t.handles > 0 || t.stopped || !idle() {
		t.mu.Unlock()
		return nil
	}
	t.begin(tenantClosing)
	t.mu.Unlock()
	t.metadata.forget()
	err := l.closeClean()
	if err == nil {
		err = errors.Join(discardLogs(t.dir), markIdle(t.dir))
	}
	t.shippedUpTo.Store(nothingUnshipped)
	t.settle(tenantClosed, nil, nil)
	return err
}

// stop ends the tenant's part in the process: it waits for what is under way and for all handles, then closes the TSDB.
// The logs keep what is not in a block.
func (t *tenantDB) stop() error {
	t.mu.Lock()
	t.stopped = true
	for t.state != tenantOpen && t.state != tenantClosed {
		settled := t.settled
		t.mu.Unlock()
		<-settled
		t.mu.Lock()
	}
	l := t.life
	t.mu.Unlock()
	if l == nil {
		return nil
	}
	t.waitDrained()
	err := l.closeClean()
	t.mu.Lock()
	t.state, t.life = tenantClosed, nil
	t.mu.Unlock()
	return err
}

// close closes the TSDB. No handle may be left.
func (l *life) close() error {
	l.end()
	defer l.tenant.set.metrics.openTenants.Dec()
	if len(l.report.LostWAL) > 0 || len(l.report.Quarantined) > 0 {
		defer l.tenant.set.metrics.damagedTenants.Dec()
	}
	err := l.db.Close()
	l.tenant.set.wal.closed(l.tenant.dir)
	return err
}

// closeClean closes the TSDB and records that nothing is to be repaired, if so.
func (l *life) closeClean() error {
	err := l.close()
	l.tenant.mu.Lock()
	unsynced := l.tenant.unsynced
	l.tenant.mu.Unlock()
	if err == nil && l.broken == nil && !unsynced {
		err = markClean(l.tenant.dir)
	}
	if err != nil {
		return fmt.Errorf("close tenant %s: %w", l.tenant.id, err)
	}
	return nil
}
