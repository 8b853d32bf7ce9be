package oracle

import (
	"context"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/blockgen"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/budget"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/manifest/reconcile"
	"github.com/duramendb/duramen/chunkstore/reader"
	"github.com/duramendb/duramen/chunkstore/sidecar"
	"github.com/duramendb/duramen/compactor"
	"github.com/duramendb/duramen/compactor/plan"
	"github.com/duramendb/duramen/internal/service"
)

const (
	tenantID = "t1"
	day      = 12 * blockgen.SlotLength
	// firstDay is the begin of a day.
	firstDay = int64(1_700_006_400_000)
)

// clock is one for all processes and the store.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// world is a bucket with blocks and what was put into it.
type world struct {
	clock *clock
	bkt   *bucket.InMemory // as it is, without faults
	owner *manifest.Owner  // of a reader, and of the ingesters
	sent  ledger
	lsets map[string]labels.Labels // of sent
	reads *reader.Reader
	close func()
	// retention is the tenant's.
	retention time.Duration
}

// newWorld returns an empty bucket at the end of the given day, counted from the first.
func newWorld(t testing.TB, days int) *world {
	t.Helper()
	w := &world{clock: &clock{t: time.UnixMilli(firstDay + int64(days)*day)}, sent: ledger{}, lsets: map[string]labels.Labels{}}
	w.bkt = bucket.NewInMemoryWithClock(w.clock.now)
	w.owner = manifest.NewOwner(w.bkt, w.clock.now, nopLog, nil)
	sidecars := sidecar.New(sidecar.Config{Dir: tempDir(t)}, w.bkt, nil, w.clock.now, nopLog, nil)
	cfg := reader.Config{ParallelBlocks: 4} // nothing is cached: what is gone is missed
	local, err := reader.NewLocal(cfg, sidecars.Bucket(), sidecars, nil, budget.NewPool(budget.PoolConfig{Bytes: 32 << 20}, nil),
		noLimits{}, nopLog, nil)
	require.NoError(t, err)
	w.reads, err = reader.New(cfg, local, nopLog, nil)
	require.NoError(t, err)
	w.close = func() {
		require.NoError(t, local.Close())
		require.NoError(t, sidecars.Close())
	}
	return w
}

// put ships blocks, as ingesters do.
func (w *world) put(t testing.TB, s *blockgen.Random) {
	t.Helper()
	for i, b := range s.Blocks {
		require.NoError(t, b.Put(t.Context(), w.bkt, tenantID))
		require.NoError(t, w.sent.add(s.Series[i]))
		for _, series := range s.Series[i] {
			w.lsets[series.Labels.String()] = series.Labels
		}
		_, err := w.owner.Add(t.Context(), tenantID, b.Entry)
		require.NoError(t, err)
	}
}

// putSlots makes blocks and ships them.
func (w *world) putSlots(t testing.TB, r *rand.Rand, o blockgen.SlotOptions) {
	t.Helper()
	s, err := blockgen.NewSlots(r, o)
	require.NoError(t, err)
	w.put(t, s)
}

type noLimits struct{}

func (noLimits) MaxFetchedSeriesPerQuery(string) int       { return 0 }
func (noLimits) MaxFetchedChunkBytesPerQuery(string) int64 { return 0 }
func (noLimits) RetentionPeriod(string) time.Duration      { return 0 }
func (noLimits) OutOfOrderWindow(string) time.Duration     { return 3 * time.Hour }

// limits are those of a world.
type limits struct {
	noLimits

	w *world
}

func (l limits) RetentionPeriod(string) time.Duration { return l.w.retention }

// alone is a cluster of one process whose ingesters have shipped everything.
type alone struct{ clock *clock }

func (alone) Owner(string) (name string, here bool) { return "", true }
func (a alone) ShippedUpTo() int64                  { return a.clock.now().UnixMilli() }
func (alone) Replicas() int                         { return 1 }

// process is a compactor with the reconciler beside it, as they run in one process.
type process struct {
	*compactor.Compactor

	reconciler *reconcile.Reconciler
	service    *service.Service
}

// start starts a compactor that works when it is told to. stop has to be called.
func (w *world) start(t testing.TB, bkt bucket.Bucket, name string) *process {
	t.Helper()
	owner := manifest.NewOwner(bkt, w.clock.now, nopLog, nil)
	cfg := compactor.Config{
		Dir: tempDir(t), Writer: manifest.CompactorWriter + name, Concurrency: 2, MaxIndexBytes: plan.DefaultMaxIndexBytes,
	}
	c, err := compactor.New(cfg, bkt, owner, limits{w: w}, alone{w.clock}, w.clock.now, nopLog, nil)
	require.NoError(t, err)
	r, err := reconcile.New(reconcile.Config{DeleteDelay: 2 * time.Hour, PeerFiles: true}, bkt, owner, w.clock.now, nopLog, nil)
	require.NoError(t, err)
	p := &process{c, r, c.Service()}
	require.NoError(t, p.service.Start(context.Background()))
	return p
}

func (p *process) stop(t testing.TB) {
	t.Helper()
	require.NoError(t, p.service.Stop())
}

// newest is the manifest as the bucket has it.
func (w *world) newest(t testing.TB) *manifest.Manifest {
	t.Helper()
	m, err := w.owner.Refresh(t.Context(), tenantID)
	require.NoError(t, err)
	return m
}

// check reads all that a manifest lists through the store, and returns an error unless it is exactly what was put.
func (w *world) check(t testing.TB, m *manifest.Manifest) error {
	q, err := w.reads.Querier(tenantID, m.Blocks, nil, math.MinInt64, math.MaxInt64)
	if err != nil {
		return err
	}
	defer func() { _ = q.Close() }()
	return w.sent.compare(t, q)
}

// checkNow checks the newest manifest.
func (w *world) checkNow(t testing.TB) {
	t.Helper()
	require.NoError(t, w.check(t, w.newest(t)))
}

// checkPrometheus reads the listed blocks with Prometheus' own reader, from local disk.
func (w *world) checkPrometheus(t testing.TB, m *manifest.Manifest) {
	t.Helper()
	dir := tempDir(t)
	var qs []storage.Querier
	for i := range m.Blocks {
		b, err := tsdb.OpenBlock(nopLog, w.download(t, dir, &m.Blocks[i]), nil, nil)
		require.NoError(t, err)
		defer func() { require.NoError(t, b.Close()) }()
		require.Equal(t, []int64{m.Blocks[i].MinTime, m.Blocks[i].MaxTime}, []int64{b.MinTime(), b.MaxTime()})
		q, err := tsdb.NewBlockQuerier(b, math.MinInt64, math.MaxInt64)
		require.NoError(t, err)
		qs = append(qs, q)
	}
	q := storage.NewMergeQuerier(qs, nil, storage.ChainedSeriesMerge)
	err := w.sent.compare(t, q)
	require.NoError(t, q.Close())
	require.NoError(t, err)
}

// download copies a block to a folder of its own in dir and returns that.
func (w *world) download(t testing.TB, dir string, b *manifest.Block) string {
	t.Helper()
	dir = filepath.Join(dir, b.ULID.String())
	prefix := block.Prefix(tenantID, b.ULID)
	require.NoError(t, w.bkt.List(t.Context(), prefix, true, func(o bucket.Object) error {
		name := filepath.Join(dir, filepath.FromSlash(strings.TrimPrefix(o.Key, prefix)))
		body, err := w.bkt.Get(t.Context(), o.Key)
		if err != nil {
			return err
		}
		data, err := io.ReadAll(body)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
			return err
		}
		return os.WriteFile(name, data, 0o600)
	}))
	return dir
}

// jobs is what a plan for the newest manifest would do now.
func (w *world) jobs(t testing.TB) []plan.Job {
	t.Helper()
	now := w.clock.now()
	return plan.Make(w.newest(t), now, plan.Limits{
		ShippedUpTo: now.UnixMilli(), OutOfOrderWindow: 3 * time.Hour, Replicas: 1,
	}).Jobs
}
