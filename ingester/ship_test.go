package ingester

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

var errBucketDown = errors.New("bucket is down")

// failingBucket fails the operation with the given number, counted from 0, before or after it is applied.
type failingBucket struct {
	bucket.Bucket
	mu    sync.Mutex
	calls int
	fail  func(call int) (before, after bool)
}

func (b *failingBucket) do(op func() error) error {
	b.mu.Lock()
	before, after := b.fail(b.calls)
	b.calls++
	b.mu.Unlock()
	if before {
		return errBucketDown
	}
	if err := op(); err != nil {
		return err
	}
	if after {
		return errBucketDown
	}
	return nil
}

func (b *failingBucket) Get(ctx context.Context, key string) (r io.ReadCloser, err error) {
	return r, b.do(func() error { r, err = b.Bucket.Get(ctx, key); return err })
}

func (b *failingBucket) Stat(ctx context.Context, key string) (o bucket.Object, err error) {
	return o, b.do(func() error { o, err = b.Bucket.Stat(ctx, key); return err })
}

func (b *failingBucket) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	return b.do(func() error { return b.Bucket.Put(ctx, key, r, size) })
}

func (b *failingBucket) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	return b.do(func() error { return b.Bucket.PutIfAbsent(ctx, key, data) })
}

func (b *failingBucket) List(ctx context.Context, prefix string, recursive bool, fn func(bucket.Object) error) error {
	return b.do(func() error { return b.Bucket.List(ctx, prefix, recursive, fn) })
}

func (b *failingBucket) Delete(ctx context.Context, keys ...string) error {
	return b.do(func() error { return b.Bucket.Delete(ctx, keys...) })
}

const shipTenant = "team-a"

// shipWith makes a shipper as a new process would: with a manifest owner that has to read the bucket first.
func shipWith(bkt bucket.Bucket, now func() time.Time) (*shipper, *manifest.Owner) {
	owner := manifest.NewOwner(bkt, now, discardLog(), prometheus.NewRegistry())
	return newShipper(bkt, owner, "ingester-1", now, discardLog(), prometheus.NewRegistry()), owner
}

// requireShipped checks that the manifest, read anew, lists each block once and that the bucket holds them whole.
func requireShipped(t *testing.T, bkt bucket.Bucket, l *localBlocks, blocks []*tsdb.Block) {
	t.Helper()
	_, owner := shipWith(bkt, time.Now)
	m, err := owner.Current(t.Context(), shipTenant)
	require.NoError(t, err)
	require.Len(t, m.Blocks, len(blocks))
	listed := map[ulid.ULID]manifest.Block{}
	for _, b := range m.Blocks {
		listed[b.ULID] = b
	}
	for _, b := range blocks {
		id := b.Meta().ULID
		require.Contains(t, listed, id)
		require.Equal(t, b.Meta().Stats.NumSamples, listed[id].Samples)
		require.Equal(t, "ingester-1", listed[id].Writer)
		require.NoError(t, block.Verify(t.Context(), bkt, shipTenant, id))
		version, ok := l.listedVersion(id)
		require.True(t, ok)
		require.Equal(t, listed[id].AddedVersion, version)
	}
	require.Empty(t, l.unshipped(blocks))
}

func TestShip(t *testing.T) {
	dir, _ := cutBlocks(t, 3)
	db, l := openLocal(t, dir, time.Now)
	bkt := bucket.NewInMemory()
	s, owner := shipWith(bkt, time.Now)
	require.Len(t, l.unshipped(db.Blocks()), 3)
	require.NoError(t, s.ship(t.Context(), shipTenant, l, db.Blocks()))
	requireShipped(t, bkt, l, db.Blocks())
	require.Zero(t, s.nextAttempt(shipTenant))
	before, err := owner.Current(t.Context(), shipTenant)
	require.NoError(t, err)
	require.NoError(t, s.ship(t.Context(), shipTenant, l, db.Blocks()))
	after, err := owner.Current(t.Context(), shipTenant)
	require.NoError(t, err)
	require.Equal(t, before.Version, after.Version, "shipping again changes nothing")

	// A restart knows nothing and learns it from the manifest, without an upload.
	again, err := openLocalBlocks(dir, time.Now, 12*time.Hour)
	require.NoError(t, err)
	s, _ = shipWith(bkt, time.Now)
	s.upload = func(context.Context, bucket.Bucket, string, string, string) (manifest.Block, error) {
		return manifest.Block{}, errors.New("uploaded what the manifest lists")
	}
	require.NoError(t, s.ship(t.Context(), shipTenant, again, db.Blocks()))
	requireShipped(t, bkt, again, db.Blocks())
}

// Each operation of the bucket fails once, without and with effect; the next attempt is made by the same process or by
// a new one. Every time all blocks must end up listed once and whole, and none may be deletable before.
func TestShipSurvivesEveryFailedOperation(t *testing.T) {
	dir, _ := cutBlocks(t, 2)
	now := time.UnixMilli(diskStart).Add(100 * time.Hour)
	clock := func() time.Time { return now }
	db, _ := openLocal(t, dir, clock)
	blocks := db.Blocks()
	never := func(int) (bool, bool) { return false, false }

	count := &failingBucket{Bucket: bucket.NewInMemory(), fail: never}
	s, _ := shipWith(count, clock)
	l, err := openLocalBlocks(t.TempDir(), clock, 12*time.Hour)
	require.NoError(t, err)
	require.NoError(t, s.ship(t.Context(), shipTenant, l, blocks))
	require.Greater(t, count.calls, 8)

	for n := range count.calls {
		for _, applied := range []bool{false, true} {
			for _, restart := range []bool{false, true} {
				t.Run(fmt.Sprintf("call %d applied=%v restart=%v", n, applied, restart), func(t *testing.T) {
					bkt := &failingBucket{Bucket: bucket.NewInMemory(), fail: func(call int) (bool, bool) {
						return call == n && !applied, call == n && applied
					}}
					s, _ := shipWith(bkt, clock)
					state := t.TempDir()
					l, err := openLocalBlocks(state, clock, 12*time.Hour)
					require.NoError(t, err)
					err = s.ship(t.Context(), shipTenant, l, blocks)
					// The failed call may have been one that can be done without, or one that was settled by reading.
					if err != nil {
						require.ErrorContains(t, err, shipTenant)
						require.Equal(t, clock().Add(shipRetryFirst), s.nextAttempt(shipTenant))
						require.NotEmpty(t, l.unshipped(blocks))
					}
					require.Empty(t, l.deletable(blocks), "not listed for an hour")
					if restart {
						s, _ = shipWith(bkt, clock)
						l, err = openLocalBlocks(state, clock, 12*time.Hour)
						require.NoError(t, err)
					}
					require.NoError(t, s.ship(t.Context(), shipTenant, l, blocks))
					require.Zero(t, s.nextAttempt(shipTenant))
					requireShipped(t, bkt, l, blocks)
					require.Empty(t, l.deletable(blocks))
				})
			}
		}
	}
}

func TestOneBadBlockDoesNotStopTheOthers(t *testing.T) {
	dir, _ := cutBlocks(t, 3)
	db, l := openLocal(t, dir, time.Now)
	bkt := bucket.NewInMemory()
	s, _ := shipWith(bkt, time.Now)
	bad := db.Blocks()[0].Meta().ULID
	upload := s.upload
	s.upload = func(ctx context.Context, bkt bucket.Bucket, tenant, dir, writer string) (manifest.Block, error) {
		if bytes.Contains([]byte(dir), []byte(bad.String())) {
			return manifest.Block{}, errBucketDown
		}
		return upload(ctx, bkt, tenant, dir, writer)
	}
	err := s.ship(t.Context(), shipTenant, l, db.Blocks())
	require.ErrorIs(t, err, errBucketDown)
	require.ErrorContains(t, err, bad.String())
	left := l.unshipped(db.Blocks())
	require.Len(t, left, 1)
	require.Equal(t, bad, left[0].Meta().ULID)
}

func TestShipPausesLongerEachTime(t *testing.T) {
	dir, _ := cutBlocks(t, 1)
	now := time.Unix(1_800_000_000, 0)
	clock := func() time.Time { return now }
	db, l := openLocal(t, dir, clock)
	down := func(int) (before, after bool) { return true, false }
	s, _ := shipWith(&failingBucket{Bucket: bucket.NewInMemory(), fail: down}, clock)
	var pauses []time.Duration
	for range 10 {
		require.Error(t, s.ship(t.Context(), shipTenant, l, db.Blocks()))
		pauses = append(pauses, s.nextAttempt(shipTenant).Sub(now))
	}
	require.Equal(t, shipRetryFirst, pauses[0])
	require.Equal(t, 2*shipRetryFirst, pauses[1])
	require.Equal(t, shipRetryMost, pauses[9])
	s.forget(shipTenant)
	require.Zero(t, s.nextAttempt(shipTenant))
}

func TestCancelledShipStops(t *testing.T) {
	dir, _ := cutBlocks(t, 2)
	db, l := openLocal(t, dir, time.Now)
	s, _ := shipWith(bucket.NewInMemory(), time.Now)
	ctx, cancel := context.WithCancel(t.Context())
	upload := s.upload
	s.upload = func(ctx context.Context, bkt bucket.Bucket, tenant, dir, writer string) (manifest.Block, error) {
		defer cancel()
		return upload(ctx, bkt, tenant, dir, writer)
	}
	require.ErrorIs(t, s.ship(ctx, shipTenant, l, db.Blocks()), context.Canceled)
	require.NotEmpty(t, l.unshipped(db.Blocks()))
}

func TestRelistKnowsBlocksInsideOthers(t *testing.T) {
	dir, _ := cutBlocks(t, 4)
	db, l := openLocal(t, dir, time.Now)
	var ids []ulid.ULID
	for _, b := range db.Blocks() {
		ids = append(ids, b.Meta().ULID)
	}
	m := &manifest.Manifest{
		Version: 9,
		Blocks: []manifest.Block{
			{ULID: ids[0], Sources: []ulid.ULID{ids[0]}, AddedVersion: 4, AddedAt: 1000},
			{ULID: ulid.ULID{1}, Sources: []ulid.ULID{{2}, ids[1]}, AddedVersion: 6, AddedAt: 2000},
		},
		Removed: []manifest.RemovedBlock{{ULID: ids[1], RemovedAt: 2000}, {ULID: ids[2], RemovedAt: 3000}},
	}
	relist(l, m, db.Blocks())
	for i, want := range []uint64{4, 6, 9} {
		got, ok := l.listedVersion(ids[i])
		require.True(t, ok)
		require.Equal(t, want, got)
	}
	require.Len(t, l.unshipped(db.Blocks()), 1)
	relist(l, &manifest.Manifest{Version: 10}, db.Blocks())
	require.Len(t, l.unshipped(db.Blocks()), 4, "a manifest that lost them gets them again")
}
