package s3

import (
	"bytes"
	"io"
	"net/http"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
	"github.com/duramendb/duramen/internal/faultproxy"
)

// TestServerIsKilled has the server die by SIGKILL at one moment after the other of a write. What was there before is
// there unchanged afterwards, or the whole new object is, and the write succeeds when it is tried again.
func TestServerIsKilled(t *testing.T) {
	t.Parallel()
	large, small := pattern(3*minPartSize+1), pattern(200_000)
	put := func(b *Bucket, key string, data []byte) error {
		return b.Put(t.Context(), key, bytes.NewReader(data), int64(len(data)))
	}
	putIfAbsent := func(b *Bucket, key string, data []byte) error { return b.PutIfAbsent(t.Context(), key, data) }
	for _, c := range []struct {
		name    string
		data    []byte
		write   func(*Bucket, string, []byte) error
		kind    faultproxy.Operation
		when    moment
		unknown bool // the write may have been applied
	}{
		{"before an upload begins", large, put, faultproxy.CreateUpload, before, false},
		{"after an upload began", large, put, faultproxy.CreateUpload, after, false},
		{"in the middle of the first part", large, put, faultproxy.UploadPart, middle, false},
		{"after the first part", large, put, faultproxy.UploadPart, after, false},
		{"before the upload ends", large, put, faultproxy.CompleteUpload, before, false},
		{"while the upload ends", large, put, faultproxy.CompleteUpload, during, true},
		{"after the upload ended", large, put, faultproxy.CompleteUpload, after, true},
		{"in the middle of a small object", small, put, faultproxy.PutObject, middle, false},
		{"after a small object", small, put, faultproxy.PutObject, after, true},
		{"in the middle of a conditional put", small, putIfAbsent, faultproxy.PutObject, middle, false},
		{"after a conditional put", small, putIfAbsent, faultproxy.PutObject, after, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t)
			p := startProxy(t, s)
			b := p.open(t, s, smallParts)
			keys := []string{"t/new"}
			if c.kind != faultproxy.PutObject || c.write == nil {
				keys = append(keys, "t/old")
			}
			buckettest.Put(t, b, "t/old", "what was there before")
			for _, key := range keys {
				p.Heal()
				p.Spoil(c.kind, killing(s, c.when))
				require.Error(t, c.write(b, key, c.data))
				require.NoError(t, s.Restart())

				got, err := drain(b.Get(t.Context(), key))
				switch {
				case c.unknown && got == string(c.data):
				case key == "t/old":
					require.NoError(t, err)
					require.Equal(t, "what was there before", got)
				default:
					require.ErrorIs(t, err, bucket.ErrNotFound)
					requireMissing(t, b, key)
				}

				err = c.write(b, key, c.data)
				if got == string(c.data) && err != nil {
					require.ErrorIs(t, err, bucket.ErrExists)
				} else {
					require.NoError(t, err)
				}
				got, err = drain(b.Get(t.Context(), key))
				require.NoError(t, err)
				require.True(t, bytes.Equal(c.data, []byte(got)), "the object is whole")
			}
			require.Equal(t, []string{"t/new", "t/old"}, buckettest.Keys(t, b, "", true))
		})
	}
}

// moment is when the server dies.
type moment int

const (
	before moment = iota // the request reaches it
	middle               // half of the body has
	during               // all of the body has
	after                // it has answered, and the answer gets lost
)

func killing(s *server, when moment) faultproxy.Fault {
	return faultproxy.Func("kill", func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		switch when {
		case before:
			s.Kill()
		case middle:
			r.Body = &tripwire{ReadCloser: r.Body, left: r.ContentLength / 2, trip: s.Kill}
		case during:
			var done sync.WaitGroup
			defer done.Wait()
			r.Body = &tripwire{ReadCloser: r.Body, left: r.ContentLength, trip: func() { done.Go(s.Kill) }}
		case after:
			faultproxy.Recorded(r, forward)
			s.Kill()
			panic(http.ErrAbortHandler)
		}
		forward.ServeHTTP(w, r)
	})
}

// tripwire calls trip once so many bytes have been read.
type tripwire struct {
	io.ReadCloser

	left int64
	trip func()
	once sync.Once
}

func (r *tripwire) Read(p []byte) (int, error) {
	if r.left <= 0 {
		r.once.Do(r.trip)
	}
	if r.left > 0 && int64(len(p)) > r.left {
		p = p[:r.left]
	}
	n, err := r.ReadCloser.Read(p)
	r.left -= int64(n)
	return n, err
}
