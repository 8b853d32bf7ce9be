package ingester

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/service"
)

// Catalog says which blocks a tenant has in the bucket, takes new ones in, and remembers what was lost.
type Catalog interface {
	lossRecorder
	Current(ctx context.Context, tenant string) (*manifest.Manifest, error)
	Add(ctx context.Context, tenant string, b manifest.Block) (manifest.Added, error)
}

// phase is where the ingester stands; it mirrors its service's state without the service's lock, for Push asks it.
type phase int32

const (
	phaseStarting phase = iota
	phaseServing
	phaseStopping
)

// Ingester holds the recent data of all tenants. Safe for concurrent use.
type Ingester struct {
	cfg     Config
	catalog Catalog
	limits  Limits
	now     func() time.Time
	log     *slog.Logger
	metrics *metrics

	tenants *tenants
	wal     *walSync
	free    *freeSpace
	shipper *shipper
	held    *holdings
	dooms   *dooms
	phase   atomic.Int32

	readOnly atomic.Bool
	pushing  atomic.Int64 // pushes under way

	// These wake the housekeepers early; one waiting poke is enough.
	cutPoke, shipPoke, markPoke chan struct{}
}

// New checks cfg and allocates. It starts nothing: Service does.
func New(cfg Config, bkt bucket.Bucket, catalog Catalog, limits Limits, now func() time.Time, log *slog.Logger,
	reg prometheus.Registerer,
) (*Ingester, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Dir == "" {
		return nil, errors.New("ingester: no folder for the tenants")
	}
	i := &Ingester{
		cfg: cfg, catalog: catalog, limits: limits, now: now, log: log, metrics: newMetrics(reg),
		free:    newFreeSpace(cfg.Dir, cfg.MinFreeBytes, now),
		shipper: newShipper(bkt, catalog, cfg.Writer, now, log, reg),
		dooms:   newDooms(bkt),
		cutPoke: make(chan struct{}, 1), shipPoke: make(chan struct{}, 1), markPoke: make(chan struct{}, 1),
	}
	i.tenants = newTenants(cfg, limits, now, log, i.metrics)
	i.wal = newWALSync(cfg.WALSync, cfg.Dir, i.syncFailed, log, reg)
	i.tenants.wal = i.wal
	i.tenants.finishedAt = i.dooms.finishedAt
	i.shipper.tracing = cfg.Tracing
	i.held = newHoldings(i.tenants, i.free, now)
	if reg != nil {
		if err := reg.Register(i.held); err != nil {
			return nil, fmt.Errorf("ingester: %w", err)
		}
	}
	i.tenants.onOpen = func() { i.poke(i.shipPoke) } // to learn which of its blocks are listed
	return i, nil
}

// Service returns the ingester's life: it replays what is not in blocks, serves and keeps house, and closes all TSDBs.
func (i *Ingester) Service() *service.Service {
	return service.NewService("ingester", service.Phases{
		Starting: i.starting, Running: i.running, Stopping: i.stopping,
	})
}

func (i *Ingester) starting(ctx context.Context) error {
	if err := i.tenants.start(ctx); err != nil {
		return err
	}
	if err := i.wal.open(); err != nil {
		return err
	}
	i.recallDooms()
	i.phase.Store(int32(phaseServing))
	return nil
}

func (i *Ingester) running(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return i.wal.run(ctx) })
	g.Go(func() error { return i.cutLoop(ctx) })
	g.Go(func() error { return i.shipLoop(ctx) })
	g.Go(func() error { return i.markLoop(ctx) })
	return g.Wait()
}

// stopping refuses writes, waits for queries and closes. It flushes nothing: the logs keep what is not in a block, and a
// restart is the common reason to stop.
func (i *Ingester) stopping(error) error {
	i.phase.Store(int32(phaseStopping))
	return i.tenants.stop()
}

// serving returns an error of kind Unavailable unless the ingester serves.
func (i *Ingester) serving() error {
	switch phase(i.phase.Load()) {
	case phaseServing:
		return nil
	case phaseStarting:
		return unavailable(errStarting, time.Second)
	default:
		return unavailable(errStopping, time.Second)
	}
}

// syncFailed is told by walSync whose logs can no longer be trusted.
func (i *Ingester) syncFailed(dirs []string, err error) {
	for _, dir := range dirs {
		t := i.tenants.byDir(dir)
		if t == nil {
			continue
		}
		t.mu.Lock()
		l := t.life
		t.mu.Unlock()
		t.fail(l, err, true)
	}
}

func (i *Ingester) poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Check returns nil when this ingester can do its work: the logs are replayed and their disk can be written. It says
// nothing of single tenants, of the bucket or of others.
func (i *Ingester) Check(context.Context) error {
	if err := i.serving(); err != nil {
		return err
	}
	probe := filepath.Join(i.cfg.Dir, ".check")
	if err := os.WriteFile(probe, []byte("writable\n"), 0o666); err != nil {
		return errkind.Wrap(errkind.Unavailable, fmt.Errorf("write to the folder of the tenants: %w", err))
	}
	return nil
}
