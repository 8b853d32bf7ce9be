package faultbucket_test

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
)

func TestWithoutFaultsItIsABucket(t *testing.T) {
	buckettest.RunAcceptance(t, func(*testing.T) bucket.Bucket { return faultbucket.New(bucket.NewInMemory(), nil) })
}

func TestFaults(t *testing.T) {
	put := func(ctx context.Context, b bucket.Bucket) error {
		return b.Put(ctx, "t/a", strings.NewReader("four"), 4)
	}
	for _, c := range []struct {
		fault  faultbucket.Fault
		stored string
		err    error
	}{
		{faultbucket.None, "four", nil},
		{faultbucket.Before, "", faultbucket.ErrInjected},
		{faultbucket.After, "four", faultbucket.ErrInjected},
		{faultbucket.Stall, "", context.Canceled},
		{faultbucket.StallAfter, "four", context.Canceled},
		{faultbucket.Truncate, "fo", nil},
	} {
		t.Run(c.fault.String(), func(t *testing.T) {
			inner := bucket.NewInMemory()
			b := faultbucket.New(inner, faultbucket.At(0, c.fault))
			ctx, cancel := context.WithCancel(t.Context())
			failed := make(chan error)
			go func() { failed <- put(ctx, b) }()
			switch c.fault {
			case faultbucket.StallAfter:
				require.Eventually(t, func() bool {
					_, err := inner.Stat(t.Context(), "t/a")
					return err == nil
				}, time.Minute, time.Millisecond)
				cancel()
			case faultbucket.Stall:
				cancel()
			default:
			}
			require.ErrorIs(t, <-failed, c.err)
			cancel()
			if c.stored == "" {
				require.Empty(t, buckettest.Keys(t, inner, "", true))
			} else {
				require.Equal(t, c.stored, buckettest.Get(t, inner, "t/a"))
			}
			require.NoError(t, put(t.Context(), b), "the second operation is not planned to fail")
			require.Equal(t, []faultbucket.Op{{0, "Put", "t/a"}, {1, "Put", "t/a"}}, b.Ops())
		})
	}
}

func TestTruncatedBody(t *testing.T) {
	b := faultbucket.New(bucket.NewInMemory(), faultbucket.On("Get", faultbucket.Truncate))
	buckettest.Put(t, b, "t/a", "0123456789")
	r, err := b.Get(t.Context(), "t/a")
	require.NoError(t, err)
	data, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, "01234", string(data))
	require.NoError(t, r.Close())
}

func TestLateListings(t *testing.T) {
	b := faultbucket.New(bucket.NewInMemory(), nil)
	buckettest.Put(t, b, "t/early/1", "x")
	b.DelayListings(2)
	buckettest.Put(t, b, "t/early/2", "x")
	buckettest.Put(t, b, "t/late/1", "x")
	require.Equal(t, "x", buckettest.Get(t, b, "t/late/1"), "only listings are late")
	require.Equal(t, []string{"t/early/1"}, buckettest.Keys(t, b, "", true))
	require.Equal(t, []string{"t/early/"}, buckettest.Keys(t, b, "t/", false))
	require.Equal(t, []string{"t/early/1", "t/early/2", "t/late/1"}, buckettest.Keys(t, b, "", true))
}

func TestSeededIsRepeatable(t *testing.T) {
	seed := faultbucket.Seed(t)
	plan := faultbucket.Seeded(seed, 0.5, faultbucket.Before, faultbucket.After)
	again := faultbucket.Seeded(seed, 0.5, faultbucket.Before, faultbucket.After)
	count := map[faultbucket.Fault]int{}
	for n := range 1000 {
		f := plan(faultbucket.Op{N: n})
		count[f]++
		require.Equal(t, f, again(faultbucket.Op{N: n}))
	}
	require.InDelta(t, 500, count[faultbucket.None], 100)
	require.InDelta(t, 250, count[faultbucket.Before], 80)
	require.InDelta(t, 250, count[faultbucket.After], 80)
}

func TestFaultsOfReads(t *testing.T) {
	b := faultbucket.New(bucket.NewInMemory(), nil)
	buckettest.Put(t, b, "t/a", "0123456789")
	read := func(fault faultbucket.Fault) (string, error) {
		b.SetPlan(faultbucket.On("GetRange", fault))
		r, err := b.GetRange(t.Context(), "t/a", 0, 10)
		if err != nil {
			return "", err
		}
		data, err := io.ReadAll(r)
		require.NoError(t, r.Close())
		return string(data), err
	}
	data, err := read(faultbucket.BreakOff)
	require.ErrorIs(t, err, faultbucket.ErrInjected)
	require.Equal(t, "01234", data)
	data, err = read(faultbucket.Flip)
	require.NoError(t, err)
	require.Len(t, data, 10)
	require.NotEqual(t, "0123456789", data)
	_, err = read(faultbucket.Missing)
	require.ErrorIs(t, err, bucket.ErrNotFound)

	b.SetPlan(faultbucket.On("Stat", faultbucket.Missing))
	_, err = b.Stat(t.Context(), "t/a")
	require.ErrorIs(t, err, bucket.ErrNotFound)
	for _, fault := range []faultbucket.Fault{faultbucket.BreakOff, faultbucket.Flip, faultbucket.Missing} {
		b.SetPlan(faultbucket.On("Put", fault))
		buckettest.Put(t, b, "t/a", "0123456789")
	}
	b.SetPlan(nil)
	require.Equal(t, "0123456789", buckettest.Get(t, b, "t/a"))
}
