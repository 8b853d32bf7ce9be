package cache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

// sized is a cache of numbers that stand for their own size, for room entries of size n.
func sized(room, n int64) *Memory[string, int64] {
	return NewMemory[string]("test", room*(n+entryOverhead), func(v int64) int64 { return v }, nil)
}

func give[V any](v V) func(context.Context) (V, error) {
	return func(context.Context) (V, error) { return v, nil }
}

// asked puts key into the cache, or finds it there, and reports whether it was there.
func asked(t *testing.T, m *Memory[string, int64], key string, v int64) (hit bool) {
	t.Helper()
	hit = true
	got, err := m.Get(t.Context(), key, func(context.Context) (int64, error) { hit = false; return v, nil })
	require.NoError(t, err)
	require.Equal(t, v, got)
	return hit
}

func TestMemoryKeepsItsBudget(t *testing.T) {
	m := sized(10, 100)
	for i := range 100 {
		require.False(t, asked(t, m, fmt.Sprint(i), 100))
		require.LessOrEqual(t, m.once.bytes+m.again.bytes, m.budget)
	}
	require.Len(t, m.entries, 10)
	require.Equal(t, float64(m.budget), testutil.ToFloat64(m.metrics.used))
	require.Equal(t, 90.0, testutil.ToFloat64(m.metrics.evicted))
	require.True(t, asked(t, m, "99", 100))
	require.False(t, asked(t, m, "0", 100))

	m.Purge()
	require.Empty(t, m.entries)
	require.Zero(t, m.once.bytes+m.again.bytes)
}

func TestMemoryKeepsWhatIsAskedForAgainThroughAScan(t *testing.T) {
	m := sized(100, 100)
	for range 2 {
		for i := range 50 {
			asked(t, m, fmt.Sprint("hot ", i), 100)
		}
	}
	for i := range 10_000 {
		asked(t, m, fmt.Sprint("scan ", i), 100)
	}
	for i := range 50 {
		require.True(t, asked(t, m, fmt.Sprint("hot ", i), 100), i)
	}
}

func TestMemoryForgetsWhatWasAskedForAgainLongAgo(t *testing.T) {
	m := sized(100, 100)
	for round := range 10 {
		for range 4 {
			for i := range 50 {
				asked(t, m, fmt.Sprint(round, i), 100)
			}
		}
	}
	require.True(t, asked(t, m, fmt.Sprint(9, 0), 100))
	require.False(t, asked(t, m, fmt.Sprint(0, 0), 100))
}

func TestMemoryPassesWhatIsTooLarge(t *testing.T) {
	m := sized(2, 100)
	asked(t, m, "small", 100)
	require.False(t, asked(t, m, "large", 1000))
	require.False(t, asked(t, m, "large", 1000))
	require.True(t, asked(t, m, "small", 100))
	require.Equal(t, 2.0, testutil.ToFloat64(m.metrics.passed))
	// One that takes nearly everything is kept and found again, alone.
	require.False(t, asked(t, m, "nearly", 200))
	require.True(t, asked(t, m, "nearly", 200))
	require.True(t, asked(t, m, "nearly", 200))
}

func TestMemoryLoadsOnceForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := sized(10, 100)
		loads, begin := 0, make(chan struct{})
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				v, err := m.Get(t.Context(), "key", func(context.Context) (int64, error) { loads++; <-begin; return 7, nil })
				if err != nil || v != 7 {
					t.Errorf("%d, %v", v, err)
				}
			})
		}
		synctest.Wait()
		close(begin)
		wg.Wait()
		require.Equal(t, 1, loads)
	})
}

func TestMemoryLoadThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := sized(10, 100)
		broken := errors.New("broken")
		loads, begin := 0, make(chan struct{})
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				_, err := m.Get(t.Context(), "key", func(context.Context) (int64, error) { loads++; <-begin; return 0, broken })
				if !errors.Is(err, broken) {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		close(begin)
		wg.Wait()
		require.Equal(t, 1, loads, "those who waited share the error")
		require.False(t, asked(t, m, "key", 5), "and it is not kept")
		require.True(t, asked(t, m, "key", 5))
	})
}

func TestMemoryLoaderThatGoesAwayFailsNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := sized(10, 100)
		ctx, cancel := context.WithCancel(t.Context())
		leader, follower, gone := make(chan error, 1), make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := m.Get(ctx, "key", func(ctx context.Context) (int64, error) { <-ctx.Done(); return 0, ctx.Err() })
			leader <- err
		}()
		synctest.Wait()
		go func() {
			v, err := m.Get(t.Context(), "key", give[int64](7))
			if v != 7 {
				t.Errorf("got %d", v)
			}
			follower <- err
		}()
		impatient, leave := context.WithCancel(t.Context())
		go func() {
			_, err := m.Get(impatient, "key", give[int64](8))
			gone <- err
		}()
		synctest.Wait()
		leave()
		require.ErrorIs(t, <-gone, context.Canceled, "who waits leaves at once")
		require.Empty(t, leader)

		cancel()
		require.ErrorIs(t, <-leader, context.Canceled)
		require.NoError(t, <-follower)
		require.True(t, asked(t, m, "key", 7))
	})
}

func TestMemoryDiscard(t *testing.T) {
	m := sized(10, 100)
	asked(t, m, "key", 1)
	m.Discard("key")
	m.Discard("never there")
	require.False(t, asked(t, m, "key", 2))

	// A load that began before is not kept either: it may have read what is bad.
	_, err := m.Get(t.Context(), "other", func(context.Context) (int64, error) {
		m.Discard("other")
		return 1, nil
	})
	require.NoError(t, err)
	require.False(t, asked(t, m, "other", 2))
	require.True(t, asked(t, m, "other", 2))
}

func TestMemoryMeasuresAgain(t *testing.T) {
	grown := map[string]int64{}
	m := NewMemory[string]("test", 10*(100+entryOverhead), func(key string) int64 { return 100 + grown[key] }, nil)
	for i := range 10 {
		key := fmt.Sprint(i)
		_, err := m.Get(t.Context(), key, give(key))
		require.NoError(t, err)
	}
	require.Len(t, m.entries, 10)
	grown["9"] = 3 * (100 + entryOverhead)
	m.Measure("9")
	m.Measure("never there")
	require.Len(t, m.entries, 7, "others left for it")
	require.Contains(t, m.entries, "9")
	require.Equal(t, float64(m.budget), testutil.ToFloat64(m.metrics.used))
	grown["9"] = m.budget
	m.Measure("9")
	require.Empty(t, m.entries, "larger than everything")
	require.Zero(t, m.once.bytes+m.again.bytes)
}

func TestMemoryLoaderThatPanics(t *testing.T) {
	m := sized(10, 100)
	require.Panics(t, func() {
		_, _ = m.Get(t.Context(), "key", func(context.Context) (int64, error) { panic("loader") })
	})
	require.False(t, asked(t, m, "key", 1))
}

func TestMemoryUnderConcurrency(t *testing.T) {
	m := NewMemory[int]("test", 20*(50+entryOverhead), func(v int) int64 { return int64(v % 100) }, nil)
	var wg sync.WaitGroup
	var loads atomic.Int64
	for seed := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(seed)))
			for range 2000 {
				key := r.IntN(60)
				v, err := m.Get(t.Context(), key, func(context.Context) (int, error) { loads.Add(1); return key * 3, nil })
				if err != nil || v != key*3 {
					t.Errorf("%d: %d, %v", key, v, err)
				}
				if r.IntN(20) == 0 {
					m.Discard(key)
				}
			}
		})
	}
	wg.Wait()
	sum := int64(0)
	for _, e := range m.entries {
		sum += e.bytes
	}
	require.Equal(t, sum, m.once.bytes+m.again.bytes)
	require.LessOrEqual(t, sum, m.budget)
	require.Positive(t, loads.Load())
}

func TestMemoriesShareARegistry(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	for _, name := range []string{"directories", "pages"} {
		m := NewMemory[int](name, 1000, func(int) int64 { return 1 }, reg)
		_, err := m.Get(t.Context(), 1, give(1))
		require.NoError(t, err)
	}
	n, err := testutil.GatherAndCount(reg, "duramen_cache_memory_used_bytes", "duramen_cache_memory_misses_total")
	require.NoError(t, err)
	require.Equal(t, 4, n)
}

func TestMemoryHitAllocatesNothing(t *testing.T) {
	m := sized(10, 100)
	asked(t, m, "key", 1)
	ctx, load := t.Context(), give[int64](1)
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = m.Get(ctx, "key", load) }))
}

func BenchmarkMemoryHit(b *testing.B) {
	m := NewMemory[string]("bench", 1<<30, func(int) int64 { return 100 }, nil)
	keys := make([]string, 10_000)
	for i := range keys {
		keys[i] = fmt.Sprintf("tenant/01HZZZZZZZZZZZZZZZZZZZZZZZ/%d", i)
		_, _ = m.Get(b.Context(), keys[i], give(i))
	}
	ctx, load, i := b.Context(), give(1), 0
	b.ReportAllocs()
	for b.Loop() {
		_, _ = m.Get(ctx, keys[i%len(keys)], load)
		i += 7
	}
}
