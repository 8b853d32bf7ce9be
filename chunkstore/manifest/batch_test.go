package manifest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
	"github.com/duramendb/duramen/internal/errkind"
)

// gate holds the first PutIfAbsent until it is opened.
type gate struct {
	bucket.Bucket

	once          sync.Once
	reached, open chan struct{}
}

func newGate(b bucket.Bucket) *gate {
	return &gate{Bucket: b, reached: make(chan struct{}), open: make(chan struct{})}
}

func (g *gate) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	g.once.Do(func() {
		close(g.reached)
		select {
		case <-g.open:
		case <-ctx.Done():
		}
	})
	return g.Bucket.PutIfAbsent(ctx, key, data)
}

// waiting is how many announcements of the tenant are queued.
func waiting(o *Owner) int {
	o.mu.Lock()
	c := o.tenants["acme"]
	o.mu.Unlock()
	c.queue.mu.Lock()
	defer c.queue.mu.Unlock()
	return len(c.queue.waiting)
}

func TestAddsDuringASwapGoIntoTheNextOneTogether(t *testing.T) {
	inner := bucket.NewInMemory()
	g := newGate(inner)
	o := newTestOwner(g, time.Now)
	const followers = 20
	var done sync.WaitGroup
	add := func(n int, want Added) {
		done.Go(func() {
			added, err := o.Add(t.Context(), "acme", testBlock(n))
			if err != nil || added != want {
				t.Errorf("block %d: %v, %v", n, added, err)
			}
		})
	}
	add(0, Added{Version: 1})
	<-g.reached
	for n := range followers {
		add(1+n, Added{Version: 2})
	}
	require.Eventually(t, func() bool { return waiting(o) == followers }, time.Minute, time.Millisecond)
	close(g.open)
	done.Wait()
	require.Len(t, requireHistory(t, inner, "acme", 2).Blocks, 1+followers)
}

// TestALeaderThatGivesUpLeavesTheOthersUnharmed cancels the one who writes for all.
func TestALeaderThatGivesUpLeavesTheOthersUnharmed(t *testing.T) {
	inner := bucket.NewInMemory()
	first := newGate(inner)
	o := newTestOwner(first, time.Now)
	ctx, cancel := context.WithCancel(t.Context())
	leader := make(chan error, 1)

	// The leader takes the followers into its own batch: they are queued before it begins.
	c, err := o.use("acme")
	require.NoError(t, err)
	require.NoError(t, c.lock(t.Context()))
	var done sync.WaitGroup
	const followers = 5
	for n := range followers {
		done.Go(func() {
			if _, err := o.Add(t.Context(), "acme", testBlock(1+n)); err != nil {
				t.Errorf("block %d: %v", 1+n, err)
			}
		})
	}
	require.Eventually(t, func() bool { return waiting(o) == followers }, time.Minute, time.Millisecond)
	r := &request{edit: addition{testBlock(0)}, done: make(chan result, 1)}
	c.queue.push(r)
	go func() {
		_, err := o.lead(ctx, c, r)
		c.unlock()
		leader <- err
	}()
	<-first.reached
	cancel()
	require.Equal(t, errkind.Canceled, errkind.Of(<-leader))
	done.Wait()
	o.release(c)
	m, err := o.Current(t.Context(), "acme")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(m.Blocks), followers)
}

func TestAWaiterWhoseContextEndsIsNotAdded(t *testing.T) {
	g := newGate(bucket.NewInMemory())
	o := newTestOwner(g, time.Now)
	var done sync.WaitGroup
	done.Go(func() {
		if _, err := o.Add(t.Context(), "acme", testBlock(0)); err != nil {
			t.Error(err)
		}
	})
	<-g.reached
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := o.Add(ctx, "acme", testBlock(1))
	require.Equal(t, errkind.Canceled, errkind.Of(err))
	require.Zero(t, waiting(o))
	_, err = o.Refresh(ctx, "acme")
	require.Equal(t, errkind.Canceled, errkind.Of(err))
	close(g.open)
	done.Wait()
	m, err := o.Current(t.Context(), "acme")
	require.NoError(t, err)
	require.Len(t, m.Blocks, 1)
}

func TestOneInvalidBlockDoesNotSpoilABatch(t *testing.T) {
	o := newTestOwner(bucket.NewInMemory(), time.Now)
	_, err := o.Add(t.Context(), "acme", Block{})
	require.Equal(t, errkind.Invalid, errkind.Of(err))
	_, err = o.Add(t.Context(), "../acme", testBlock(1))
	require.Equal(t, errkind.Invalid, errkind.Of(err))
}

func TestConcurrentRefreshesShareTheirRequests(t *testing.T) {
	bkt := faultbucket.New(bucket.NewInMemory(), nil)
	o := newTestOwner(bkt, time.Now)
	_, err := o.Current(t.Context(), "acme")
	require.NoError(t, err)
	before := len(bkt.Ops())

	c, err := o.use("acme")
	require.NoError(t, err)
	require.NoError(t, c.lock(t.Context()))
	const readers = 50
	var begun, done sync.WaitGroup
	for range readers {
		begun.Add(1)
		done.Go(func() {
			begun.Done()
			if _, err := o.Refresh(t.Context(), "acme"); err != nil {
				t.Error(err)
			}
		})
	}
	begun.Wait()
	users := func() int {
		o.mu.Lock()
		defer o.mu.Unlock()
		return c.users
	}
	require.Eventually(t, func() bool { return users() == readers+1 }, time.Minute, time.Millisecond)
	c.unlock()
	done.Wait()
	o.release(c)
	require.Less(t, len(bkt.Ops())-before, readers/2)
}

func TestMemoryForManifestsIsBounded(t *testing.T) {
	bkt := bucket.NewInMemory()
	o := newTestOwner(bkt, time.Now)
	o.maxWeight = 10 * (tenantWeight + 2)
	for n := range 50 {
		for b := range 2 {
			_, err := o.Add(t.Context(), fmt.Sprintf("tenant-%02d", n), testBlock(b))
			require.NoError(t, err)
		}
		_, err := o.Current(t.Context(), "tenant-00")
		require.NoError(t, err)
	}
	require.Len(t, o.tenants, 10)
	require.Contains(t, o.tenants, "tenant-00", "what is in use stays")
	require.Equal(t, 10*(tenantWeight+2), o.weight)
	require.Equal(t, 20, o.blocks)
	m, err := o.Current(t.Context(), "tenant-20")
	require.NoError(t, err)
	require.Len(t, m.Blocks, 2, "what was forgotten is loaded again")
	added, err := o.Add(t.Context(), "tenant-30", testBlock(2))
	require.NoError(t, err)
	require.Equal(t, Added{Version: 3}, added)

	before := o.weight
	o.maxWeight *= 2
	_, err = o.Delete(t.Context(), "tenant-30", Deletion{Selectors: []string{"up"}})
	require.NoError(t, err)
	require.Equal(t, before+1, o.weight, "deletions take memory as well")
}

func TestTenants(t *testing.T) {
	bkt := bucket.NewInMemory()
	o := newTestOwner(bkt, time.Now)
	tenants, err := o.Tenants(t.Context())
	require.NoError(t, err)
	require.Empty(t, tenants)
	for _, id := range []string{"b", "a", "anonymous"} {
		_, err := o.Add(t.Context(), id, testBlock(1))
		require.NoError(t, err)
	}
	for _, key := range []string{"file-at-the-top", "__mimir_cluster/seed.json", "~duramen/probe/x", "with blank/x"} {
		buckettest.Put(t, bkt, key, "x")
	}
	tenants, err = o.Tenants(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"a", "anonymous", "b"}, tenants)
	faulty := newTestOwner(faultbucket.New(bkt, faultbucket.On("List", faultbucket.Before)), time.Now)
	_, err = faulty.Tenants(t.Context())
	require.Equal(t, errkind.Unavailable, errkind.Of(err))
}
