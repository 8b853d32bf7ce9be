package app

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/backend"
	"github.com/duramendb/duramen/chunkstore/bucket/identity"
	"github.com/duramendb/duramen/chunkstore/cache"
	"github.com/duramendb/duramen/chunkstore/localstore"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/manifest/reconcile"
	"github.com/duramendb/duramen/chunkstore/tenantmark"
	"github.com/duramendb/duramen/distributor"
	"github.com/duramendb/duramen/ingester"
	"github.com/duramendb/duramen/internal/service"
	"github.com/duramendb/duramen/querier"
	"github.com/duramendb/duramen/tenant"
)

// part is one line of the wiring table.
type part struct {
	name string
	// needs names parts further up that must be built, and run, before this one.
	needs []string
	// build makes the part and puts it into the App. It starts nothing; a part without a life of its own has no service.
	build func(a *App) (*service.Service, error)
	// check says whether the running part can do its work; nil when its state says everything.
	check func(a *App, ctx context.Context) error
}

// wiring lists the parts that the target needs, in the order of start; they stop in reverse. The HTTP server comes early,
// so that /ready and the pages answer while logs are replayed; at the stop it is drained before anything else. The gRPC
// server comes late: who can reach it finds everything running. Last of all a member of a cluster says that it is there.
func wiring(cfg Config) []part {
	w := wires(cfg)
	return reachable([]part{
		{name: "data directory", build: buildDataDir},
		{name: "http server", build: buildHTTP},
		{name: "tracing", needs: []string{"data directory"}, build: buildTracing},
		{name: "bucket", needs: []string{"data directory"}, build: buildBucket, check: (*App).checkBucket},
		{name: "manifests", needs: []string{"bucket"}, build: buildManifests},
		{name: "ring", needs: []string{"data directory"}, build: buildRing, check: (*App).checkRing},
		{name: "peers", needs: []string{"ring"}, build: buildPeers, check: (*App).checkPeers},
		{name: "reconciler", needs: w.member("bucket", "manifests"), build: buildReconciler},
		{name: "limits", build: buildLimits, check: (*App).checkLimits},
		{
			name: "ingester", needs: w.member("data directory", "bucket", "manifests", "limits"),
			build: buildIngester, check: (*App).checkIngester,
		},
		{
			name: "compactor", needs: w.member("data directory", "bucket", "manifests", "reconciler", "limits"),
			build: buildCompactor,
		},
		{name: "store", needs: []string{"data directory", "bucket", "manifests", "limits"}, build: buildStore},
		{name: "store-gateways", needs: w.gateways, build: buildGateways},
		{name: "fan-out", needs: append(w.own, "peers"), build: buildFanout},
		{name: "querier", needs: []string{w.recent, w.blocks, "manifests", "limits"}, build: buildQuerier},
		{name: "replicator", needs: append(w.own, "peers", "limits"), build: buildReplicator},
		{name: "distributor", needs: w.member(w.push, "limits"), build: buildDistributor},
		{name: "store gateway", needs: []string{"store"}, build: buildGateway},
		{name: "grpc server", needs: append(w.served, "tracing"), build: buildGRPC},
		{name: "membership", needs: append(w.listening, "ring"), build: buildMembership},
		{name: "ingester membership", needs: []string{"ingester", "membership"}, build: buildIngesterMembership},
	}, w.parts)
}

// wiresOf are the needs that differ from one target to the next.
type wiresOf struct {
	parts     []string // by the roles
	blocks    string   // who reads blocks for the querier
	recent    string   // who reads recent samples for it
	push      string   // whom the distributor writes to
	gateways  []string // what a client of store-gateways needs
	own       []string // the ingester of this process
	served    []string // what others may ask of this process
	listening []string // the server for that
	clustered bool
}

func wires(cfg Config) wiresOf {
	w := wiresOf{
		parts: []string{"http server", "tracing"}, blocks: "store", recent: "ingester", push: "ingester",
		clustered: cfg.clustered(),
	}
	for _, role := range cfg.roles() {
		w.parts = append(w.parts, roleParts(role)...)
	}
	if cfg.plays(roleStoreGateway) {
		w.served = append(w.served, "store gateway")
	}
	if len(cfg.Querier.StoreGatewayAddresses) > 0 {
		w.blocks = "store-gateways"
	}
	if !w.clustered {
		return w
	}
	w.parts = append(w.parts, "membership")
	w.recent, w.push = "fan-out", "replicator"
	if cfg.plays(roleIngester) {
		w.parts = append(w.parts, "ingester membership")
		w.own, w.served = []string{"ingester"}, append(w.served, "ingester")
	}
	if len(w.served) > 0 {
		w.listening = []string{"grpc server"}
	}
	if len(cfg.Querier.StoreGatewayAddresses) == 0 {
		w.gateways = []string{"peers"}
		if !cfg.plays(roleStoreGateway) {
			w.blocks = "store-gateways"
		}
	}
	return w
}

// member adds the ring, in a cluster, to what a part needs.
func (w wiresOf) member(needs ...string) []string {
	if w.clustered {
		return append(needs, "ring")
	}
	return needs
}

func buildDataDir(a *App) (_ *service.Service, err error) {
	if a.dataDir, err = openDataDir(a.cfg.DataDir); err != nil {
		return nil, err
	}
	a.onClose(a.dataDir.close)
	return nil, nil
}

func buildHTTP(a *App) (_ *service.Service, err error) {
	if a.http, err = newHTTPServer(a.cfg.Server, a.logger("http")); err != nil {
		return nil, err
	}
	return a.http.service(), nil
}

// buildBucket opens the object store. Its start refuses another one than was used before, and probes what all manifests rest
// on; a store that does not honour put-if-absent is refused, unless the operator vouches for a single writer. One that does
// not answer, be it full or away, is no reason to refuse writes and queries that need no bucket: it is looked at before the
// first operation, and probed again before the first manifest is written.
func buildBucket(a *App) (_ *service.Service, err error) {
	used, err := a.usedBucket()
	if err != nil {
		return nil, err
	}
	a.bucket, err = backend.New(a.cfg.Bucket, a.cfg.bucketDir(), a.logger("bucket"), a.reg)
	if err != nil {
		return nil, err
	}
	a.onClose(a.bucket.Close)
	a.objects = identity.New(used, a.bucket, time.Now, a.logger("bucket"), a.reg)
	phases := service.Phases{Running: a.objects.Run}
	if a.listsBlocks() { // the others are ready at once
		phases.Starting = a.probeBucket
	}
	return service.NewService("bucket", phases), nil
}

// listsBlocks reports whether this process writes manifests.
func (a *App) listsBlocks() bool { return a.cfg.plays(roleIngester) || a.cfg.plays(roleCompactor) }

// probeTimeout is how long the start waits for a bucket that does not answer.
const probeTimeout = 10 * time.Second

func (a *App) probeBucket(ctx context.Context) error {
	probe, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	err := a.objects.Verify(probe)
	if err == nil {
		err = a.bucket.Probe(probe)
	}
	if err == nil || errors.Is(err, bucket.ErrUnconditional) || errors.Is(err, identity.ErrRefused) || ctx.Err() != nil {
		return err
	}
	a.logger("bucket").Error("bucket does not work, starting without it: blocks stay local until it does",
		"bucket", a.bucket.Name(), "err", err)
	return nil
}

func (a *App) checkBucket(ctx context.Context) error {
	if err := a.bucket.Check(); err != nil {
		return err
	}
	err := a.objects.Verify(ctx)
	if err == nil && a.listsBlocks() {
		err = a.bucket.Probe(ctx)
	}
	return err
}

func buildManifests(a *App) (*service.Service, error) {
	a.manifests = manifest.NewOwner(a.objects, time.Now, a.logger("manifest"), a.reg)
	return nil, nil
}

func buildReconciler(a *App) (*service.Service, error) {
	cfg := a.cfg.Manifest
	if a.ring != nil {
		cfg.Owns = a.ownsTenant
	}
	cfg.Stop = func(id string) bool { return a.compactor == nil || a.compactor.Stop(id) }
	r, err := reconcile.New(cfg, a.objects, a.manifests, time.Now, a.logger("reconciler"), a.reg)
	if err != nil {
		return nil, err
	}
	a.reconciler = r
	a.deletions = tenantmark.NewRequests(a.objects, a.manifests, cfg.TenantDeletionGrace, a.tenantsMarked)
	return r.Service(), nil
}

// tenantsMarked tells the ingester of this process that tenants are to be deleted, or are not any more.
func (a *App) tenantsMarked() {
	if a.ingester != nil {
		a.ingester.LookAtMarks()
	}
}

func buildLimits(a *App) (_ *service.Service, err error) {
	if a.limits, err = tenant.NewLimits(a.cfg.Limits, a.logger("limits"), a.reg); err != nil {
		return nil, err
	}
	return a.limits.Service(), nil
}

func (a *App) checkLimits(ctx context.Context) error { return a.limits.Check(ctx) }

func buildIngester(a *App) (_ *service.Service, err error) {
	cfg := a.cfg.Ingester
	cfg.Dir = a.dataDir.ingester()
	cfg.Writer = "ingester/" + a.dataDir.instance.StorageID
	cfg.Tracing = a.tracing
	var limits ingester.Limits = a.limits
	if a.ring != nil {
		limits = ingesterLimits{a.limits, a.ring, a.instanceID}
	}
	a.ingester, err = ingester.New(cfg, a.objects, a.manifests, limits, time.Now, a.logger("ingester"), a.reg)
	if err != nil {
		return nil, err
	}
	return a.ingester.Service(), nil
}

func (a *App) checkIngester(ctx context.Context) error { return a.ingester.Check(ctx) }

func buildStore(a *App) (_ *service.Service, err error) {
	cfg, dir := a.cfg.Chunkstore, filepath.Join(a.dataDir.path, "chunkstore")
	if cfg.DiskCache.MaxBytes == cache.AutoDiskBytes && a.cfg.Bucket.Backend != backend.S3 {
		cfg.DiskCache.MaxBytes = 0 // the bucket is on a local disk itself
	}
	cfg.DiskCache.MinFreeBytes = 2 * int64(a.cfg.Ingester.MinFreeBytes) // it gives way before writes are refused
	a.store, err = localstore.Open(cfg, dir, a.objects, a.manifests, a.limits, time.Now, a.logger("chunkstore"), a.reg)
	if err != nil {
		return nil, err
	}
	a.onClose(a.store.Close)
	a.reader = a.store.Reader
	return nil, nil
}

func buildQuerier(a *App) (_ *service.Service, err error) {
	cfg := a.cfg.Querier.Config
	cfg.UseStartTimestamps = a.cfg.Ingester.StartTimestamps
	cfg.BuildInfo = apiBuildInfo(a.build)
	cfg.Dir = filepath.Join(a.dataDir.path, "querier")
	cfg.MemoryBytes = int64(cfg.MemoryShare * float64(a.cfg.Chunkstore.Memory.Budgets().Limit))
	var recent interface {
		querier.Recent
		querier.Extras
	} = a.ingester
	if a.fanout != nil {
		recent = a.fanout
	}
	a.querier, err = querier.New(
		cfg, recent, recent, a.reader, a.manifests, a.limits, time.Now, a.logger("querier"), a.reg)
	if err != nil {
		return nil, err
	}
	return a.querier.Service(), nil
}

func buildDistributor(a *App) (_ *service.Service, err error) {
	var push distributor.Pusher = a.ingester
	var limits distributor.Limits = a.limits
	if a.ring != nil {
		push, limits = a.replicator, distributorLimits{a.limits, a.ring}
	}
	a.distributor, err = distributor.New(a.cfg.Distributor, push, limits, a.logger("distributor"), a.reg)
	return nil, err
}
