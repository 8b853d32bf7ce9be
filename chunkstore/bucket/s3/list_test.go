package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
	"github.com/duramendb/duramen/internal/faultproxy"
)

// writeObjects puts objects where the server finds them, which is faster than asking it.
func writeObjects(t *testing.T, s *server, b *Bucket, keys ...string) {
	t.Helper()
	for _, key := range keys {
		path := filepath.Join(s.Dir(), b.cfg.BucketName, filepath.FromSlash(key))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte("x"), 0o600))
	}
}

// manyKeys returns 2500 keys of t/ in order, whose listing without recursion mixes objects and common prefixes over
// three pages.
func manyKeys() (recursive, flat []string) {
	for i := range 2500 {
		if i%3 == 0 {
			recursive = append(recursive, fmt.Sprintf("t/%04d", i))
			flat = append(flat, fmt.Sprintf("t/%04d", i))
			continue
		}
		recursive = append(recursive, fmt.Sprintf("t/%04d/x", i))
		flat = append(flat, fmt.Sprintf("t/%04d/", i))
	}
	return recursive, flat
}

func TestListPages(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s)
	b := p.open(t, s)
	pass := faultproxy.Pass()
	recursive, flat := manyKeys()
	writeObjects(t, s, b, recursive...)

	t.Run("in order", func(t *testing.T) {
		p.Heal()
		require.Equal(t, recursive, buckettest.Keys(t, b, "t/", true))
		require.Equal(t, flat, buckettest.Keys(t, b, "t/", false))
		require.Equal(t, 6, p.Count(faultproxy.ListObjects))
	})
	for name, f := range map[string]faultproxy.Fault{
		"503":                 faultproxy.Answer(503, ""),
		"SlowDown":            faultproxy.S3Error(503, "SlowDown"),
		"reset":               faultproxy.Reset(),
		"cut off":             faultproxy.CutAfter(20_000, faultproxy.Reset()),
		"short":               faultproxy.ShortAfter(20_000, func(http.Header) {}),
		"a page":              faultproxy.Answer(200, "<html><body>maintenance</body></html>"),
		"another document":    faultproxy.S3Error(200, "InternalError"),
		"nothing":             faultproxy.Answer(200, ""),
		"a proxy's 404":       faultproxy.Answer(404, notFoundPage),
		"an empty no content": faultproxy.Answer(204, ""),
	} {
		for kind, want := range map[bool][]string{true: recursive, false: flat} {
			if raceDetector && kind == (len(name)%2 == 0) {
				continue // the server takes long for a listing; all of them come without the race detector
			}
			t.Run(fmt.Sprintf("%s/recursive %t", name, kind), func(t *testing.T) {
				p.Heal()
				p.Spoil(faultproxy.ListObjects, f, pass, f, f, pass, f, f)
				require.Equal(t, want, buckettest.Keys(t, b, "t/", kind), "each once, although pages fail in between")

				p.Heal()
				p.Spoil(faultproxy.ListObjects, append([]faultproxy.Fault{pass}, faultproxy.Times(50, f)...)...)
				var seen []string
				err := b.List(t.Context(), "t/", kind, func(o bucket.Object) error {
					seen = append(seen, o.Key)
					return nil
				})
				require.Error(t, err, "not the end")
				require.Equal(t, want[:1000], seen)
			})
		}
	}
	t.Run("stops early", func(t *testing.T) {
		enough := errors.New("enough")
		for _, at := range []int{1, 999, 1000, 1001} {
			p.Heal()
			seen := 0
			require.Equal(t, enough, b.List(t.Context(), "t/", true, func(bucket.Object) error {
				if seen++; seen == at {
					return enough
				}
				return nil
			}))
			require.Equal(t, at, seen)
			require.LessOrEqual(t, p.Count(faultproxy.ListObjects), (at+999)/1000)
		}
	})
	t.Run("ends with its context", func(t *testing.T) {
		for _, at := range []int{1, 1000, 1001} {
			ctx, cancel := context.WithCancel(t.Context())
			seen := 0
			err := b.List(ctx, "t/", true, func(bucket.Object) error {
				if seen++; seen == at {
					cancel()
				}
				return nil
			})
			require.ErrorIs(t, err, context.Canceled)
			require.Equal(t, at, seen)
		}
	})
	t.Run("goes back", func(t *testing.T) {
		p.Heal()
		page := func(token, key string) faultproxy.Fault {
			return faultproxy.Answer(200, `<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>`+token+
				`</NextContinuationToken><Contents><Key>`+key+`</Key><Size>1</Size></Contents></ListBucketResult>`)
		}
		p.Spoil(faultproxy.ListObjects, append([]faultproxy.Fault{page("1", "t/b")}, faultproxy.Times(50, page("2", "t/a"))...)...)
		err := b.List(t.Context(), "t/", true, func(bucket.Object) error { return nil })
		require.ErrorIs(t, err, ErrNotS3)
		require.ErrorContains(t, err, `back from "t/b" to "t/a"`)
	})
}

func TestListPassesOverFolderMarkers(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s)
	b := p.open(t, s)
	listing := faultproxy.Answer(200, `<ListBucketResult>
		<Contents><Key>t/</Key></Contents><Contents><Key>t/a</Key><Size>1</Size></Contents>
		<Contents><Key>t/b/</Key></Contents><Contents><Key>t//c</Key></Contents><Contents><Key>t/d%20%2B</Key></Contents>
		<CommonPrefixes><Prefix>t/b/</Prefix></CommonPrefixes><CommonPrefixes><Prefix>t//</Prefix></CommonPrefixes>
		<EncodingType>url</EncodingType></ListBucketResult>`)
	p.Spoil(faultproxy.ListObjects, listing, listing)
	require.Equal(t, []string{"t/a", "t/d +"}, buckettest.Keys(t, b, "t/", true))
	require.Equal(t, []string{"t/a", "t/b/", "t/d +"}, buckettest.Keys(t, b, "t/", false))
}

func TestDelete(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s)
	b := p.open(t, s)
	keys, _ := manyKeys()
	remove := func() error { return b.Delete(t.Context(), keys...) }

	t.Run("a thousand a request", func(t *testing.T) {
		p.Heal()
		writeObjects(t, s, b, keys...)
		require.NoError(t, b.Delete(t.Context(), append(slices.Clone(keys), "t/none", keys[0], keys[0])...))
		require.Equal(t, 3, p.Count(faultproxy.DeleteObjects))
		require.Empty(t, buckettest.Keys(t, b, "", true))
	})
	t.Run("passing failures", func(t *testing.T) {
		p.Heal()
		writeObjects(t, s, b, keys...)
		p.Spoil(faultproxy.DeleteObjects, faultproxy.Answer(503, ""),
			faultproxy.Applied(faultproxy.Reset()), faultproxy.Pass(),
			faultproxy.Applied(faultproxy.Answer(500, "")), faultproxy.Applied(faultproxy.Answer(200, "")))
		require.NoError(t, remove())
		require.Empty(t, buckettest.Keys(t, b, "", true))
	})
	for name, c := range map[string]struct {
		f    faultproxy.Fault
		is   error
		text string
	}{
		"503":          {faultproxy.Answer(503, ""), nil, "503"},
		"denied":       {faultproxy.S3Error(403, "AccessDenied"), ErrDenied, "AccessDenied"},
		"a page":       {faultproxy.Answer(200, "<html></html>"), ErrNotS3, "<html>"},
		"nothing":      {faultproxy.Answer(200, ""), ErrNotS3, "not XML"},
		"nothing said": {faultproxy.Answer(200, "<DeleteResult></DeleteResult>"), ErrNotS3, "nothing is said about it"},
		"too few": {
			faultproxy.Answer(200, "<DeleteResult><Deleted><Key>t/0000</Key></Deleted></DeleteResult>"), ErrNotS3, "and 994 more",
		},
		"a proxy's 404": {faultproxy.Answer(404, notFoundPage), ErrNotS3, "404"},
		"one refused": {
			faultproxy.Answer(200, "<DeleteResult><Error><Key>t/0000</Key><Code>AccessDenied</Code></Error></DeleteResult>"),
			ErrDenied, "t/0000: AccessDenied",
		},
		"one refused for its name": {
			faultproxy.Answer(200, "<DeleteResult><Error><Key>t/0000</Key><Code>InvalidArgument</Code></Error></DeleteResult>"),
			nil, "nothing is said about it",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p.Heal()
			p.Spoil(faultproxy.DeleteObjects, faultproxy.Times(2*tries, c.f)...)
			err := remove()
			require.Error(t, err)
			require.ErrorContains(t, err, c.text)
			require.ErrorContains(t, err, b.Name())
			require.Less(t, len(err.Error()), 1500, "not a line for each key")
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
		})
	}
	t.Run("of what is not there", func(t *testing.T) {
		p.Heal()
		p.Spoil(faultproxy.DeleteObjects,
			faultproxy.Answer(200, "<DeleteResult><Error><Key>t/a</Key><Code>NoSuchKey</Code></Error></DeleteResult>"))
		require.NoError(t, b.Delete(t.Context(), "t/a"))
	})
	t.Run("of an empty answer of a cancelled call", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, b.Delete(ctx, "t/a"), context.Canceled)
	})
}
