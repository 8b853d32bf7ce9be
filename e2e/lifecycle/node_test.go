package lifecycle

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/localstore"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/ingester"
	"github.com/duramendb/duramen/internal/service"
	"github.com/duramendb/duramen/querier"
	"github.com/duramendb/duramen/tenant"
)

const tenantID = "lifecycle"

func TestMain(m *testing.M) {
	flag.Parse()
	minio.DefaultRetryUnit = time.Millisecond // what the library waits after its only try
	goleak.VerifyTestMain(m)
}

// clock is the time of all parts of a node. It moves only when it is told to.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// node is one process' worth of real parts over a data folder and a bucket.
type node struct {
	ingester *ingester.Ingester
	owner    *manifest.Owner
	store    *localstore.Store
	querier  *querier.Querier
	life     *service.Service
}

// hooks run inside a query: planned when the manifest is pinned and recent data is not open yet, opened when recent
// data is open and the store is not. Either may be nil.
type hooks struct {
	mu              sync.Mutex
	planned, opened func()
}

func (h *hooks) set(planned, opened func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.planned, h.opened = planned, opened
}

// take returns a hook once, so that what it does may query.
func (h *hooks) take(which func(*hooks) *func()) func() {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := *which(h)
	*which(h) = nil
	if f == nil {
		return func() {}
	}
	return f
}

// hookedRecent is an ingester with hooks around the opening of its queriers.
type hookedRecent struct {
	querier.Recent
	hooks *hooks
}

func (r hookedRecent) Querier(ctx context.Context, id string, v duramenpb.View, mint, maxt int64,
) (storage.Querier, duramenpb.Held, error) {
	r.hooks.take(func(h *hooks) *func() { return &h.planned })()
	q, held, err := r.Recent.Querier(ctx, id, v, mint, maxt)
	r.hooks.take(func(h *hooks) *func() { return &h.opened })()
	return q, held, err
}

func (r hookedRecent) ChunkQuerier(ctx context.Context, id string, v duramenpb.View, mint, maxt int64,
) (storage.ChunkQuerier, duramenpb.Held, error) {
	r.hooks.take(func(h *hooks) *func() { return &h.planned })()
	q, held, err := r.Recent.ChunkQuerier(ctx, id, v, mint, maxt)
	r.hooks.take(func(h *hooks) *func() { return &h.opened })()
	return q, held, err
}

func startNode(t testing.TB, dir string, bkt bucket.Bucket, c *clock, h *hooks) *node {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	n := &node{owner: manifest.NewOwner(bkt, c.now, log, nil)}
	limits := tenant.StaticLimits(tenant.DefaultValues())
	var icfg ingester.Config
	setDefaults(&icfg)
	icfg.Dir, icfg.Writer, icfg.MinFreeBytes = dir, "lifecycle", 1
	icfg.ShipInterval = time.Hour // ships when the test says so, and when a cut pokes
	var err error
	n.ingester, err = ingester.New(icfg, bkt, n.owner, limits, c.now, log, nil)
	require.NoError(t, err)
	var scfg localstore.Config
	setDefaults(&scfg)
	scfg.Memory.LimitBytes = 64 << 10 // some of the test's directories and pages, so that they come and go
	scfg.DiskCache.MaxBytes = 0
	n.store, err = localstore.Open(scfg, filepath.Join(dir, "chunkstore"), bkt, n.owner, limits, c.now, log, nil)
	require.NoError(t, err)
	var qcfg querier.Config
	setDefaults(&qcfg)
	n.querier, err = querier.New(qcfg, hookedRecent{n.ingester, h}, n.ingester, n.store.Reader, n.owner, limits, c.now, log, nil)
	require.NoError(t, err)
	n.life = n.ingester.Service()
	require.NoError(t, n.life.Start(context.Background()))
	return n
}

func (n *node) stop(t testing.TB) {
	t.Helper()
	require.NoError(t, n.life.Stop())
	require.NoError(t, n.store.Close())
}

func setDefaults(c interface{ RegisterFlags(f *flag.FlagSet) }) {
	c.RegisterFlags(flag.NewFlagSet("", flag.ContinueOnError))
}

// copyTree copies a folder as a crash at this moment would leave it. A cut in the background may change it meanwhile;
// such a copy is of no moment, and it is made again.
func copyTree(t testing.TB, from, to string) {
	t.Helper()
	require.Eventually(t, func() bool {
		before, err := tree(from)
		if err != nil || os.RemoveAll(to) != nil || copyFiles(from, to) != nil {
			return false
		}
		after, err := tree(from)
		return err == nil && slices.Equal(before, after)
	}, 30*time.Second, time.Millisecond)
}

// tree lists the files of a folder with their sizes.
func tree(dir string) (files []string, err error) {
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			files = append(files, fmt.Sprint(path, " ", info.Size(), " ", info.ModTime().UnixNano()))
		}
		return err
	})
	return files, err
}

func copyFiles(from, to string) error {
	return filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o777)
		}
		return copyFile(path, filepath.Join(to, rel))
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err = io.Copy(out, in); err != nil {
		_ = out.Close()
		return err
	}
	return out.Close()
}
