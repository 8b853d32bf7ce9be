package reader

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func readAll(t testing.TB, b bucket.Bucket, key string) []byte {
	t.Helper()
	body, err := b.Get(t.Context(), key)
	require.NoError(t, err)
	defer body.Close()
	data, err := io.ReadAll(body)
	require.NoError(t, err)
	return data
}

func put(t testing.TB, b bucket.Bucket, key string, data []byte) {
	t.Helper()
	require.NoError(t, b.Put(t.Context(), key, bytes.NewReader(data), int64(len(data))))
}

func load(size int64, loads *int) func(context.Context) (*blockIndex, error) {
	return func(context.Context) (*blockIndex, error) { *loads++; return &blockIndex{bytes: size}, nil }
}

func TestCacheDropsTheLeastRecentlyUsedButNothingInUse(t *testing.T) {
	c, loads := newIndexCache(100, newMetrics(nil)), 0
	get := func(key string) func() {
		_, release, err := c.acquire(t.Context(), key, load(40, &loads))
		require.NoError(t, err)
		return release
	}
	a, b, d := get("a"), get("b"), get("d")
	require.Equal(t, int64(120), c.bytes, "in use: over the budget")
	b()
	require.Equal(t, int64(80), c.bytes, "b left as soon as nobody used it")
	a()
	a()
	require.Equal(t, int64(80), c.bytes, "a release counts once")
	d()
	get("a")()
	require.Equal(t, 3, loads, "a was still there")
	get("e")()
	require.Equal(t, int64(80), c.bytes)
	get("a")()
	require.Equal(t, 4, loads, "d was older than a")
	get("d")()
	require.Equal(t, 5, loads)
	c.purge()
	require.Zero(t, c.bytes)
	require.Empty(t, c.entries)
}

func TestConcurrentCallersShareOneLoad(t *testing.T) {
	c, entered, gate := newIndexCache(100, newMetrics(nil)), make(chan struct{}), make(chan struct{})
	loads := 0
	slow := func(context.Context) (*blockIndex, error) {
		loads++
		close(entered)
		<-gate
		return &blockIndex{bytes: 1}, nil
	}
	var wg sync.WaitGroup
	ask := func() {
		_, release, err := c.acquire(t.Context(), "a", slow)
		if err == nil {
			release()
		}
	}
	wg.Go(ask)
	<-entered
	for range 8 {
		wg.Go(ask)
	}
	close(gate)
	wg.Wait()
	require.Equal(t, 1, loads)
}

func TestACancelledLoadFailsNoOtherCaller(t *testing.T) {
	c, entered := newIndexCache(100, newMetrics(nil)), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _, err := c.acquire(ctx, "a", func(ctx context.Context) (*blockIndex, error) {
			close(entered)
			<-ctx.Done()
			return nil, ctx.Err()
		})
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	<-entered
	wg.Go(func() {
		loads := 0
		_, release, err := c.acquire(t.Context(), "a", load(1, &loads))
		if err != nil || loads != 1 {
			t.Error(err, loads)
			return
		}
		release()
	})
	waiting, stop := context.WithCancel(t.Context())
	stop()
	_, _, err := c.acquire(waiting, "a", nil)
	require.ErrorIs(t, err, context.Canceled, "waiting ends with the waiter's context")
	cancel()
	wg.Wait()
}
