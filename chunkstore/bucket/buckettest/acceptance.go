// Package buckettest owns the acceptance suite that every bucket passes, wrappers included. It refuses to know how a
// backend works: all it uses is the interface. Read package bucket for the promises that it checks.
package buckettest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
)

// RunAcceptance runs the suite. newBucket returns an empty bucket and cleans up behind itself.
func RunAcceptance(t *testing.T, newBucket func(t *testing.T) bucket.Bucket) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, bucket.Bucket)
	}{
		{"put and get", putAndGet},
		{"put replaces", putReplaces},
		{"put of a wrong size leaves no object", putOfWrongSize},
		{"a failing reader leaves no object", putOfFailingReader},
		{"get range", getRange},
		{"missing objects", missingObjects},
		{"a folder is no object", folderIsNoObject},
		{"put if absent", putIfAbsent},
		{"put if absent has one winner", oneWinner},
		{"readers see whole objects", readersSeeWholeObjects},
		{"list is sorted by key", listSorted},
		{"list by prefix", listByPrefix},
		{"list stops on the callback's error", listStops},
		{"list shows what comes and goes", listWhileChanging},
		{"delete", deleteObjects},
		{"delete beside puts", deleteBesidePuts},
		{"keys", keys},
		{"cancelled context", cancelled},
		{"probe", probe},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, newBucket(t)) })
	}
}

// Put writes one object and fails the test when that fails.
func Put(t *testing.T, b bucket.Bucket, key, content string) {
	t.Helper()
	require.NoError(t, b.Put(t.Context(), key, strings.NewReader(content), int64(len(content))))
}

// Get reads one object and fails the test when that fails.
func Get(t *testing.T, b bucket.Bucket, key string) string {
	t.Helper()
	r, err := b.Get(t.Context(), key)
	return string(readAll(t, r, err))
}

// Keys lists the keys and common prefixes under prefix.
func Keys(t *testing.T, b bucket.Bucket, prefix string, recursive bool) []string {
	t.Helper()
	found := []string{}
	require.NoError(t, b.List(t.Context(), prefix, recursive, func(o bucket.Object) error {
		found = append(found, o.Key)
		return nil
	}))
	return found
}

func readAll(t *testing.T, r io.ReadCloser, err error) []byte {
	t.Helper()
	require.NoError(t, err)
	data, err := io.ReadAll(r)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	return data
}

func requireAbsent(t *testing.T, b bucket.Bucket, key string) {
	t.Helper()
	_, err := b.Stat(t.Context(), key)
	require.ErrorIs(t, err, bucket.ErrNotFound)
	_, err = b.Get(t.Context(), key)
	require.ErrorIs(t, err, bucket.ErrNotFound)
	_, err = b.GetRange(t.Context(), key, 0, 1)
	require.ErrorIs(t, err, bucket.ErrNotFound)
}

func putAndGet(t *testing.T, b bucket.Bucket) {
	require.NotEmpty(t, b.Name())
	for _, size := range []int{0, 1, 4096, 1<<20 + 1} {
		key, content := fmt.Sprintf("tenant/block/%d", size), strings.Repeat("x", size)
		before := time.Now().Add(-time.Minute)
		Put(t, b, key, content)
		require.Equal(t, content, Get(t, b, key))
		o, err := b.Stat(t.Context(), key)
		require.NoError(t, err)
		require.Equal(t, key, o.Key)
		require.EqualValues(t, size, o.Size)
		require.True(t, o.LastModified.After(before), "modified at %s", o.LastModified)
	}
}

func putReplaces(t *testing.T, b bucket.Bucket) {
	Put(t, b, "a", "a long first object")
	r, err := b.Get(t.Context(), "a")
	require.NoError(t, err)
	Put(t, b, "a", "second")
	require.Contains(t, []string{"a long first object", "second"}, string(readAll(t, r, nil)), "an open body is one object")
	require.Equal(t, "second", Get(t, b, "a"))
}

func putOfWrongSize(t *testing.T, b bucket.Bucket) {
	for _, size := range []int64{-1, 0, 3, 5} {
		require.Error(t, b.Put(t.Context(), "t/wrong", strings.NewReader("four"), size), "size %d", size)
		requireAbsent(t, b, "t/wrong")
	}
	Put(t, b, "t/kept", "four")
	require.Error(t, b.Put(t.Context(), "t/kept", strings.NewReader("12"), 3))
	require.Equal(t, "four", Get(t, b, "t/kept"), "a failed put leaves the old object")
	require.Equal(t, []string{"t/kept"}, Keys(t, b, "", true))
}

func putOfFailingReader(t *testing.T, b bucket.Bucket) {
	broken := errors.New("disk read error")
	r := io.MultiReader(strings.NewReader("half"), &failingReader{broken})
	require.ErrorIs(t, b.Put(t.Context(), "t/broken", r, 8), broken)
	requireAbsent(t, b, "t/broken")
	require.Empty(t, Keys(t, b, "", true))
}

type failingReader struct{ err error }

func (r *failingReader) Read([]byte) (int, error) { return 0, r.err }

func getRange(t *testing.T, b bucket.Bucket) {
	Put(t, b, "t/ten", "0123456789")
	for _, c := range []struct {
		off, length int64
		want        string
	}{
		{0, 10, "0123456789"},
		{0, 1, "0"},
		{3, 4, "3456"},
		{9, 1, "9"},
		{8, 100, "89"},
		{0, 1 << 62, "0123456789"},
		{5, 0, ""},
		{10, 1, ""},
		{11, 5, ""},
	} {
		r, err := b.GetRange(t.Context(), "t/ten", c.off, c.length)
		require.Equal(t, c.want, string(readAll(t, r, err)), "[%d, +%d)", c.off, c.length)
	}
	for _, c := range [][2]int64{{-1, 2}, {1, -2}} {
		_, err := b.GetRange(t.Context(), "t/ten", c[0], c[1])
		require.Error(t, err)
	}
}

func missingObjects(t *testing.T, b bucket.Bucket) {
	requireAbsent(t, b, "nobody/here")
	Put(t, b, "some/object", "x")
	requireAbsent(t, b, "some/other")
	requireAbsent(t, b, "some/objec")
	requireAbsent(t, b, "some/object/below")
	require.NoError(t, b.Delete(t.Context(), "some/other", "some/object/below", "nobody/here"))
	require.Equal(t, "x", Get(t, b, "some/object"))
}

func folderIsNoObject(t *testing.T, b bucket.Bucket) {
	Put(t, b, "a/b/c", "x")
	requireAbsent(t, b, "a")
	requireAbsent(t, b, "a/b")
	require.NoError(t, b.Delete(t.Context(), "a", "a/b"))
	require.Equal(t, "x", Get(t, b, "a/b/c"))
}

func putIfAbsent(t *testing.T, b bucket.Bucket) {
	require.NoError(t, b.PutIfAbsent(t.Context(), "t/m/1", []byte("first")))
	require.ErrorIs(t, b.PutIfAbsent(t.Context(), "t/m/1", []byte("second")), bucket.ErrExists)
	require.Equal(t, "first", Get(t, b, "t/m/1"))

	require.NoError(t, b.Delete(t.Context(), "t/m/1"))
	data := []byte("third")
	require.NoError(t, b.PutIfAbsent(t.Context(), "t/m/1", data), "a deleted key is free")
	clear(data)
	require.Equal(t, "third", Get(t, b, "t/m/1"), "the caller may reuse its buffer")

	Put(t, b, "t/m/2", "plain")
	require.ErrorIs(t, b.PutIfAbsent(t.Context(), "t/m/2", nil), bucket.ErrExists)
	require.NoError(t, b.PutIfAbsent(t.Context(), "t/m/3", nil), "an empty object is an object")
	require.ErrorIs(t, b.PutIfAbsent(t.Context(), "t/m/3", nil), bucket.ErrExists)
	require.Equal(t, []string{"t/m/1", "t/m/2", "t/m/3"}, Keys(t, b, "", true))
}

func oneWinner(t *testing.T, b bucket.Bucket) {
	const rounds, rivals = 10, 16
	for round := range rounds {
		key := fmt.Sprintf("t/race/%d", round)
		errs := make([]error, rivals)
		start, done := make(chan struct{}), sync.WaitGroup{}
		for i := range rivals {
			done.Go(func() {
				<-start
				errs[i] = b.PutIfAbsent(t.Context(), key, fmt.Appendf(nil, "rival %d", i))
			})
		}
		close(start)
		done.Wait()
		winner := -1
		for i, err := range errs {
			if err == nil {
				require.Equal(t, -1, winner, "two winners")
				winner = i
				continue
			}
			require.ErrorIs(t, err, bucket.ErrExists)
		}
		require.NotEqual(t, -1, winner, "no winner")
		require.Equal(t, fmt.Sprintf("rival %d", winner), Get(t, b, key))
	}
}

func readersSeeWholeObjects(t *testing.T, b bucket.Bucket) {
	const size = 256 << 10
	content := func(i int) string { return strings.Repeat(string(rune('a'+i)), size) }
	Put(t, b, "t/object", content(0))
	var done sync.WaitGroup
	done.Go(func() {
		for i := range 20 {
			if err := b.Put(t.Context(), "t/object", strings.NewReader(content(i)), size); err != nil {
				t.Error(err)
			}
		}
	})
	for range 50 {
		r, err := b.Get(t.Context(), "t/object")
		data := readAll(t, r, err)
		require.Len(t, data, size)
		require.Equal(t, size, bytes.Count(data, data[:1]), "the object is of one writer")
	}
	done.Wait()
}

func listSorted(t *testing.T, b bucket.Bucket) {
	// "-" and "." sort before "/", letters behind it: a walk of folders by name has another order than the keys.
	want := []string{
		"a!/x", "a-b", "a-b/c-", "a.b", "a/b!", "a/b/c", "a/bb", "a0/x", "aa", "b", "é/ü", "日本",
	}
	want = append(want[:1], append([]string{"a-"}, want[3:]...)...) // a name is a file or a folder, not both
	want = append([]string{"A/z"}, want...)
	for i := range want {
		Put(t, b, want[(i*5)%len(want)], "x")
	}
	require.Equal(t, want, Keys(t, b, "", true))
	require.Equal(t, []string{"A/", "a!/", "a-", "a.b", "a/", "a0/", "aa", "b", "é/", "日本"}, Keys(t, b, "", false))
}

func listByPrefix(t *testing.T, b bucket.Bucket) {
	for _, key := range []string{"t/01A/index", "t/01A/meta.json", "t/01B/meta.json", "t/m/1", "tt/01C/meta.json", "u"} {
		Put(t, b, key, key)
	}
	for _, c := range []struct {
		prefix    string
		recursive bool
		want      []string
	}{
		{"", false, []string{"t/", "tt/", "u"}},
		{"t", false, []string{"t/", "tt/"}},
		{"t/", false, []string{"t/01A/", "t/01B/", "t/m/"}},
		{"t/0", false, []string{"t/01A/", "t/01B/"}},
		{"t/01A", false, []string{"t/01A/"}},
		{"t/01A", true, []string{"t/01A/index", "t/01A/meta.json"}},
		{"t/01A/", false, []string{"t/01A/index", "t/01A/meta.json"}},
		{"t/01A/m", true, []string{"t/01A/meta.json"}},
		{"t/01A/meta.json", false, []string{"t/01A/meta.json"}},
		{"t/01A/meta.json/", true, []string{}},
		{"u", true, []string{"u"}},
		{"u/", true, []string{}},
		{"nothing/at/all", true, []string{}},
	} {
		require.Equal(t, c.want, Keys(t, b, c.prefix, c.recursive), "prefix %q, recursive %t", c.prefix, c.recursive)
	}
	require.NoError(t, b.List(t.Context(), "t/", false, func(o bucket.Object) error {
		require.Zero(t, o.Size)
		require.True(t, o.LastModified.IsZero())
		return nil
	}))
	require.NoError(t, b.List(t.Context(), "t/", true, func(o bucket.Object) error {
		require.EqualValues(t, len(o.Key), o.Size)
		require.False(t, o.LastModified.IsZero())
		return nil
	}))
}

func listStops(t *testing.T, b bucket.Bucket) {
	for i := range 5 {
		Put(t, b, fmt.Sprintf("t/%d/x", i), "x")
	}
	enough := errors.New("enough")
	for _, recursive := range []bool{true, false} {
		seen := 0
		err := b.List(t.Context(), "t/", recursive, func(bucket.Object) error {
			if seen++; seen == 3 {
				return enough
			}
			return nil
		})
		require.ErrorIs(t, err, enough)
		require.Equal(t, 3, seen)
	}
}

func listWhileChanging(t *testing.T, b bucket.Bucket) {
	Put(t, b, "t/stays", "x")
	var done sync.WaitGroup
	done.Go(func() {
		for i := range 50 {
			key := fmt.Sprintf("t/%d/y/z", i%5)
			if err := b.Put(t.Context(), key, strings.NewReader("x"), 1); err != nil {
				t.Error(err)
			}
			if err := b.Delete(t.Context(), key); err != nil {
				t.Error(err)
			}
		}
	})
	for range 50 {
		require.Contains(t, Keys(t, b, "", true), "t/stays")
	}
	done.Wait()
	require.Equal(t, []string{"t/stays"}, Keys(t, b, "", true))
	require.Equal(t, []string{"t/stays"}, Keys(t, b, "t/", false), "nothing is left of folders that became empty")
}

func deleteObjects(t *testing.T, b bucket.Bucket) {
	for _, key := range []string{"a/1", "a/2", "a/b/3", "c/4"} {
		Put(t, b, key, "x")
	}
	require.NoError(t, b.Delete(t.Context()))
	require.NoError(t, b.Delete(t.Context(), "a/1", "a/b/3", "c/4", "a/1"))
	require.Equal(t, []string{"a/2"}, Keys(t, b, "", true))
	require.Equal(t, []string{"a/"}, Keys(t, b, "", false))
	require.NoError(t, b.Delete(t.Context(), "a/2"))
	require.Empty(t, Keys(t, b, "", false))
	Put(t, b, "a/b/3", "again")
	require.Equal(t, "again", Get(t, b, "a/b/3"))
}

func deleteBesidePuts(t *testing.T, b bucket.Bucket) {
	const writers, rounds = 4, 25
	var done sync.WaitGroup
	for w := range writers {
		done.Go(func() {
			key := fmt.Sprintf("t/shared/deep/%d", w)
			for i := range rounds {
				err := b.Put(t.Context(), key, strings.NewReader("x"), 1)
				if _, stat := b.Stat(t.Context(), key); err != nil || stat != nil {
					t.Errorf("round %d: put: %v, stat: %v", i, err, stat)
				}
				if err := b.Delete(t.Context(), key); err != nil {
					t.Errorf("round %d: delete: %v", i, err)
				}
			}
		})
	}
	done.Wait()
	require.Empty(t, Keys(t, b, "", true))
}

func keys(t *testing.T, b bucket.Bucket) {
	for _, key := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/../../b", "./a", "a/./b", "a\x00b", "a\nb", "\xff",
		strings.Repeat("a/", 512) + "a",
	} {
		require.ErrorIs(t, b.Put(t.Context(), key, strings.NewReader("x"), 1), bucket.ErrInvalidKey, "put %q", key)
		require.ErrorIs(t, b.PutIfAbsent(t.Context(), key, nil), bucket.ErrInvalidKey, "put if absent %q", key)
		_, err := b.Get(t.Context(), key)
		require.ErrorIs(t, err, bucket.ErrInvalidKey, "get %q", key)
		_, err = b.GetRange(t.Context(), key, 0, 1)
		require.ErrorIs(t, err, bucket.ErrInvalidKey, "get range %q", key)
		_, err = b.Stat(t.Context(), key)
		require.ErrorIs(t, err, bucket.ErrInvalidKey, "stat %q", key)
		require.ErrorIs(t, b.Delete(t.Context(), key), bucket.ErrInvalidKey, "delete %q", key)
	}
	nothing := func(bucket.Object) error { return nil }
	for _, prefix := range []string{"/", "/a", "../", "a/../", "a//", "a//b", "a\x00"} {
		require.ErrorIs(t, b.List(t.Context(), prefix, true, nothing), bucket.ErrInvalidKey, "list %q", prefix)
	}
	for _, key := range []string{"...", "a b", ".hidden", "..a/b..", "a~", "!-_.*'()", "%2e%2e/%2f", `back\slash`, "日本"} {
		Put(t, b, key, "x")
		require.Equal(t, []string{key}, Keys(t, b, "", true))
		require.NoError(t, b.Delete(t.Context(), key))
	}
}

func cancelled(t *testing.T, b bucket.Bucket) {
	Put(t, b, "t/here", strings.Repeat("x", 1<<20))
	ctx, cancel := context.WithCancel(t.Context())
	r, err := b.Get(ctx, "t/here")
	require.NoError(t, err)
	cancel()
	_, err = io.Copy(io.Discard, r)
	require.ErrorIs(t, err, context.Canceled, "a body ends with its context")
	require.NoError(t, r.Close())

	require.ErrorIs(t, b.Put(ctx, "t/new", strings.NewReader("x"), 1), context.Canceled)
	require.ErrorIs(t, b.PutIfAbsent(ctx, "t/new", nil), context.Canceled)
	_, err = b.Get(ctx, "t/here")
	require.ErrorIs(t, err, context.Canceled)
	_, err = b.GetRange(ctx, "t/here", 0, 1)
	require.ErrorIs(t, err, context.Canceled)
	_, err = b.Stat(ctx, "t/here")
	require.ErrorIs(t, err, context.Canceled)
	err = b.List(ctx, "t/", true, func(bucket.Object) error { return nil })
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, b.Delete(ctx, "t/here"), context.Canceled)
	require.Equal(t, []string{"t/here"}, Keys(t, b, "", true))

	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	late := io.MultiReader(strings.NewReader("half"), readerFunc(func() { cancel() }), strings.NewReader("done"))
	require.ErrorIs(t, b.Put(ctx, "t/new", late, 8), context.Canceled, "the context ends while the body is sent")
	requireAbsent(t, b, "t/new")
}

// readerFunc is an empty reader that calls itself when it is reached.
type readerFunc func()

func (f readerFunc) Read([]byte) (int, error) {
	f()
	return 0, io.EOF
}

func probe(t *testing.T, b bucket.Bucket) {
	require.NoError(t, bucket.Probe(t.Context(), b))
	require.Empty(t, Keys(t, b, "", true), "the probe cleans up")
}
