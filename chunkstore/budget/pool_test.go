package budget

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/internal/errkind"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// line is a queue of requests in the order in which they came, and the order in which they were served.
type line struct {
	t    *testing.T
	pool *Pool

	mu     sync.Mutex
	served []string
	wg     sync.WaitGroup
}

// ask queues a request that, once served, holds its bytes for a second. It returns when the request waits or has its
// bytes.
func (l *line) ask(tenant string, n int64) {
	l.wg.Go(func() {
		release, err := l.pool.Acquire(l.t.Context(), tenant, n)
		if err != nil {
			l.t.Errorf("%s: %v", tenant, err)
			return
		}
		l.mu.Lock()
		l.served = append(l.served, tenant)
		l.mu.Unlock()
		time.Sleep(time.Second)
		release()
	})
	synctest.Wait()
}

func TestASmallRequestWaitsOneTurnBehindAnotherTenantsMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{t: t, pool: NewPool(PoolConfig{Bytes: 800, QueryBytes: 800}, nil)}
		for range 64 {
			l.ask("hog", 800)
		}
		l.ask("small", 10)
		l.wg.Wait()
		require.Len(t, l.served, 65)
		// The first holds the memory, the second has paid for its place; then it is the other tenant's turn.
		require.LessOrEqual(t, slices.Index(l.served, "small"), 2, "%v", l.served)
	})
}

func TestTenantsGetEqualBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{t: t, pool: NewPool(PoolConfig{Bytes: 800, QueryBytes: 800}, nil)}
		l.ask("first", 800)
		for range 16 {
			l.ask("large", 800)
		}
		for range 64 {
			l.ask("small", 200)
		}
		l.wg.Wait()
		// While both wait, four small ones are served for each large one.
		for i, seen := 0, map[string]int64{}; i < 60; i++ {
			seen[l.served[i]] += map[string]int64{"first": 0, "large": 800, "small": 200}[l.served[i]]
			require.InDelta(t, seen["large"], seen["small"], 1600, "after %d: %v", i, l.served[:i+1])
		}
	})
}

func TestALargeRequestIsNotStarvedBySmallOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := NewPool(PoolConfig{Bytes: 1000, QueryBytes: 1000}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 20 { // each asks again and again, so that the pool is never empty by itself
			wg.Go(func() {
				for ctx.Err() == nil {
					release, err := pool.Acquire(ctx, fmt.Sprintf("small-%d", i), 100)
					if err != nil {
						return
					}
					time.Sleep(time.Duration(900+10*i) * time.Millisecond)
					release()
				}
			})
		}
		synctest.Wait()
		start := time.Now()
		release, err := pool.Acquire(t.Context(), "large", 1000)
		require.NoError(t, err)
		require.Less(t, time.Since(start), 30*time.Second)
		release()
		cancel()
		wg.Wait()
	})
}

func TestTooLargeForOneQuery(t *testing.T) {
	pool := NewPool(PoolConfig{Bytes: 1000, QueryBytes: 400}, nil)
	_, err := pool.Acquire(t.Context(), "a", 401)
	require.Equal(t, errkind.Unprocessable, errkind.Of(err))
	require.ErrorContains(t, err, "401 bytes")
	require.ErrorContains(t, err, "400 (chunkstore.memory.query_share)")
	release, err := pool.Acquire(t.Context(), "a", 400)
	require.NoError(t, err)
	release()
}

func TestWaitingHasAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := NewPool(PoolConfig{Bytes: 10, QueryBytes: 10, MaxWait: 3 * time.Second}, nil)
		release, err := pool.Acquire(t.Context(), "a", 10)
		require.NoError(t, err)
		start := time.Now()
		_, err = pool.Acquire(t.Context(), "b", 1)
		require.Equal(t, 3*time.Second, time.Since(start))
		require.Equal(t, errkind.Limited, errkind.Of(err))
		require.Equal(t, 3*time.Second, errkind.RetryAfter(err))
		require.ErrorContains(t, err, "3s (chunkstore.memory.max_wait)")
		require.Equal(t, 1.0, testutil.ToFloat64(pool.metrics.refusedTime))
		release()
		requireEmpty(t, pool)
	})
}

func TestWhoGoesAwayLeavesTheQueueAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := NewPool(PoolConfig{Bytes: 10, QueryBytes: 10}, nil)
		release, err := pool.Acquire(t.Context(), "a", 5)
		require.NoError(t, err)

		// The first in line needs more than there is; the one behind it would fit.
		ctx, cancel := context.WithCancel(t.Context())
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { _, err := pool.Acquire(ctx, "a", 10); first <- err }()
		synctest.Wait()
		go func() {
			release, err := pool.Acquire(t.Context(), "a", 5)
			if err == nil {
				release()
			}
			second <- err
		}()
		synctest.Wait()
		require.Equal(t, 2.0, testutil.ToFloat64(pool.metrics.waiting))
		require.Empty(t, second)

		cancel()
		synctest.Wait()
		err = <-first
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorContains(t, err, "wait for 10 bytes of chunk buffers, of which there are 10 (chunkstore.memory.*)")
		require.NoError(t, <-second, "nobody stands before it any more")
		release()
		release() // again: nothing
		requireEmpty(t, pool)
	})
}

// TestNothingIsLost: whatever comes, waits, gives up and leaves, the cap holds and in the end all bytes are back.
func TestNothingIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := NewPool(PoolConfig{Bytes: 1000, QueryBytes: 700, MaxWait: 40 * time.Second}, nil)
		var wg sync.WaitGroup
		for i := range 200 {
			r := rand.New(rand.NewPCG(7, uint64(i)))
			wg.Go(func() {
				for range 5 {
					time.Sleep(time.Duration(r.IntN(20)) * time.Second)
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+r.IntN(60))*time.Second)
					release, err := pool.Acquire(ctx, fmt.Sprint("tenant-", i%7), 1+r.Int64N(700))
					if err == nil {
						pool.mu.Lock()
						over := pool.used > 1000
						pool.mu.Unlock()
						if over {
							t.Error("more is reserved than there is")
						}
						time.Sleep(time.Duration(r.IntN(3)) * time.Second)
						release()
					}
					cancel()
				}
			})
		}
		wg.Wait()
		requireEmpty(t, pool)
	})
}

func requireEmpty(t *testing.T, p *Pool) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	require.Zero(t, p.used)
	require.Zero(t, p.waiting)
	require.Empty(t, p.queues)
	require.Empty(t, p.turns)
	require.Zero(t, testutil.ToFloat64(p.metrics.used))
	require.Zero(t, testutil.ToFloat64(p.metrics.waiting))
}

func BenchmarkAcquire(b *testing.B) {
	pool := NewPool(PoolConfig{Bytes: 1 << 30}, nil)
	for b.Loop() {
		release, err := pool.Acquire(b.Context(), "tenant", 1<<20)
		if err != nil {
			b.Fatal(err)
		}
		release()
	}
}

// TestATenantWhoHoldsNothingDoesNotWaitForOneWhoDoes: long queries of one tenant leave a part of the pool to others.
func TestATenantWhoHoldsNothingDoesNotWaitForOneWhoDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(PoolConfig{Bytes: 800, QueryBytes: 200, MaxWait: time.Second}, nil)
		var held []func()
		for range 3 {
			release, err := p.Acquire(t.Context(), "large", 200)
			require.NoError(t, err)
			held = append(held, release)
		}
		_, ok := p.TryAcquire(150)
		require.False(t, ok, "the rest is not for who holds some")
		got := make(chan error)
		go func() {
			release, err := p.Acquire(t.Context(), "large", 200)
			if err == nil {
				held = append(held, release)
			}
			got <- err
		}()
		synctest.Wait()
		small, err := p.Acquire(t.Context(), "small", 100)
		require.NoError(t, err)
		again, err := p.Acquire(t.Context(), "small", 1)
		require.ErrorContains(t, err, "waited 1s")
		require.Nil(t, again)
		require.ErrorContains(t, <-got, "waited 1s")
		go func() {
			_, err := p.Acquire(t.Context(), "large", 200)
			got <- err
		}()
		synctest.Wait()
		small()
		held[0]()
		require.NoError(t, <-got)
	})
}
