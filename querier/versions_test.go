package querier

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/tombstone"
	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
)

// moody are manifests in a bucket that a test takes away. It counts looks by tenant.
type moody struct {
	noDeletions

	mu     sync.Mutex
	err    error
	hang   bool
	newest uint64
	known  uint64
	looks  map[string]int
}

func (m *moody) set(change func(*moody)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(m)
}

func (*moody) Unlisted(context.Context, string) (ulid.ULID, error) { return ulid.ULID{}, nil }

func (m *moody) Known(string) *manifest.Manifest { return nil }

func (m *moody) Current(context.Context, string) (*manifest.Manifest, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &manifest.Manifest{Version: m.known}, nil
}

func (m *moody) Refresh(ctx context.Context, id string) (*manifest.Manifest, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.looks[id]++
	if m.hang {
		m.mu.Unlock()
		<-ctx.Done()
		m.mu.Lock()
		return nil, fmt.Errorf("bucket in Hamburg: %w", ctx.Err())
	}
	if m.err != nil {
		return nil, m.err
	}
	m.known = m.newest
	return &manifest.Manifest{Version: m.known}, nil
}

// withMoods runs a test with a poller or without, by a fake clock.
func withMoods(t *testing.T, polled bool, f func(t *testing.T, v *versions, m *moody)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := &moody{newest: 1, looks: map[string]int{}}
		v := newVersions(m, newRemembered("", nopLog), time.Now, newMetrics(nil).versions)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		if polled {
			wg.Go(func() { _ = v.run(ctx) })
		}
		f(t, v, m)
		cancel()
		wg.Wait()
	})
}

func TestManifestIsUsedForHalfAnHourWithoutTheBucket(t *testing.T) {
	for _, polled := range []bool{false, true} {
		withMoods(t, polled, func(t *testing.T, v *versions, m *moody) {
			_, err := v.pin(t.Context(), "a", 0)
			require.NoError(t, err)
			m.set(func(m *moody) { m.err = errkind.New(errkind.Unavailable, "bucket in Hamburg: connection refused") })
			for range 29 {
				time.Sleep(time.Minute)
				got, err := v.pin(t.Context(), "a", 0)
				require.NoError(t, err)
				require.EqualValues(t, 1, got.Version)
			}
			time.Sleep(time.Minute + time.Second)
			_, err = v.pin(t.Context(), "a", 0)
			require.Equal(t, errkind.Unavailable, errkind.Of(err))
			require.ErrorContains(t, err, "bucket in Hamburg")
			require.ErrorContains(t, err, "is 30m1s old, and 30m0s at most is used")
			require.InDelta(t, 1, testutil.ToFloat64(v.metrics.tooLate), 0)
			_, err = v.pin(t.Context(), "b", 0)
			require.Equal(t, errkind.Unavailable, errkind.Of(err), "nothing is known of a tenant that was never looked at")

			m.set(func(m *moody) { m.err, m.newest = nil, 2 })
			got, err := v.pin(t.Context(), "a", 0)
			require.NoError(t, err)
			require.EqualValues(t, 2, got.Version)
		})
	}
}

func TestBucketThatHangsDelaysAQueryLittle(t *testing.T) {
	for _, polled := range []bool{false, true} {
		withMoods(t, polled, func(t *testing.T, v *versions, m *moody) {
			_, err := v.pin(t.Context(), "a", 0)
			require.NoError(t, err)
			m.set(func(m *moody) { m.hang = true })
			waited := 0
			for range 200 {
				time.Sleep(500 * time.Millisecond)
				began := time.Now()
				_, err := v.pin(t.Context(), "a", 0)
				require.NoError(t, err)
				require.LessOrEqual(t, time.Since(began), lookPatience)
				if time.Since(began) > 0 {
					waited++
				}
			}
			require.LessOrEqual(t, waited, 30, "of 200 queries")
		})
	}
}

func TestDamagedManifestIsNotPaperedOver(t *testing.T) {
	withMoods(t, false, func(t *testing.T, v *versions, m *moody) {
		_, err := v.pin(t.Context(), "a", 0)
		require.NoError(t, err)
		m.set(func(m *moody) { m.err = errkind.New(errkind.Corrupt, "manifest 2 is damaged") })
		time.Sleep(time.Minute)
		_, err = v.pin(t.Context(), "a", 0)
		require.Equal(t, errkind.Corrupt, errkind.Of(err))

		// And a client that leaves gets no answer.
		m.set(func(m *moody) { m.err, m.hang = nil, true })
		time.Sleep(time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err = v.pin(ctx, "a", 0)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

func TestOnlyTenantsThatAreQueriedArePolled(t *testing.T) {
	withMoods(t, true, func(t *testing.T, v *versions, m *moody) {
		looks := func(id string) (n int) {
			m.set(func(m *moody) { n = m.looks[id]; m.looks[id] = 0 })
			return n
		}
		for _, id := range []string{"busy", "idle"} {
			_, err := v.pin(t.Context(), id, 0)
			require.NoError(t, err)
		}
		for range 10 {
			time.Sleep(time.Minute)
			_, err := v.pin(t.Context(), "busy", 0)
			require.NoError(t, err)
		}
		require.InDelta(t, 600/pollEvery.Seconds(), looks("busy"), 3)
		require.InDelta(t, pollFor.Seconds()/pollEvery.Seconds(), looks("idle"), 3)
		time.Sleep(time.Hour)
		looks("busy")
		time.Sleep(time.Hour)
		require.Zero(t, looks("busy"))
		v.mu.Lock()
		defer v.mu.Unlock()
		require.Empty(t, v.known, "what is too old to be used is forgotten")
		require.Zero(t, v.recent.Len())
	})
}

func TestTenantsRememberedAreBounded(t *testing.T) {
	v := newVersions(&moody{looks: map[string]int{}}, newRemembered("", nopLog), clock, newMetrics(nil).versions)
	for i := range mostKnown + 10 {
		v.query(fmt.Sprint(i), now)
	}
	require.Len(t, v.known, mostKnown)
	require.Equal(t, mostKnown, v.recent.Len())
	require.NotContains(t, v.known, "9")
	require.Contains(t, v.known, "10")
	require.Len(t, v.due(), mostPolled)
}

// distantBucket takes its time for each request.
type distantBucket struct {
	bucket.Bucket
	r *rand.Rand
	m sync.Mutex
}

func (b *distantBucket) wait() {
	b.m.Lock()
	d := 20*time.Millisecond + time.Duration(b.r.IntN(400))*time.Millisecond
	b.m.Unlock()
	time.Sleep(d)
}

func (b *distantBucket) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	b.wait()
	return b.Bucket.Get(ctx, key)
}

func (b *distantBucket) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	b.wait()
	return b.Bucket.PutIfAbsent(ctx, key, data)
}

func (b *distantBucket) List(ctx context.Context, prefix string, recursive bool, fn func(bucket.Object) error) error {
	b.wait()
	return b.Bucket.List(ctx, prefix, recursive, fn)
}

// TestBlockIsVisibleToAnotherProcessWithinFiveSeconds lists 200 blocks through one process and queries another, which
// shares nothing with it but the bucket, some of the time without a pause and some of the time after one.
func TestBlockIsVisibleToAnotherProcessWithinFiveSeconds(t *testing.T) {
	for _, polled := range []bool{true, false} {
		t.Run(fmt.Sprintf("polled %t", polled), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { visibility(t, polled) })
		})
	}
}

func visibility(t *testing.T, polled bool) {
	const flushes = 200
	r := rand.New(rand.NewPCG(1, 2))
	bkt := &distantBucket{Bucket: bucket.NewInMemory(), r: rand.New(rand.NewPCG(3, 4))}
	writer := manifest.NewOwner(bkt, time.Now, nopLog, nil)
	store := &visibleStore{t: t}
	q, err := New(testConfig(t), emptyRecent{t}, nil, store, manifest.NewOwner(bkt, time.Now, nopLog, nil), noLimits, time.Now,
		nopLog, nil)
	require.NoError(t, err)
	if polled {
		s := q.Service()
		require.NoError(t, s.Start(t.Context()))
		defer func() { require.NoError(t, s.Stop()) }()
	}
	old := time.Now().Add(-24 * time.Hour).UnixMilli()
	visible := func(id ulid.ULID) bool {
		sq, err := q.Queryable().Querier(old, old+hour)
		require.NoError(t, err)
		require.NoError(t, sq.Select(as(t, tenantID), false, nil, everything).Err())
		require.NoError(t, sq.Close())
		return store.has(id)
	}
	var worst, sum time.Duration
	for i := range flushes {
		time.Sleep(time.Duration(r.IntN(10_000)) * time.Millisecond)
		if r.IntN(20) == 0 {
			time.Sleep(20 * time.Minute) // nobody asks
		}
		id := blockID(uint64(i + 1))
		uploaded := time.Now()
		_, err := writer.Add(t.Context(), tenantID, manifest.Block{ULID: id, MinTime: old, MaxTime: old + hour, Level: 1})
		require.NoError(t, err)
		if r.IntN(4) == 0 {
			time.Sleep(time.Duration(r.IntN(4000)) * time.Millisecond)
		}
		var took time.Duration // until the first query that began late enough to see it
		for !visible(id) {
			time.Sleep(50 * time.Millisecond)
			took = time.Since(uploaded)
		}
		worst, sum = max(worst, took), sum+took
	}
	t.Logf("%d blocks of another process are visible to queries that begin %s after the upload on average, %s at worst",
		flushes, (sum / flushes).Round(time.Millisecond), worst.Round(time.Millisecond))
	require.Less(t, worst, 5*time.Second)
}

// visibleStore notes the blocks that it is asked for.
type visibleStore struct {
	t     *testing.T
	asked atomic.Pointer[[]manifest.Block]
}

func (s *visibleStore) Querier(
	_ string, blocks []manifest.Block, _ *tombstone.Set, _, _ int64,
) (storage.Querier, error) {
	s.asked.Store(&blocks)
	return &listQuerier{t: s.t}, nil
}

func (*visibleStore) ChunkQuerier(string, []manifest.Block, *tombstone.Set, int64, int64) (storage.ChunkQuerier, error) {
	return nil, errBroken
}

func (s *visibleStore) has(id ulid.ULID) bool {
	blocks := s.asked.Load()
	if blocks == nil {
		return false
	}
	for _, b := range *blocks {
		if b.ULID == id {
			return true
		}
	}
	return false
}

// TestBlocksWithoutAManifest: what nobody has compared with a manifest yet is not left out in silence.
func TestBlocksWithoutAManifest(t *testing.T) {
	rec := &fakeRecent{t: t, answer: func(duramenpb.View, int64, int64) (*listQuerier, duramenpb.Held, error) {
		return &listQuerier{}, duramenpb.Held{}, nil
	}}
	manifests := &fakeManifests{current: &manifest.Manifest{}, unlisted: blockID(7)}
	q := newQuerier(t, rec, &fakeStore{t: t}, manifests)
	h := q.Handler("/prometheus")
	old, recent := form("query=m", "time="+at(20*time.Hour)), form("query=m", "time="+at(time.Hour))

	w := do(t, h, http.MethodGet, "query", old)
	require.Equal(t, http.StatusServiceUnavailable, w.Code, w.Body)
	require.Contains(t, w.Body.String(), "block "+blockID(7).String()+" lies in the bucket")
	require.Contains(t, w.Body.String(), "manifest.reconcile_interval")
	require.Equal(t, http.StatusOK, do(t, h, http.MethodGet, "query", recent).Code, "it needs no manifest")

	manifests.unlisted = ulid.ULID{}
	require.Equal(t, http.StatusOK, do(t, h, http.MethodGet, "query", old).Code)
}
