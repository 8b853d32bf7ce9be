package manifest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
	"github.com/duramendb/duramen/internal/errkind"
)

func swaps(o *Owner, outcome string) int {
	return int(testutil.ToFloat64(o.metrics.swaps.WithLabelValues(outcome)))
}

// TestOwnSuccessThatLooksLikeDefeat loses the answer of the put that creates a version.
func TestOwnSuccessThatLooksLikeDefeat(t *testing.T) {
	bkt := faultbucket.New(bucket.NewInMemory(), faultbucket.On("PutIfAbsent", faultbucket.After))
	o := newTestOwner(bkt, time.Now)
	for n := range 3 {
		added, err := o.Add(t.Context(), "acme", testBlock(n))
		require.NoError(t, err)
		require.Equal(t, Added{Version: uint64(n) + 1}, added)
	}
	require.Equal(t, 3, swaps(o, swapRecovered))
	require.Len(t, buckettest.Keys(t, bkt, Prefix("acme"), true), 3, "no version was written twice")
}

// retrying is a store whose client repeats a put whose first answer was lost, and gets a conflict with itself.
type retrying struct{ bucket.Bucket }

func (b retrying) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	if err := b.Bucket.PutIfAbsent(ctx, key, data); err != nil {
		return err
	}
	return b.Bucket.PutIfAbsent(ctx, key, data)
}

func TestConflictWithOneself(t *testing.T) {
	o := newTestOwner(retrying{bucket.NewInMemory()}, time.Now)
	added, err := o.Add(t.Context(), "acme", testBlock(1))
	require.NoError(t, err)
	require.Equal(t, Added{Version: 1}, added)
}

func TestRivalsTakeTurns(t *testing.T) {
	bkt := bucket.NewInMemory()
	a, b := newTestOwner(bkt, time.Now), newTestOwner(bkt, time.Now)
	for _, o := range []*Owner{a, b} {
		_, err := o.Current(t.Context(), "acme")
		require.NoError(t, err)
	}
	_, err := a.Add(t.Context(), "acme", testBlock(1))
	require.NoError(t, err)
	added, err := b.Add(t.Context(), "acme", testBlock(2))
	require.NoError(t, err)
	require.Equal(t, Added{Version: 2}, added, "the loser builds on the winner's version")
	require.Equal(t, 1, swaps(b, swapLost))
	added, err = b.Add(t.Context(), "acme", testBlock(1))
	require.NoError(t, err)
	require.Equal(t, Added{Version: 1}, added)

	m, err := a.Current(t.Context(), "acme")
	require.NoError(t, err)
	require.EqualValues(t, 1, m.Version, "Current does not ask")
	m, err = a.Refresh(t.Context(), "acme")
	require.NoError(t, err)
	require.EqualValues(t, 2, m.Version)
	require.Len(t, m.Blocks, 2)
}

func TestBucketFailureIsNotRemembered(t *testing.T) {
	bkt := faultbucket.New(bucket.NewInMemory(), nil)
	_, err := newTestOwner(bkt, time.Now).Add(t.Context(), "acme", testBlock(1))
	require.NoError(t, err)
	for _, method := range []string{"List", "Get"} {
		o := newTestOwner(bkt, time.Now)
		bkt.SetPlan(faultbucket.On(method, faultbucket.Before))
		_, err = o.Current(t.Context(), "acme")
		require.ErrorIs(t, err, faultbucket.ErrInjected)
		require.Equal(t, errkind.Unavailable, errkind.Of(err))
		bkt.SetPlan(nil)
		m, err := o.Current(t.Context(), "acme")
		require.NoError(t, err)
		require.EqualValues(t, 1, m.Version)
	}
	// A body that arrives in part is no damage either.
	o := newTestOwner(bkt, time.Now)
	bkt.SetPlan(faultbucket.On("Get", faultbucket.Truncate))
	_, err = o.Current(t.Context(), "acme")
	require.Equal(t, errkind.Unavailable, errkind.Of(err), "%v", err)
}

// TestDamageOnTheWayPasses: a version that is damaged once on its way is read again.
func TestDamageOnTheWayPasses(t *testing.T) {
	bkt := bucket.NewInMemory()
	_, err := newTestOwner(bkt, time.Now).Add(t.Context(), "acme", testBlock(1))
	require.NoError(t, err)
	for i := range len(buckettest.Get(t, bkt, Key("acme", 1))) {
		o := newTestOwner(&flippingBucket{Bucket: bkt, at: i}, time.Now)
		m, err := o.Current(t.Context(), "acme")
		require.NoError(t, err, "byte %d", i)
		require.Len(t, m.Blocks, 1)
	}
}

// flippingBucket flips a bit of the first object that is read.
type flippingBucket struct {
	bucket.Bucket
	at   int
	done bool
}

func (b *flippingBucket) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	body, err := b.Bucket.Get(ctx, key)
	if err != nil || b.done {
		return body, err
	}
	defer body.Close()
	b.done = true
	data, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	data = bytes.Clone(data)
	data[b.at] ^= 0x10
	return io.NopCloser(bytes.NewReader(data)), nil
}

func TestKnownManifestOutlivesABucketFailure(t *testing.T) {
	bkt := faultbucket.New(bucket.NewInMemory(), nil)
	o := newTestOwner(bkt, time.Now)
	_, err := o.Add(t.Context(), "acme", testBlock(1))
	require.NoError(t, err)
	bkt.SetPlan(faultbucket.Seeded(0, 1, faultbucket.Before))
	_, err = o.Refresh(t.Context(), "acme")
	require.Equal(t, errkind.Unavailable, errkind.Of(err))
	m, err := o.Current(t.Context(), "acme")
	require.NoError(t, err)
	require.EqualValues(t, 1, m.Version)
}

func TestUnreadableNewestVersionIsNeverSkipped(t *testing.T) {
	for name, damage := range map[string]func(*testing.T, bucket.Bucket, string){
		"flipped": func(t *testing.T, b bucket.Bucket, key string) {
			data := []byte(buckettest.Get(t, b, key))
			data[len(data)/2] ^= 1
			buckettest.Put(t, b, key, string(data))
		},
		"empty": func(t *testing.T, b bucket.Bucket, key string) { buckettest.Put(t, b, key, "") },
		"of another tenant": func(t *testing.T, b bucket.Bucket, key string) {
			m := testManifest()
			m.Tenant, m.Version = "other", 3
			buckettest.Put(t, b, key, string(encode(t, m)))
		},
		"an old version": func(t *testing.T, b bucket.Bucket, key string) {
			buckettest.Put(t, b, key, buckettest.Get(t, b, Key("acme", 2)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			bkt := bucket.NewInMemory()
			writer, reader := newTestOwner(bkt, time.Now), newTestOwner(bkt, time.Now)
			for n := range 3 {
				if n == 2 {
					_, err := reader.Current(t.Context(), "acme")
					require.NoError(t, err)
				}
				_, err := writer.Add(t.Context(), "acme", testBlock(n))
				require.NoError(t, err)
			}
			damage(t, bkt, Key("acme", 3))
			for _, o := range []*Owner{newTestOwner(bkt, time.Now), reader} {
				for range 2 {
					_, err := o.Refresh(t.Context(), "acme")
					require.Equal(t, errkind.Corrupt, errkind.Of(err), "%v", err)
					_, err = o.Current(t.Context(), "acme")
					require.Equal(t, errkind.Corrupt, errkind.Of(err), "a version from before would hide it")
					_, err = o.Add(t.Context(), "acme", testBlock(9))
					require.Equal(t, errkind.Corrupt, errkind.Of(err))
				}
				_, err := o.Current(t.Context(), "other-tenant")
				require.NoError(t, err, "it is this tenant's trouble alone")
			}
			require.Len(t, buckettest.Keys(t, bkt, Prefix("acme"), true), 3)
		})
	}
}

func TestAddFailsAtAnyOperationAndIsRepeated(t *testing.T) {
	operations := func() int {
		bkt := faultbucket.New(bucket.NewInMemory(), nil)
		_, err := newTestOwner(bkt, time.Now).Add(t.Context(), "acme", testBlock(1))
		require.NoError(t, err)
		return len(bkt.Ops())
	}()
	for _, fault := range []faultbucket.Fault{faultbucket.Before, faultbucket.After, faultbucket.Stall, faultbucket.Truncate} {
		for k := range operations {
			inner := bucket.NewInMemory()
			_, err := newTestOwner(inner, time.Now).Add(t.Context(), "acme", testBlock(0))
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			bkt := faultbucket.New(inner, func(op faultbucket.Op) faultbucket.Fault {
				if op.N != k {
					return faultbucket.None
				}
				if fault == faultbucket.Stall {
					cancel()
				}
				return fault
			})
			o := newTestOwner(bkt, time.Now)
			if _, err := o.Add(ctx, "acme", testBlock(1)); err != nil {
				require.Contains(t, []errkind.Kind{errkind.Unavailable, errkind.Canceled}, errkind.Of(err), "%v", err)
			}
			cancel()
			added, err := o.Add(t.Context(), "acme", testBlock(1))
			require.NoError(t, err, "%s at operation %d", fault, k)
			require.Equal(t, Added{Version: 2}, added)
			requireHistory(t, inner, "acme", 2)
		}
	}
}

// requireHistory checks that the versions 1 to n are there, each knowing the blocks of the one before.
func requireHistory(t *testing.T, bkt bucket.Bucket, tenantID string, n uint64) *Manifest {
	t.Helper()
	var want []string
	var last *Manifest
	for version := uint64(1); version <= n; version++ {
		want = append(want, Key(tenantID, version))
		m, err := Decode([]byte(buckettest.Get(t, bkt, Key(tenantID, version))))
		require.NoError(t, err)
		require.Equal(t, version, m.Version)
		if last != nil {
			for _, b := range last.Blocks {
				found, ok := m.Find(b.ULID)
				require.True(t, ok, "version %d lost block %s", version, b.ULID)
				require.Equal(t, b, *found)
			}
		}
		last = m
	}
	require.Equal(t, want, buckettest.Keys(t, bkt, Prefix(tenantID), true))
	return last
}

// TestManyOwnersOnAFaultyBucket is the property that all of this is for: whatever the bucket does, each Add that
// returned nil is in the last manifest exactly once, and the versions have no gap.
func TestManyOwnersOnAFaultyBucket(t *testing.T) {
	const owners, workers, blocks, tenants = 4, 3, 12, 2
	seed := faultbucket.Seed(t)
	for round := range uint64(4) {
		inner := bucket.NewInMemory()
		bkt := faultbucket.New(inner, faultbucket.Seeded(seed+round, 0.25,
			faultbucket.Before, faultbucket.After, faultbucket.Truncate, faultbucket.StallAfter))
		bkt.DelayListings(int(round)) //nolint:gosec // at most 3
		var (
			mu    sync.Mutex
			acked = map[string]map[ulid.ULID]uint64{}
			done  sync.WaitGroup
		)
		for i := range owners {
			o := newTestOwner(bkt, time.Now)
			for w := range workers {
				done.Go(func() {
					r := rand.New(rand.NewPCG(seed, round<<32+uint64(i*workers+w)))
					for n := range blocks {
						tenantID := fmt.Sprintf("tenant-%d", r.IntN(tenants))
						b := testBlock(r.IntN(2)*1000 + (i*workers+w)*blocks + n)
						if r.IntN(4) == 0 {
							b = testBlock(5000 + n) // one that the others announce as well
						}
						// Deadlines end the stalls.
						ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
						added, err := o.Add(ctx, tenantID, b)
						cancel()
						if err != nil {
							continue
						}
						mu.Lock()
						if acked[tenantID] == nil {
							acked[tenantID] = map[ulid.ULID]uint64{}
						}
						if before, again := acked[tenantID][b.ULID]; again && before != added.Version {
							t.Errorf("block %s: version %d, then %d", b.ULID, before, added.Version)
						}
						acked[tenantID][b.ULID] = added.Version
						mu.Unlock()
					}
				})
			}
		}
		done.Wait()
		for tenantID, blocks := range acked {
			m, err := newTestOwner(inner, time.Now).Current(t.Context(), tenantID)
			require.NoError(t, err)
			requireHistory(t, inner, tenantID, m.Version)
			for id, version := range blocks {
				found, ok := m.Find(id)
				require.True(t, ok, "acknowledged block %s is not listed", id)
				require.Equal(t, version, found.AddedVersion)
			}
			require.NoError(t, m.validate(), "each block is listed once")
		}
		require.NotEmpty(t, acked)
	}
}
