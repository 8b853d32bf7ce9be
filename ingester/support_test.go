package ingester

import (
	"cmp"
	"context"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/duramenpb"
)

func TestMain(m *testing.M) {
	// Stock does not end this goroutine when the last write of a Close fails, which tests of failing disks provoke. That
	// every TSDB is closed is checked by fixture.stop.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/prometheus/prometheus/tsdb/wlog.(*WL).run"))
}

// testLimits are the limits of every tenant.
type testLimits struct {
	mu        sync.Mutex
	epoch     uint64
	series    int
	metadata  int
	exemplars int
	window    time.Duration
}

func (l *testLimits) change(f func(l *testLimits)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(l)
	l.epoch++
}

func ask[T any](l *testLimits, v *T) T {
	l.mu.Lock()
	defer l.mu.Unlock()
	return *v
}

func (l *testLimits) Epoch(string) uint64                   { return ask(l, &l.epoch) }
func (l *testLimits) MaxSeries(string) int                  { return ask(l, &l.series) }
func (l *testLimits) MaxMetadata(string) int                { return ask(l, &l.metadata) }
func (l *testLimits) MaxExemplars(string) int               { return ask(l, &l.exemplars) }
func (l *testLimits) OutOfOrderWindow(string) time.Duration { return ask(l, &l.window) }

// testCatalog is a manifest in memory.
type testCatalog struct {
	mu        sync.Mutex
	manifests map[string]*manifest.Manifest
	err       error
	lost      []manifest.LostRange
}

func (c *testCatalog) Lost(_ context.Context, _ string, l manifest.LostRange) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.lost = append(c.lost, l)
	}
	return c.err
}

func (c *testCatalog) Current(_ context.Context, tenant string) (*manifest.Manifest, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.manifests[tenant]; m != nil {
		return m, c.err
	}
	return &manifest.Manifest{Tenant: tenant}, c.err
}

func (c *testCatalog) Add(_ context.Context, tenant string, b manifest.Block) (manifest.Added, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return manifest.Added{}, c.err
	}
	next := &manifest.Manifest{Tenant: tenant, Version: 1}
	if m := c.manifests[tenant]; m != nil {
		next.Version, next.Blocks = m.Version+1, slices.Clone(m.Blocks)
	}
	b.AddedVersion = next.Version
	next.Blocks = append(next.Blocks, b)
	c.manifests[tenant] = next
	return manifest.Added{Version: next.Version}, nil
}

// testClock stands still unless it is set.
type testClock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *testClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *testClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// fixture is an ingester that serves, with everything around it that a test may want to turn.
type fixture struct {
	*Ingester
	t       testing.TB
	dir     string
	limits  *testLimits
	catalog *testCatalog
	clock   *testClock
	bkt     bucket.Bucket // for marks; it outlives a restart
	// starts says whether start timestamps are stored, from the next start on.
	starts bool
	stop   func()
}

// testStart is a full block range, so that tests can tell where borders lie.
var testStart = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newFixture(t testing.TB) *fixture {
	t.Helper()
	f := idleFixture(t)
	f.start()
	return f
}

// idleFixture is a fixture that has not been started.
func idleFixture(t testing.TB) *fixture {
	t.Helper()
	f := &fixture{
		stop: func() {},
		t:    t, dir: filepath.Join(t.TempDir(), "ingester"),
		limits:  &testLimits{metadata: 100, exemplars: 100, window: 3 * time.Hour},
		catalog: &testCatalog{manifests: map[string]*manifest.Manifest{}},
		clock:   &testClock{t: testStart},
		bkt:     bucket.NewInMemory(),
	}
	t.Cleanup(func() { f.stop() })
	return f
}

func testConfig(dir string) Config {
	return Config{
		Dir: dir, Writer: "test", WALSync: SyncInterval, WALCompression: "none", MinFreeBytes: 1,
		IdleTimeout: time.Hour, BlockRetention: 12 * time.Hour, ShipInterval: time.Hour,
	}
}

func (f *fixture) start() {
	f.t.Helper()
	cfg := testConfig(f.dir)
	cfg.StartTimestamps = f.starts
	i, err := New(cfg, f.bkt, f.catalog, f.limits, f.clock.now,
		slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(f.t, err)
	i.shipper.upload = fakeUpload
	f.Ingester = i
	s := i.Service()
	require.NoError(f.t, s.Start(context.Background()))
	f.stop = sync.OnceFunc(func() {
		require.NoError(f.t, s.Stop())
		require.Zero(f.t, testutil.ToFloat64(i.metrics.openTenants), "every TSDB is closed")
	})
}

// restart stops and starts again on the same folder.
func (f *fixture) restart() {
	f.t.Helper()
	f.stop()
	f.start()
}

// fakeUpload lists a block without copying it: what the bucket holds is not this package's matter.
func fakeUpload(_ context.Context, _ bucket.Bucket, _, dir, writer string) (manifest.Block, error) {
	id, err := ulid.ParseStrict(filepath.Base(dir))
	return manifest.Block{ULID: id, Writer: writer, Level: 1, Sources: []ulid.ULID{id}}, err
}

// batch builds a Batch.
type batch struct{ duramenpb.Batch }

// floats adds a series with samples at the given milliseconds, all of value v.
func (b *batch) floats(lset labels.Labels, v float64, ts ...int64) *batch {
	for _, t := range ts {
		b.Floats = append(b.Floats, duramenpb.Float{T: t, V: v})
	}
	return b.end(duramenpb.Series{Labels: lset})
}

func (b *batch) byRef(ref uint64, v float64, ts ...int64) *batch {
	for _, t := range ts {
		b.Floats = append(b.Floats, duramenpb.Float{T: t, V: v})
	}
	return b.end(duramenpb.Series{Ref: ref})
}

func (b *batch) end(s duramenpb.Series) *batch {
	s.FloatsEnd, s.HistogramsEnd, s.ExemplarsEnd = len(b.Floats), len(b.Histograms), len(b.Exemplars)
	b.Series = append(b.Series, s)
	return b
}

// push sends the batch for the tenant "a" and demands that it is taken.
func (f *fixture) push(b *batch) *duramenpb.PushResult {
	f.t.Helper()
	r := &duramenpb.PushResult{}
	require.NoError(f.t, f.Push(context.Background(), "a", &b.Batch, r))
	return r
}

// all is a view that leaves everything to the ingester.
var all = duramenpb.View{Version: 0, Cut: math.MinInt64}

// read returns all samples of the tenant "a" by series, in time order.
func (f *fixture) read() map[string][]sample {
	f.t.Helper()
	q, _, err := f.Querier(context.Background(), "a", all, math.MinInt64, math.MaxInt64)
	require.NoError(f.t, err)
	defer func() { require.NoError(f.t, q.Close()) }()
	return readAll(f.t, q)
}

func readAll(t testing.TB, q storage.Querier) map[string][]sample {
	t.Helper()
	out := map[string][]sample{}
	set := q.Select(context.Background(), false, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+"))
	for set.Next() {
		s := set.At()
		var samples []sample
		it := s.Iterator(nil)
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			next := sample{t: it.AtT()}
			switch kind {
			case chunkenc.ValHistogram:
				_, next.h = it.AtHistogram(nil)
			case chunkenc.ValFloatHistogram:
				_, next.fh = it.AtFloatHistogram(nil)
			default:
				_, next.v = it.At()
			}
			samples = append(samples, next)
		}
		require.NoError(t, it.Err())
		name := s.Labels().String()
		require.NotContains(t, out, name, "a series is returned once")
		require.True(t, slices.IsSortedFunc(samples, func(a, b sample) int { return cmp.Compare(a.t, b.t) }))
		out[name] = samples
	}
	require.NoError(t, set.Err())
	return out
}

func named(name string) labels.Labels { return labels.FromStrings("__name__", name) }

func ms(t time.Time) int64 { return t.UnixMilli() }
