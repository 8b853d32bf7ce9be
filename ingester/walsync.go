package ingester

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/sys/unix"

	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/tracing"
)

// SyncMode says when acknowledged samples survive a power cut. A crash of the process loses nothing in either mode.
type SyncMode string

const (
	// SyncInterval syncs once a second: a power cut loses at most the last second of this replica, and whatever the sync
	// that it interrupts had not yet written.
	SyncInterval SyncMode = "interval"
	// SyncCommit syncs before the answer: a power cut loses nothing acknowledged.
	SyncCommit SyncMode = "commit"

	// syncPeriod is the second that SyncInterval promises.
	syncPeriod = time.Second
)

// walSync makes the tenants' write logs durable, for stock offers no hook to do so. A sync that failed is never
// repeated: the kernel drops the pages it could not write and reports that once, so the next call would succeed and
// prove nothing. The tenants concerned are named to onError instead. Safe for concurrent use.
type walSync struct {
	mode    SyncMode
	root    string
	onError func(tenantDirs []string, err error)
	log     *slog.Logger
	calls   syncCalls
	ticks   <-chan time.Time // nil: a ticker of syncPeriod; tests put theirs here
	metrics walSyncMetrics
	volume  *os.File // mode interval: root, from open until run ends

	mu    sync.Mutex
	dirty map[string]struct{}   // mode interval: tenants with a Commit since the last sync began
	logs  map[string]*tenantLog // mode commit
}

// syncCalls are the system calls; a test records what they made durable.
type syncCalls struct {
	file   func(*os.File) error
	dir    func(path string) error
	volume func(*os.File) error
}

type walSyncMetrics struct {
	seconds  prometheus.Histogram
	failures prometheus.Counter
}

// newWALSync starts nothing; run does. root is the folder that holds the tenants' folders. onError is told which
// tenants' logs can no longer be trusted (folders as given to committed); it must not block and must have them
// reopened with openOptions.SyncFailed.
func newWALSync(mode SyncMode, root string, onError func(tenantDirs []string, err error), log *slog.Logger,
	reg prometheus.Registerer,
) *walSync {
	return &walSync{
		mode: mode, root: root, onError: onError, log: log,
		calls: syncCalls{file: fdatasync, dir: syncDir, volume: syncfs},
		metrics: walSyncMetrics{
			seconds: promauto.With(reg).NewHistogram(prometheus.HistogramOpts{
				Name: "duramen_ingester_wal_sync_seconds",
				Help: "Time to make the write logs durable: once a second with sync interval, before each answer with sync " +
					"commit. A rise means that the disk is slow; with sync commit writes wait for it.",
				Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9),
			}),
			failures: promauto.With(reg).NewCounter(prometheus.CounterOpts{
				Name: "duramen_ingester_wal_sync_failures_total",
				Help: "Syncs of write logs that failed. Any rise means that the disk loses data: replace it.",
			}),
		},
		dirty: map[string]struct{}{},
		logs:  map[string]*tenantLog{},
	}
}

// committed is called after each successful Commit of the tenant in tenantDir, before its samples are acknowledged,
// and also before a batch is acknowledged because all of it was held already: the first copy may not be on disk yet.
//
// In mode interval it notes that there is something to sync. In mode commit it returns when the data of that Commit
// is on disk, sharing one sync with whoever waits too. An error is of kind Unavailable and means that the data may
// not be on disk: do not acknowledge. Unless ctx ended, onError has been told.
func (w *walSync) committed(ctx context.Context, tenantDir string) error {
	w.mu.Lock()
	if w.mode == SyncInterval {
		w.dirty[tenantDir] = struct{}{}
		w.mu.Unlock()
		return nil
	}
	l, ok := w.logs[tenantDir]
	if !ok {
		l = newTenantLog(tenantDir)
		w.logs[tenantDir] = l
	}
	w.mu.Unlock()

	_, span := tracing.Start(ctx, "ingester.wal_sync")
	defer span.End()
	round, leads := l.join()
	if leads {
		begin := time.Now()
		if err := l.lead(round, w.calls); err != nil {
			w.failed([]string{tenantDir}, err)
		}
		w.metrics.seconds.Observe(time.Since(begin).Seconds())
	}
	select {
	case <-round.done:
		return errkind.Wrap(errkind.Unavailable, round.err)
	case <-ctx.Done():
		return errkind.Wrap(errkind.Unavailable, fmt.Errorf("sync write log of %s: %w", tenantDir, context.Cause(ctx)))
	}
}

// opened forgets what is known of the tenant's log files, a failure included. Call it after each openTSDB and before
// the first Commit.
func (w *walSync) opened(tenantDir string) { w.closed(tenantDir) }

// closed forgets the tenant. No committed of this tenant may be under way.
func (w *walSync) closed(tenantDir string) {
	w.mu.Lock()
	l := w.logs[tenantDir]
	delete(w.logs, tenantDir)
	w.mu.Unlock()
	if l != nil {
		l.close()
	}
}

// open opens the volume for run, before the first Commit: the kernel reports each failed write-back of the volume once to
// every open file, and to none that is opened later. In mode commit it does nothing, and so it does when called again.
func (w *walSync) open() error {
	if w.mode == SyncCommit || w.volume != nil {
		return nil
	}
	volume, err := os.Open(w.root)
	if err != nil {
		return fmt.Errorf("open volume of the write logs: %w", err)
	}
	w.volume = volume
	return nil
}

// run syncs once a second until ctx ends, and once more then. In mode commit it only waits.
func (w *walSync) run(ctx context.Context) error {
	if err := w.open(); err != nil {
		return err
	}
	if w.mode == SyncCommit {
		<-ctx.Done()
		return nil
	}
	volume := w.volume
	defer func() { _ = volume.Close() }()
	ticks := w.ticks
	if ticks == nil {
		ticker := time.NewTicker(syncPeriod)
		defer ticker.Stop()
		ticks = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			w.syncVolume(volume)
			return nil
		case <-ticks:
			w.syncVolume(volume)
		}
	}
}

// syncVolume makes everything committed before it durable, or names the tenants that may have lost something.
func (w *walSync) syncVolume(volume *os.File) {
	w.mu.Lock()
	dirty := w.dirty
	w.dirty = make(map[string]struct{}, len(dirty))
	w.mu.Unlock()
	if len(dirty) == 0 {
		return
	}
	begin := time.Now()
	if err := w.calls.volume(volume); err != nil {
		w.failed(slices.Sorted(maps.Keys(dirty)), fmt.Errorf("sync volume of %s: %w", w.root, err))
	}
	w.metrics.seconds.Observe(time.Since(begin).Seconds())
}

func (w *walSync) failed(tenantDirs []string, err error) {
	w.metrics.failures.Inc()
	w.log.Error("write logs not synced", "tenants", len(tenantDirs), "err", err)
	if w.onError != nil {
		w.onError(tenantDirs, err)
	}
}

// fdatasync makes a file's bytes and size durable.
func fdatasync(f *os.File) error { return ignoreEINTR(f, unix.Fdatasync) }

// syncfs makes the whole volume of f durable, names included. It waits for data of others on the volume too.
func syncfs(f *os.File) error { return ignoreEINTR(f, unix.Syncfs) }

func ignoreEINTR(f *os.File, call func(fd int) error) error {
	for {
		err := call(int(f.Fd()))
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
