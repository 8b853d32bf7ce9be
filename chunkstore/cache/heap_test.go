package cache

import (
	"fmt"
	"log/slog"
	"runtime"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/budget"
)

// heapGrowth returns how many bytes more are in use after fill, whose result stays alive.
func heapGrowth(fill func() any) int64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.GC() // empties pools
	runtime.ReadMemStats(&before)
	kept := fill()
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(kept)
	return int64(after.HeapAlloc) - int64(before.HeapAlloc)
}

// requireHonest fails when the heap holds more than a fifth above what the gauge says.
func requireHonest(t *testing.T, heap int64, gauge prometheus.Gauge) {
	t.Helper()
	used := testutil.ToFloat64(gauge)
	t.Logf("heap %d bytes, gauge %.0f: %.2f times", heap, used, float64(heap)/used)
	require.LessOrEqual(t, float64(heap), 1.2*used)
}

// TestMemoryTakesWhatItSays: a full cache of values of any size takes its budget of heap, keys that left included.
func TestMemoryTakesWhatItSays(t *testing.T) {
	const most = 2 << 20
	for _, size := range []int{100, 1000, 100_000} {
		var m *Memory[string, []byte]
		heap := heapGrowth(func() any {
			m = NewMemory[string]("test", most, func(v []byte) int64 { return int64(cap(v)) }, nil)
			for i := range 2 * most / size {
				key := fmt.Sprintf("tenant-%d/01K000000000000000000000000/%d", i%10, i)
				_, err := m.Get(t.Context(), key, give(make([]byte, size)))
				require.NoError(t, err)
			}
			return m
		})
		require.Greater(t, testutil.ToFloat64(m.metrics.used), 0.9*most)
		requireHonest(t, heap, m.metrics.used)
	}
}

// TestDiskIndexTakesWhatItSays: what knowing the contents of a full disk cache costs.
func TestDiskIndexTakesWhatItSays(t *testing.T) {
	for _, size := range []int64{3000, granule} {
		dir := t.TempDir()
		var d *Disk
		heap := heapGrowth(func() any {
			d = mustOpen(t, dir, 32<<20, roomy())
			for i := range 32 << 20 / size {
				d.Write(Object{fmt.Sprint("tenant/01K000000000000000000000000/chunks/", i/100), 1 << 30}, i%100*granule, pattern[:size])
			}
			return d
		})
		// A few structures do not depend on the size of the cache.
		const fixed = 256 << 10
		t.Logf("%d extents, heap %d", d.index.extents, heap)
		require.LessOrEqual(t, float64(heap-fixed), 1.2*testutil.ToFloat64(d.metrics.indexBytes))
		require.LessOrEqual(t, heap-fixed, int64(32<<20)/50, "of what is on disk")
	}
}

// TestReadsTakeWhatTheyReserve: queries that fill the pool, each holding the chunks of many series with gaps between them,
// take no more heap than they reserved.
func TestReadsTakeWhatTheyReserve(t *testing.T) {
	const most = 4 << 20
	s := newStore()
	obj, _ := s.put(t, "tenant/block/chunks/000001", 12<<20)
	r := NewRanges(s, mustOpen(t, t.TempDir(), 64<<20, roomy()), slog.New(slog.DiscardHandler), nil)
	reg := prometheus.NewRegistry()
	pool := budget.NewPool(budget.PoolConfig{Bytes: most}, reg)
	for _, warm := range []bool{false, true} { // from the bucket, then from disk
		var releases []func()
		heap := heapGrowth(func() any {
			var kept [][][]byte
			for i := int64(0); ; i++ {
				spans := make([]Span, 200)
				n := int64(0)
				for j := range spans {
					spans[j] = Span{(i*200+int64(j))*7000%(obj.Size-7000) + i*13, 1000 + int64(j)*10}
					n += spans[j].Length
				}
				if int64(len(releases)+1)*n > most {
					return kept
				}
				release, err := pool.Acquire(t.Context(), "tenant", n)
				require.NoError(t, err)
				releases = append(releases, release)
				data, err := r.Read(t.Context(), obj, spans)
				require.NoError(t, err)
				kept = append(kept, data)
			}
		})
		used := gathered(t, reg, "duramen_budget_pool_used_bytes")
		t.Logf("from disk %v: heap %d bytes, reserved %.0f: %.2f times", warm, heap, used, float64(heap)/used)
		require.Greater(t, used, 0.9*most)
		require.LessOrEqual(t, float64(heap), 1.2*used)
		for _, release := range releases {
			release()
		}
	}
	require.Zero(t, gathered(t, reg, "duramen_budget_pool_used_bytes"))
}

// gathered returns the value of a gauge.
func gathered(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}
