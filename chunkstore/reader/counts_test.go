package reader

import (
	"fmt"
	"log/slog"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/blockgen"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/countbucket"
	"github.com/duramendb/duramen/chunkstore/budget"
	"github.com/duramendb/duramen/chunkstore/cache"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

// gridFixture is daily blocks in a bucket that counts.
type gridFixture struct {
	grid   blockgen.Grid
	days   int
	bkt    *countbucket.Bucket
	blocks []manifest.Block
}

func newGrid(t testing.TB, grid blockgen.Grid, days int) *gridFixture {
	t.Helper()
	g := &gridFixture{grid: grid, days: days, bkt: countbucket.New(bucket.NewInMemory())}
	require.NoError(t, grid.Days(days, func(_ int, b *blockgen.Block) error {
		g.blocks = append(g.blocks, b.Entry)
		return b.Put(t.Context(), g.bkt, tenantID)
	}))
	g.bkt.Reset()
	return g
}

func openDisk(t testing.TB) *cache.Disk {
	t.Helper()
	d, err := cache.OpenDisk(cache.DiskConfig{Dir: t.TempDir(), MaxBytes: 64 << 20}, slog.New(slog.DiscardHandler), nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

// read reads the samples of all series that match as the engine does: first the series, then their samples.
func (g *gridFixture) read(t testing.TB, r *setup, hints *storage.SelectHints, matchers ...*labels.Matcher) (series, samples int) {
	t.Helper()
	q, err := r.Querier(tenantID, g.blocks, nil, 0, math.MaxInt64)
	require.NoError(t, err)
	defer func() { require.NoError(t, q.Close()) }()
	return readSet(t, q.Select(t.Context(), true, hints, matchers...))
}

func readSet(t testing.TB, set storage.SeriesSet) (series, samples int) {
	t.Helper()
	var all []storage.Series
	for set.Next() {
		all = append(all, set.At())
	}
	require.NoError(t, set.Err())
	var it chunkenc.Iterator
	for _, s := range all {
		it = s.Iterator(it)
		for it.Next() != chunkenc.ValNone {
			samples++
		}
		require.NoError(t, it.Err())
	}
	return len(all), samples
}

func equal(name, value string) *labels.Matcher {
	return labels.MustNewMatcher(labels.MatchEqual, name, value)
}

// TestRequestsOfAColdQuery: the counts that long-term storage stands on.
func TestRequestsOfAColdQuery(t *testing.T) { synctest.Test(t, requestsOfAColdQuery) }

func requestsOfAColdQuery(t *testing.T) {
	const days = 30
	g := newGrid(t, blockgen.Grid{Metrics: 4, Series: 120, Interval: 1_800_000, Start: 19_675 * 86_400_000}, days)
	name := func(metric int) *labels.Matcher { return equal(labels.MetricName, g.grid.Metric(metric)) }
	g.bkt.SetLatency(40 * time.Millisecond)
	r := g.setup(t, func(o *setting) { o.disk = openDisk(t) })
	perBlock := func(ops countbucket.Ops, gets int) {
		t.Helper()
		require.Len(t, ops.ByBlock(), days)
		for id, of := range ops.ByBlock() {
			require.LessOrEqual(t, len(of), gets, "block %s: %s", id, of)
		}
	}
	ask := func(matchers ...*labels.Matcher) (ops countbucket.Ops, series, samples int) {
		t.Helper()
		g.bkt.Reset()
		series, samples = g.read(t, r, nil, matchers...)
		return g.bkt.Ops(), series, samples
	}

	ops, series, samples := ask(name(0))
	require.Equal(t, 120, series)
	require.Equal(t, 120*days*g.grid.PerDay(), samples)
	perBlock(ops, 3)
	require.LessOrEqual(t, ops.Waves(), 3, "directories were not known")

	ops, _, _ = ask(name(1))
	perBlock(ops, 2)
	require.LessOrEqual(t, ops.Waves(), 1, "pages and chunks at once")
	needed := ops.Bytes()

	ops, series, samples = ask(name(1))
	require.Equal(t, 120, series)
	require.Equal(t, 120*days*g.grid.PerDay(), samples)
	require.Empty(t, ops, "the same query again")

	ops, series, samples = ask(name(2), equal("pod", "pod-00071"))
	require.Equal(t, 1, series)
	require.Equal(t, days*g.grid.PerDay(), samples)
	perBlock(ops, 2)
	require.LessOrEqual(t, ops.Waves(), 2)
	for id, of := range ops.ByBlock() {
		require.LessOrEqual(t, of.Bytes(), int64(64<<10), "block %s", id)
	}

	// The whole metric by another matcher: exact bytes in two waves.
	ops, series, _ = ask(name(3), labels.MustNewMatcher(labels.MatchRegexp, "pod", "pod-.*"))
	require.Equal(t, 120, series)
	perBlock(ops, 2)
	require.LessOrEqual(t, ops.Waves(), 2)
	require.LessOrEqual(t, float64(max(ops.Bytes(), needed)), 1.2*float64(min(ops.Bytes(), needed)))

	// A restart keeps the disk and nothing else.
	again := g.setup(t, func(o *setting) { o.disk = r.disk })
	g.bkt.Reset()
	series, samples = g.read(t, again, nil, name(1))
	require.Equal(t, 120, series)
	require.Equal(t, 120*days*g.grid.PerDay(), samples)
	require.Empty(t, g.bkt.Ops())
}

// setup returns a Reader of the grid.
func (g *gridFixture) setup(t testing.TB, change ...func(*setting)) *setup {
	t.Helper()
	return (&fixture{}).reader(t, g.bkt, append([]func(*setting){func(o *setting) { o.parallel = 64 }}, change...)...)
}

// TestWindowsGiveTheSameAnswer: with little memory chunks come in windows, in any order that they are asked for.
func TestWindowsGiveTheSameAnswer(t *testing.T) {
	g := newGrid(t, blockgen.Grid{Metrics: 2, Series: 700, Interval: 3_600_000, Start: 19_675 * 86_400_000}, 5)
	all := labels.MustNewMatcher(labels.MatchRegexp, labels.MetricName, ".+")
	want, samples := g.read(t, g.setup(t), nil, all)
	require.Equal(t, 1400, want)
	for _, bytes := range []int64{40_000, 200_000, 1_000_000} {
		t.Run(fmt.Sprint(bytes), func(t *testing.T) {
			r := g.setup(t, func(o *setting) {
				o.pool = budget.PoolConfig{Bytes: bytes, MaxWait: time.Minute}
				o.pages, o.directories = bytes, bytes
			})
			series, n := g.read(t, r, nil, all)
			require.Equal(t, want, series)
			require.Equal(t, samples, n)
		})
	}
}

// TestASelectorWithAnOffsetReadsItsBlocks: and nothing of the others of its query.
func TestASelectorWithAnOffsetReadsItsBlocks(t *testing.T) {
	g := newGrid(t, smallGrid, 4)
	s := g.setup(t).local.Session(tenantID, g.blocks, 0, 1<<60)
	hints := &storage.SelectHints{Start: g.blocks[2].MinTime, End: g.blocks[2].MaxTime - 1}
	sets, err := s.Select(t.Context(), hints, equal(labels.MetricName, g.grid.Metric(1)))
	require.NoError(t, err)
	require.Len(t, sets, 4)
	require.Equal(t, 300, drain(t, expand(t, sets)))
	require.Len(t, g.bkt.Ops().ByBlock(), 1)
	require.NoError(t, s.Close())
}
