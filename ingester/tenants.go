package ingester

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/duramendb/duramen/tenant"
)

// tenants holds all tenants of which this ingester has a folder or got a write.
type tenants struct {
	cfg    Config
	limits Limits
	now    func() time.Time
	wal    *walSync
	onOpen func() // called after each open
	// finishedAt says when an earlier tenant of the name was deleted; nil: nobody knows.
	finishedAt func(tenantID string) int64
	log        *slog.Logger
	metrics    *metrics

	// ctx ends when the ingester stops; work holds the goroutines that open and reopen TSDBs, and stop waits for them.
	ctx    context.Context //nolint:containedctx // the life of the goroutines, not of a request
	cancel context.CancelFunc
	work   sync.WaitGroup

	born int64 // when the folder was first used, ms; set by start

	mu      sync.Mutex
	byID    map[string]*tenantDB
	stopped bool
}

func newTenants(cfg Config, limits Limits, now func() time.Time, log *slog.Logger, m *metrics) *tenants {
	ctx, cancel := context.WithCancel(context.Background())
	return &tenants{
		cfg: cfg, limits: limits, now: now, log: log, metrics: m,
		ctx: ctx, cancel: cancel, byID: map[string]*tenantDB{},
	}
}

// spawn runs f until it returns; stop waits for it. The caller holds a tenant's lock and knows that it is not stopped.
func (s *tenants) spawn(f func(ctx context.Context)) { s.work.Go(func() { f(s.ctx) }) }

// get returns the tenant, nil when there is none and create is not set.
func (s *tenants) get(id string, create bool) (*tenantDB, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t, ok := s.byID[id]; ok {
		return t, nil
	}
	if !create {
		return nil, nil
	}
	if s.stopped {
		return nil, unavailable(errStopping, 0)
	}
	// The ID becomes a folder: whoever forgot to check it must not write elsewhere.
	if err := tenant.ValidateID(id); err != nil {
		return nil, err
	}
	return s.addLocked(id), nil
}

func (s *tenants) addLocked(id string) *tenantDB {
	t := &tenantDB{id: id, dir: filepath.Join(s.cfg.Dir, id), set: s, metadata: newMetadataStore()}
	t.shippedUpTo.Store(nothingUnshipped)
	s.byID[id] = t
	return t
}

// byDir returns the tenant whose folder it is, nil when there is none.
func (s *tenants) byDir(dir string) *tenantDB {
	t, _ := s.get(filepath.Base(dir), false)
	return t
}

func (s *tenants) all() []*tenantDB {
	s.mu.Lock()
	defer s.mu.Unlock()
	ts := make([]*tenantDB, 0, len(s.byID))
	for _, t := range s.byID {
		ts = append(ts, t)
	}
	return ts
}

// start learns which tenants have a folder and opens those that hold data not yet in a block. A tenant that cannot be
// opened is logged and tried again when it is asked for: it must not keep the others from starting.
func (s *tenants) start(ctx context.Context) error {
	if err := os.MkdirAll(s.cfg.Dir, 0o777); err != nil {
		return fmt.Errorf("create folder of the tenants: %w", err)
	}
	entries, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return fmt.Errorf("list tenants: %w", err)
	}
	if err := finishDiscards(s.cfg.Dir, entries); err != nil {
		return err
	}
	hasTenants := slices.ContainsFunc(entries, fs.DirEntry.IsDir)
	if s.born, err = readBorn(s.cfg.Dir, s.now(), hasTenants); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(openConcurrency)
	for _, e := range entries {
		if !e.IsDir() || tenant.ValidateID(e.Name()) != nil {
			continue
		}
		s.mu.Lock()
		t := s.addLocked(e.Name())
		s.mu.Unlock()
		if isIdle(t.dir) {
			t.visitAt.Store(s.now().Add(firstVisit).UnixMilli())
			continue
		}
		t.shippedUpTo.Store(0)
		g.Go(func() error {
			l, err := t.acquire(ctx)
			if err == nil {
				l.release()
			}
			return ctx.Err()
		})
	}
	return g.Wait()
}

// stop closes all tenants, waiting for whoever uses one, and for all goroutines.
func (s *tenants) stop() error {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	s.cancel()
	var (
		mu   sync.Mutex
		errs []error
		g    errgroup.Group
	)
	g.SetLimit(4)
	for _, t := range s.all() {
		g.Go(func() error {
			if err := t.stop(); err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
			return nil
		})
	}
	_ = g.Wait()
	s.work.Wait()
	return errors.Join(errs...)
}
