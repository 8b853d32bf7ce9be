package app

import (
	"math"
	"net/http"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/compactor"
	"github.com/duramendb/duramen/internal/service"
	"github.com/duramendb/duramen/ring"
)

// buildCompactor merges blocks in the bucket, beside the reconciler. An ingester of the same process stands further up in
// the table.
func buildCompactor(a *App) (_ *service.Service, err error) {
	cfg := a.cfg.Compactor
	cfg.Dir = filepath.Join(a.dataDir.path, "compactor")
	cfg.Writer = manifest.CompactorWriter + a.dataDir.instance.StorageID
	cfg.MinFreeBytes = reserve(a.dataDir.path, a.cfg.Ingester.MinFreeBytes)
	a.compactor, err = compactor.New(
		cfg, a.objects, a.manifests, a.limits, others{a}, time.Now, a.logger("compactor"), a.reg)
	if err != nil {
		return nil, err
	}
	a.compactor.WatchDamage(a.reconciler)
	return a.compactor.Service(), nil
}

// reserve is what a compactor leaves free on the volume of the data directory, in bytes: twice that below which an ingester
// refuses writes, be it set or, with 0, the larger of 2 GiB and 5 % of the volume.
func reserve(dir string, minFree uint64) int64 {
	if minFree == 0 {
		minFree = 2 << 30
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err == nil {
			minFree = max(minFree, st.Blocks*uint64(st.Bsize)/20) //nolint:gosec // the size of a block is positive
		}
	}
	return 2 * int64(minFree) //nolint:gosec // bytes of a disk
}

// others are the other processes of the cluster, as the compactor has to know them.
type others struct{ a *App }

// Owner implements compactor.Cluster. While nobody is known to own a tenant, everybody does.
func (o others) Owner(tenantID string) (name string, here bool) {
	if o.a.ring == nil {
		return "", true
	}
	owner, ok := o.a.ring.Ring().Owner(ring.RoleCompactor, tenantID)
	if !ok {
		return "", true
	}
	name = owner.ID
	if owner.HTTPAddress != "" {
		name += " at " + owner.HTTPAddress
	}
	return name, owner.ID == o.a.instanceID
}

// ShippedUpTo implements compactor.Cluster: the least of all ingesters that may hold samples which are nowhere else.
func (o others) ShippedUpTo() int64 {
	if o.a.ring == nil {
		if o.a.ingester == nil {
			return math.MinInt64
		}
		return o.a.ingester.ShippedUpTo()
	}
	least, known := int64(math.MaxInt64), false
	for _, m := range o.a.ring.Ring().Ingesters() {
		if m.HoldsData() {
			least, known = min(least, m.ShippedUpTo), true
		}
	}
	if !known {
		return math.MinInt64
	}
	return least
}

// Replicas implements compactor.Cluster.
func (o others) Replicas() int {
	if o.a.ring == nil {
		return 1
	}
	return o.a.ring.Ring().RF()
}

// compactorRoutes are about the blocks in the bucket.
func (a *App) compactorRoutes() []route {
	return []route{
		{
			path: "/compactor", methods: []string{http.MethodGet}, handler: a.byOwner(a.compactor.ServeStatus),
			about: "the tenants whose blocks are merged here: slots, jobs, lag, what is skipped and why; ?format=json",
		},
		{
			path: "/compactor/run", methods: []string{http.MethodPost}, gated: true, handler: a.byOwner(a.compactor.ServeRun),
			about: "look through a tenant's blocks now, ?tenant=; ?wait=true to wait until all is merged",
		},
	}
}
