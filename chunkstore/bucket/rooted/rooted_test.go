package rooted

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	one = "01JB2X0000000000000000000A"
	two = "01JB2X0000000000000000000B"
)

// TestAcceptance: with keys that are no blocks', and with keys that all are.
func TestAcceptance(t *testing.T) {
	buckettest.RunAcceptance(t, func(*testing.T) bucket.Bucket { return New(bucket.NewInMemory(), "acme") })
}

func TestAcceptanceInABlock(t *testing.T) {
	buckettest.RunAcceptance(t, func(*testing.T) bucket.Bucket {
		return below{New(bucket.NewInMemory(), "acme"), "acme/" + one + "/"}
	})
}

// below is a folder of a bucket as a bucket.
type below struct {
	bucket.Bucket
	folder string
}

func (b below) key(key string) string {
	if bucket.ValidateKey(key) != nil {
		return key
	}
	return b.folder + key
}

func (b below) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	return b.Bucket.Get(ctx, b.key(key))
}

func (b below) GetRange(ctx context.Context, key string, off, length int64) (io.ReadCloser, error) {
	return b.Bucket.GetRange(ctx, b.key(key), off, length)
}

func (b below) Stat(ctx context.Context, key string) (bucket.Object, error) {
	o, err := b.Bucket.Stat(ctx, b.key(key))
	o.Key = strings.TrimPrefix(o.Key, b.folder)
	return o, err
}

func (b below) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	return b.Bucket.Put(ctx, b.key(key), r, size)
}

func (b below) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	return b.Bucket.PutIfAbsent(ctx, b.key(key), data)
}

func (b below) List(ctx context.Context, prefix string, recursive bool, fn func(bucket.Object) error) error {
	return b.Bucket.List(ctx, b.folder+prefix, recursive, func(o bucket.Object) error {
		o.Key = strings.TrimPrefix(o.Key, b.folder)
		return fn(o)
	})
}

func (b below) Delete(ctx context.Context, keys ...string) error {
	var all []string
	for _, key := range keys {
		all = append(all, b.key(key))
	}
	return b.Bucket.Delete(ctx, all...)
}

func TestBlocksAreAtTheTop(t *testing.T) {
	inner := bucket.NewInMemory()
	b := New(inner, "acme")
	buckettest.Put(t, inner, one+"/meta.json", "of Thanos")
	buckettest.Put(t, b, "acme/"+two+"/chunks/000001", "x")
	buckettest.Put(t, b, "acme/duramen/manifest/1", "x")
	buckettest.Put(t, b, "other/"+one+"/index", "x")
	require.Equal(t, []string{
		one + "/meta.json", two + "/chunks/000001", "acme/duramen/manifest/1", "other/" + one + "/index",
	}, buckettest.Keys(t, inner, "", true))
	require.Equal(t, []string{
		"acme/" + one + "/meta.json", "acme/" + two + "/chunks/000001", "acme/duramen/manifest/1", "other/" + one + "/index",
	}, buckettest.Keys(t, b, "", true))
	require.Equal(t, []string{"acme/", "other/"}, buckettest.Keys(t, b, "", false))
	require.Equal(t, []string{"acme/" + one + "/", "acme/" + two + "/", "acme/duramen/"}, buckettest.Keys(t, b, "acme/", false))
	require.Equal(t, "of Thanos", buckettest.Get(t, b, "acme/"+one+"/meta.json"))
	o, err := b.Stat(t.Context(), "acme/"+one+"/meta.json")
	require.NoError(t, err)
	require.Equal(t, "acme/"+one+"/meta.json", o.Key)
}

// TestATenantWithoutAFolder is there by its blocks alone.
func TestATenantWithoutAFolder(t *testing.T) {
	inner := bucket.NewInMemory()
	buckettest.Put(t, inner, one+"/meta.json", "x")
	b := New(inner, "acme")
	require.Equal(t, []string{"acme/"}, buckettest.Keys(t, b, "", false))
	require.NoError(t, inner.Delete(t.Context(), one+"/meta.json"))
	require.Empty(t, buckettest.Keys(t, b, "", false))
}

// TestOneNameForEachObject: the bucket's own keys of blocks name nothing, and cannot be written.
func TestOneNameForEachObject(t *testing.T) {
	inner := bucket.NewInMemory()
	buckettest.Put(t, inner, one+"/index", "x")
	buckettest.Put(t, inner, "acme/"+two+"/index", "hidden")
	b := New(inner, "acme")
	for _, key := range []string{one + "/index", "acme/" + two + "/index"} {
		_, err := b.Get(t.Context(), key)
		require.ErrorIs(t, err, bucket.ErrNotFound)
		_, err = b.GetRange(t.Context(), key, 0, 1)
		require.ErrorIs(t, err, bucket.ErrNotFound)
		_, err = b.Stat(t.Context(), key)
		require.ErrorIs(t, err, bucket.ErrNotFound)
		require.NoError(t, b.Delete(t.Context(), key))
	}
	require.Equal(t, []string{one + "/index", "acme/" + two + "/index"}, buckettest.Keys(t, inner, "", true))
	require.Equal(t, []string{"acme/" + one + "/index"}, buckettest.Keys(t, b, "", true))
	require.ErrorIs(t, b.Put(t.Context(), one+"/index", strings.NewReader("y"), 1), bucket.ErrInvalidKey)
	require.ErrorIs(t, b.PutIfAbsent(t.Context(), one+"/new", nil), bucket.ErrInvalidKey)
	require.NoError(t, b.Delete(t.Context(), "acme/"+one+"/index"))
	require.Equal(t, []string{"acme/" + two + "/index"}, buckettest.Keys(t, inner, "", true))
}

// TestListsLikeAPlainBucket: whatever the keys and the prefix.
func TestListsLikeAPlainBucket(t *testing.T) {
	parts := []string{
		"acme", "acm", "acme0", "acme-", "a", "0", "9", "zz", "~duramen", "debug", one, two, one + "x", "01JB2X", "7ZZZZZZZZZZZZZZZZZZZZZZZZZ",
		"meta.json", "chunks", "duramen", "01jb2x0000000000000000000a",
	}
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		plain, rooted := bucket.NewInMemory(), New(bucket.NewInMemory(), "acme")
		prefixes := map[string]bool{"": true, "a": true, "acme": true, "acme/": true, "acme/0": true, "0": true}
		for range 40 {
			var key []string
			for range 1 + r.IntN(4) {
				key = append(key, parts[r.IntN(len(parts))])
			}
			if r.IntN(2) == 0 {
				key = append([]string{"acme"}, key...)
			}
			name := strings.Join(key, "/")
			if inBlock(name) {
				continue
			}
			buckettest.Put(t, plain, name, name)
			buckettest.Put(t, rooted, name, name)
			for range 3 {
				prefixes[name[:r.IntN(len(name)+1)]] = true
			}
		}
		for prefix := range prefixes {
			for _, recursive := range []bool{false, true} {
				want, got := buckettest.Keys(t, plain, prefix, recursive), buckettest.Keys(t, rooted, prefix, recursive)
				require.Equal(t, want, got, "seed %d, prefix %q, recursive %v", seed, prefix, recursive)
				require.True(t, slices.IsSorted(got))
			}
		}
		for _, key := range buckettest.Keys(t, plain, "", true) {
			require.Equal(t, key, buckettest.Get(t, rooted, key))
		}
	}
}

// TestAListingThatFailsIsNoShortOne whichever of the two it is that fails, and wherever the caller stops.
func TestAListingThatFailsIsNoShortOne(t *testing.T) {
	inner := bucket.NewInMemory()
	for i := range 5 {
		buckettest.Put(t, inner, one+fmt.Sprintf("/%d", i), "x")
		buckettest.Put(t, inner, fmt.Sprintf("acme/%d", i), "x")
	}
	for _, prefix := range []string{"", "acme/"} {
		for _, recursive := range []bool{false, true} {
			for n := range 2 {
				b := New(faultbucket.New(inner, faultbucket.At(n, faultbucket.Before)), "acme")
				err := b.List(t.Context(), prefix, recursive, func(bucket.Object) error { return nil })
				require.ErrorIs(t, err, faultbucket.ErrInjected, "%q %v %d", prefix, recursive, n)
			}
			all := len(buckettest.Keys(t, New(inner, "acme"), prefix, recursive))
			stop := errors.New("stop")
			for n := range all {
				seen := 0
				err := New(inner, "acme").List(t.Context(), prefix, recursive, func(bucket.Object) error {
					if seen++; seen > n {
						return stop
					}
					return nil
				})
				require.ErrorIs(t, err, stop)
			}
		}
	}
}
