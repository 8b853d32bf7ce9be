package countbucket_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
	"github.com/duramendb/duramen/chunkstore/bucket/countbucket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestItIsABucket(t *testing.T) {
	buckettest.RunAcceptance(t, func(*testing.T) bucket.Bucket { return countbucket.New(bucket.NewInMemory()) })
}

func read(t *testing.T, b bucket.Bucket, key string, off, length int64) {
	t.Helper()
	r, err := b.GetRange(t.Context(), key, off, length)
	require.NoError(t, err)
	_, err = io.ReadAll(r)
	require.NoError(t, err)
	require.NoError(t, r.Close())
}

func TestCountsOperationsAndBytes(t *testing.T) {
	const object = "t/01ARZ3NDEKTSV4RRFFQ69G5FAV/chunks/000001"
	b := countbucket.New(bucket.NewInMemory())
	buckettest.Put(t, b, object, "0123456789")
	require.Equal(t, int64(10), b.Ops().Bytes())
	b.Reset()
	require.Empty(t, b.Ops())

	read(t, b, object, 2, 3)
	read(t, b, object, 8, 5) // ends early
	_, err := b.Stat(t.Context(), object)
	require.NoError(t, err)
	_, err = b.Get(t.Context(), "t/none")
	require.ErrorIs(t, err, bucket.ErrNotFound)

	ops := b.Ops()
	require.Len(t, ops, 4)
	require.Equal(t, "chunks", ops[0].Kind())
	require.Equal(t, "t/01ARZ3NDEKTSV4RRFFQ69G5FAV", ops[0].Block())
	require.Equal(t, int64(2), ops[0].Offset)
	require.Len(t, ops.Reads(), 3)
	require.Equal(t, int64(5), ops.Reads().Bytes())
	require.InDelta(t, 0.5, ops.ReadRatio(10), 1e-9)
	require.True(t, ops[3].Failed)
	require.Equal(t, 4, ops.Waves(), "one after the other: %s", ops)
	require.Equal(t, 1, b.PeakInFlight())
}

func TestKinds(t *testing.T) {
	for key, want := range map[string]string{
		"t/X/meta.json": "meta", "t/X/index": "index", "t/X/duramen.idx": "sidecar", "t/X/chunks/000001": "chunks",
		"t/duramen/manifest/00000000000000000001": "manifest", "t/bucket-index.json.gz": "other", "": "other",
	} {
		require.Equal(t, want, countbucket.Op{Key: key}.Kind(), key)
	}
}

// TestWavesInFakeTime: what runs together is one wave, what waits for it is the next, and the fake time that passes is
// one latency for each.
func TestWavesInFakeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := countbucket.New(bucket.NewInMemory())
		buckettest.Put(t, b, "t/a", "a")
		b.Reset()
		b.SetLatency(40 * time.Millisecond)
		begin := time.Now()
		for range 3 {
			var together sync.WaitGroup
			for range 5 {
				together.Go(func() { read(t, b, "t/a", 0, 1) })
			}
			together.Wait()
		}
		require.Equal(t, 120*time.Millisecond, time.Since(begin))
		require.Equal(t, 3, b.Ops().Waves())
		require.Len(t, b.Ops(), 15)
		require.Equal(t, 5, b.PeakInFlight())
	})
}

// TestABodyEndsWithItsLastByte: who has all bytes may act on them before it closes the body.
func TestABodyEndsWithItsLastByte(t *testing.T) {
	b := countbucket.New(bucket.NewInMemory())
	buckettest.Put(t, b, "t/a", "abc")
	b.Reset()
	first, err := b.GetRange(t.Context(), "t/a", 0, 2)
	require.NoError(t, err)
	_, err = io.ReadFull(first, make([]byte, 1))
	require.NoError(t, err)
	require.Zero(t, b.Ops()[0].Ended)
	_, err = io.ReadFull(first, make([]byte, 1))
	require.NoError(t, err)
	read(t, b, "t/a", 0, 1)
	require.NoError(t, first.Close())
	require.Equal(t, 2, b.Ops().Waves())
}

func TestAnOpenBodyIsInFlight(t *testing.T) {
	b := countbucket.New(bucket.NewInMemory())
	buckettest.Put(t, b, "t/a", "abc")
	b.Reset()
	open, err := b.Get(t.Context(), "t/a")
	require.NoError(t, err)
	b.Reset()
	require.Len(t, b.Ops(), 1, "what runs is not forgotten")
	read(t, b, "t/a", 0, 1)
	require.Equal(t, 1, b.Ops().Waves())
	require.Equal(t, 2, b.PeakInFlight())
	require.NoError(t, open.Close())
}

func TestLatencyEndsWithTheContext(t *testing.T) {
	b := countbucket.New(bucket.NewInMemory())
	b.SetLatency(time.Hour)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	_, err := b.Get(ctx, "t/a")
	require.ErrorIs(t, err, context.Canceled)
	require.True(t, b.Ops()[0].Failed)
}
