package reader

import (
	"context"
	"testing"
	"time"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/blockgen"
	"github.com/duramendb/duramen/chunkstore/budget"
	"github.com/duramendb/duramen/internal/errkind"
)

var smallGrid = blockgen.Grid{Metrics: 3, Series: 300, Interval: 3_600_000, Start: 19_675 * 86_400_000}

// drain reads series that were expanded before.
func drain(t testing.TB, all []storage.ChunkSeries) (chunks int) {
	t.Helper()
	for _, s := range all {
		it := s.Iterator(nil)
		for it.Next() {
			chunks++
			require.NotZero(t, it.At().Chunk.NumSamples())
		}
		require.NoError(t, it.Err())
	}
	return chunks
}

func expand(t testing.TB, sets []storage.ChunkSeriesSet) (all []storage.ChunkSeries) {
	t.Helper()
	for _, set := range sets {
		for set.Next() {
			all = append(all, set.At())
		}
		require.NoError(t, set.Err())
	}
	return all
}

// TestSelectsOfAQueryShareItsMemory: the second Select finds the pool empty but for what the first one holds, and may
// neither wait for that nor take more than there is.
func TestSelectsOfAQueryShareItsMemory(t *testing.T) {
	g := newGrid(t, smallGrid, 4)
	for _, bytes := range []int64{50_000, 600_000, 1_500_000, 64 << 20} {
		r := g.setup(t, func(o *setting) { o.pool = budget.PoolConfig{Bytes: bytes, MaxWait: time.Minute} })
		s := r.local.Session(tenantID, g.blocks, 0, 1<<60)
		var all [][]storage.ChunkSeries
		for metric := range 3 {
			sets, err := s.Select(t.Context(), nil, equal(labels.MetricName, g.grid.Metric(metric)))
			require.NoError(t, err)
			all = append(all, expand(t, sets))
			if metric == 0 {
				drain(t, all[0][:10]) // some windows are there
			}
		}
		names, err := s.LabelNames(t.Context(), nil, equal("pod", "pod-00001"))
		require.NoError(t, err)
		require.Contains(t, names, "zone")
		for range 2 {
			for _, series := range all {
				require.Equal(t, 4*300, drain(t, series), "%d bytes", bytes)
			}
		}
		require.NoError(t, s.Close())
		_, err = s.Select(t.Context(), nil, everything)
		require.ErrorIs(t, err, ErrClosed)
	}
}

// TestYieldGivesAllMemoryBack: another query gets it, and this one goes on when it is free again.
func TestYieldGivesAllMemoryBack(t *testing.T) {
	g := newGrid(t, smallGrid, 3)
	r := g.setup(t, func(o *setting) { o.pool = budget.PoolConfig{Bytes: 900_000, MaxWait: time.Minute} })
	s := r.local.Session(tenantID, g.blocks, 0, 1<<60)
	sets, err := s.Select(t.Context(), nil, everything)
	require.NoError(t, err)
	series := expand(t, sets)
	drain(t, series[:100])
	_, ok := r.pool.TryAcquire(900_000)
	require.False(t, ok, "the session holds some")

	s.(interface{ Yield() }).Yield()
	other, ok := r.pool.TryAcquire(900_000)
	require.True(t, ok, "the session holds nothing")
	freed := make(chan struct{})
	go func() {
		defer close(freed)
		other()
	}()
	require.Equal(t, 3*900, drain(t, series))
	<-freed
	require.NoError(t, s.Close())
}

func TestNoMemoryInTimeIsLimited(t *testing.T) {
	g := newGrid(t, smallGrid, 2)
	r := g.setup(t, func(o *setting) { o.pool = budget.PoolConfig{Bytes: 1 << 20, MaxWait: time.Millisecond} })
	all, ok := r.pool.TryAcquire(1 << 20)
	require.True(t, ok)
	s := r.local.Session(tenantID, g.blocks, 0, 1<<60)
	_, err := s.Select(t.Context(), nil, everything)
	require.Equal(t, errkind.Limited, errkind.Of(err), "%v", err)
	late, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	patient := g.setup(t, func(o *setting) { o.pool = budget.PoolConfig{Bytes: 1 << 20} })
	most, ok := patient.pool.TryAcquire(1 << 20)
	require.True(t, ok)
	waiting := patient.local.Session(tenantID, g.blocks[:1], 0, 1<<60)
	_, err = waiting.LabelValues(t.Context(), "pod", nil) // reads the directory
	require.NoError(t, err)
	_, err = waiting.Select(late, nil, everything)
	require.Equal(t, errkind.Limited, errkind.Of(err), "%v", err)
	require.NotContains(t, err.Error(), g.bkt.Name())
	require.NoError(t, waiting.Close())
	most()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.LabelValues(ctx, "pod", nil, everything)
	require.ErrorIs(t, err, context.Canceled)
	all()
	_, err = s.Select(t.Context(), nil, everything)
	require.NoError(t, err)
	require.NoError(t, s.Close())
}

// TestTooManySeriesToRememberAreRefused: what has to stay in memory for as long as the query does fits, or it is refused.
func TestTooManySeriesToRememberAreRefused(t *testing.T) {
	g := newGrid(t, smallGrid, 4)
	for i := range g.blocks {
		g.blocks[i].Labels = map[string]string{"replica": "a"}
	}
	r := g.setup(t, func(o *setting) { o.pool = budget.PoolConfig{Bytes: 500_000} })
	s := r.local.Session(tenantID, g.blocks, 0, 1<<60)
	_, err := s.Select(t.Context(), nil, everything)
	require.Equal(t, errkind.Unprocessable, errkind.Of(err), "%v", err)
	require.ErrorContains(t, err, "500000 (chunkstore.memory.query_share)")
	_, err = s.Select(t.Context(), nil, equal(labels.MetricName, g.grid.Metric(1)), equal("zone", "a"))
	require.NoError(t, err)
	require.NoError(t, s.Close())
}

// TestEqualSeriesOfBlocksShareTheirLabels: a year of blocks costs the labels of its series once.
func TestEqualSeriesOfBlocksShareTheirLabels(t *testing.T) {
	for name, external := range map[string]map[string]string{"own": nil, "external": {"replica": "a"}} {
		g := newGrid(t, smallGrid, 3)
		for i := range g.blocks {
			g.blocks[i].Labels = external
		}
		s := g.setup(t).local.Session(tenantID, g.blocks, 0, 1<<60)
		sets, err := s.Select(t.Context(), nil, everything)
		require.NoError(t, err)
		for range 900 {
			var text []string
			for _, set := range sets {
				require.True(t, set.Next(), "%s: %v", name, set.Err())
				text = append(text, set.At().Labels().Get("pod"))
			}
			for _, other := range text {
				require.Equal(t, text[0], other)
				require.Same(t, unsafe.StringData(text[0]), unsafe.StringData(other), name)
			}
		}
		require.NoError(t, s.Close())
	}
}

// TestLimits: what directories are sure of is refused before the first page is read, the rest before the first chunk.
func TestLimits(t *testing.T) {
	g := newGrid(t, smallGrid, 4)
	name, pod := equal(labels.MetricName, g.grid.Metric(1)), labels.MustNewMatcher(labels.MatchRegexp, "pod", ".+")
	series := func(o *setting) { o.limits.series = 299 }
	bytes := func(o *setting) { o.limits.bytes = 10_000 }
	for _, c := range []struct {
		what     string
		limit    func(*setting)
		matchers []*labels.Matcher
		hints    *storage.SelectHints
		pages    bool // are read
		message  string
	}{
		{"series by name", series, []*labels.Matcher{name}, nil, false, "at least 300 series"},
		{"series by others", series, []*labels.Matcher{name, pod}, nil, true, "series, and the limit of tenant t1 is 299"},
		{"bytes by name", bytes, []*labels.Matcher{name}, nil, false, "bytes of chunks"},
		{"bytes by others", bytes, []*labels.Matcher{name, pod}, nil, true, "is 10000 (max_fetched_chunk_bytes_per_query)"},
		{"series alone", bytes, []*labels.Matcher{name}, &storage.SelectHints{End: 1 << 60, Func: "series"}, true, ""},
		{"few series", series, []*labels.Matcher{name, equal("zone", "a")}, nil, true, ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			r := g.setup(t, c.limit)
			s := r.local.Session(tenantID, g.blocks, 0, 1<<60)
			defer func() { require.NoError(t, s.Close()) }()
			_, err := s.LabelValues(t.Context(), "pod", nil) // reads the directories
			require.NoError(t, err)
			g.bkt.Reset()
			_, err = s.Select(t.Context(), c.hints, c.matchers...)
			require.Equal(t, c.pages, len(g.bkt.Ops()) > 0)
			require.Empty(t, g.bkt.Ops().Kind("chunks"))
			if c.message == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.message)
			require.Equal(t, errkind.Unprocessable, errkind.Of(err))
		})
	}
}

// TestPagesReadAgainAreFew: who gave its memory back does not read all pages at once, as it could when it had it.
func TestPagesReadAgainAreFew(t *testing.T) {
	g := newGrid(t, blockgen.Grid{Metrics: 12, Series: 300, Interval: 3_600_000, Start: smallGrid.Start}, 1)
	r := g.setup(t)
	s := r.local.Session(tenantID, g.blocks, 0, 1<<60)
	sets, err := s.Select(t.Context(), nil, everything)
	require.NoError(t, err)
	s.(interface{ Yield() }).Yield()
	require.True(t, sets[0].Next(), "%v", sets[0].Err())
	set, ok := sets[0].(*blockSet)
	require.True(t, ok)
	require.Greater(t, len(set.b.picked), 10)
	require.Less(t, len(set.cursor.loaded), len(set.b.picked)/2)
	require.Positive(t, set.b.sel.s.mem.held, "they are paid for")
	require.NoError(t, s.Close())
}
