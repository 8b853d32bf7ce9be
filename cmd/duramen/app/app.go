// Package app owns how the process is put together: the tree of settings, the wiring table, the HTTP server with its
// pages, and the order of start and stop. It refuses to hold any of the work itself. Read wiring.go first, then the
// package of the service that you came for.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/duramendb/duramen/chunkstore/bucket/backend"
	"github.com/duramendb/duramen/chunkstore/bucket/identity"
	"github.com/duramendb/duramen/chunkstore/gateway"
	"github.com/duramendb/duramen/chunkstore/localstore"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/manifest/reconcile"
	"github.com/duramendb/duramen/chunkstore/reader"
	"github.com/duramendb/duramen/chunkstore/tenantmark"
	"github.com/duramendb/duramen/compactor"
	"github.com/duramendb/duramen/distributor"
	"github.com/duramendb/duramen/distributor/replicate"
	"github.com/duramendb/duramen/ingester"
	"github.com/duramendb/duramen/ingester/ingestrpc"
	"github.com/duramendb/duramen/ingester/membership"
	"github.com/duramendb/duramen/internal/buildinfo"
	"github.com/duramendb/duramen/internal/peerconn"
	"github.com/duramendb/duramen/internal/service"
	"github.com/duramendb/duramen/internal/tracing"
	"github.com/duramendb/duramen/querier"
	"github.com/duramendb/duramen/querier/fanout"
	"github.com/duramendb/duramen/ring/gossip"
	"github.com/duramendb/duramen/tenant"
)

//go:generate sh -c "go run .. -config.reference > ../../../docs/configuration.md"
//go:generate sh -c "go run .. -metrics.reference > ../../../docs/metrics.md"

// App is the whole process: New builds it, Run carries it through its life.
type App struct {
	cfg   Config
	log   *slog.Logger
	level *slog.LevelVar
	reg   registry
	build buildinfo.Info
	began time.Time

	// Built by the wiring table; nil where the roles do not need it.
	dataDir     *dataDir
	tracing     *tracing.Provider
	http        *httpServer
	bucket      *backend.Store
	objects     *identity.Guard // the bucket, for all who use it
	manifests   *manifest.Owner
	deletions   *tenantmark.Requests
	limits      *tenant.Limits
	ingester    *ingester.Ingester
	membership  *membership.Membership // the ingester's, of a cluster
	store       *localstore.Store
	reader      *reader.Reader // over the store or the store-gateways
	querier     *querier.Querier
	distributor *distributor.Distributor
	compactor   *compactor.Compactor
	reconciler  *reconcile.Reconciler
	gateways    *gateway.Client
	gateway     *gateway.Server
	grpc        *grpcServer

	// Of a member of a cluster.
	ring       *gossip.Node
	instanceID string
	peers      *peerconn.Pool
	pushes     *ingestrpc.Client // to other ingesters
	replicator *replicate.Replicator
	fanout     *fanout.Fanout
	pushServer *ingestrpc.Server // of other distributors
	readServer *ingestrpc.ReadServer

	running  []running // in the order of start
	health   []*checker
	closers  []func() error
	table    []route
	started  atomic.Bool // all parts run, or ran
	draining atomic.Bool
}

// running is a part of the table that has been built.
type running struct {
	part
	service *service.Service // nil for a part without a life of its own
}

// registry takes metrics in and gives them out.
type registry interface {
	prometheus.Registerer
	prometheus.Gatherer
}

// New builds all parts. It opens and locks the data directory and the bucket, and starts nothing. The log goes to
// logTo.
func New(cfg Config, logTo io.Writer) (*App, error) {
	return newApp(cfg, logTo, prometheus.NewRegistry())
}

func newApp(cfg Config, logTo io.Writer, reg registry) (*App, error) {
	log, level, err := newLogger(cfg.Log, logTo)
	if err != nil {
		return nil, err
	}
	a := &App{cfg: cfg, log: log, level: level, reg: reg, build: buildinfo.Read(), began: time.Now()}
	a.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	registerBuildInfo(a.reg, a.build)
	for _, p := range wiring(cfg) {
		s, err := p.build(a)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("build %s: %w", p.name, err), a.close())
		}
		a.running = append(a.running, running{p, s})
		a.health = append(a.health, newChecker(p.name, a.partCheck(p, s)))
	}
	a.http.handler = a.serve()
	return a, nil
}

func (a *App) logger(component string) *slog.Logger { return a.log.With("component", component) }

// onClose registers what has to be closed after all services have stopped, or when New fails.
func (a *App) onClose(fn func() error) { a.closers = append(a.closers, fn) }

// Run starts all parts, waits until ctx ends or a part fails, and stops them. An orderly life returns nil, one that was
// ended during the start included.
func (a *App) Run(ctx context.Context) error {
	err := a.start(ctx)
	switch {
	case err == nil:
		err = a.wait(ctx)
	case ctx.Err() != nil:
		a.log.Info("stopped during the start", "reason", context.Cause(ctx))
		err = nil
	}
	return errors.Join(err, a.stop(err))
}

func (a *App) start(ctx context.Context) error {
	a.log.Info("starting", "version", a.build.Version, "revision", a.build.Revision, "data_dir", a.cfg.DataDir)
	for _, r := range a.running {
		if r.service == nil {
			continue
		}
		began := time.Now()
		if err := r.service.Start(ctx); err != nil {
			return err
		}
		a.log.Debug("part started", "part", r.name, "duration", time.Since(began))
	}
	a.started.Store(true)
	a.log.Info("ready", "address", a.http.address(), "duration", time.Since(a.began))
	return nil
}

// wait returns nil when ctx ends, or the error of the first part that ended before.
func (a *App) wait(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var first atomic.Pointer[running]
	for _, r := range a.running {
		if r.service == nil {
			continue
		}
		wg.Go(func() {
			select {
			case <-ctx.Done():
			case <-r.service.Done():
				first.CompareAndSwap(nil, &r)
				cancel()
			}
		})
	}
	<-ctx.Done()
	cancel()
	wg.Wait()
	if r := first.Load(); r != nil {
		a.log.Error("part ended by itself, stopping", "part", r.name, "err", r.service.Err())
		if r.service.Err() == nil {
			return fmt.Errorf("%s ended by itself", r.name)
		}
	}
	return nil
}

// stop refuses new requests, waits for those that run, and stops the parts in reverse. Their errors are joined, but for
// the one that is the cause.
func (a *App) stop(cause error) error {
	began := time.Now()
	a.draining.Store(true)
	a.log.Info("stopping")
	a.http.drain()
	var errs []error
	for _, r := range slices.Backward(a.running) {
		if r.service == nil {
			continue
		}
		if err := r.service.Stop(); !errors.Is(cause, err) { // a failed start is the end of its part as well
			errs = append(errs, err)
		}
	}
	errs = append(errs, a.close())
	err := errors.Join(errs...)
	if err == nil {
		a.log.Info("stopped", "duration", time.Since(began))
	}
	return err
}

func (a *App) close() error {
	var errs []error
	for _, c := range slices.Backward(a.closers) {
		errs = append(errs, c())
	}
	a.closers = nil
	for _, c := range a.health {
		c.wait()
	}
	return errors.Join(errs...)
}

// partCheck is what /healthz asks: the part's state, then its own check.
func (a *App) partCheck(p part, s *service.Service) func(context.Context) error {
	return func(ctx context.Context) error {
		if s != nil && s.State() != service.Running {
			if err := s.Err(); err != nil {
				return err
			}
			return fmt.Errorf("%s is %s", p.name, s.State())
		}
		if p.check == nil {
			return nil
		}
		return p.check(a, ctx)
	}
}
