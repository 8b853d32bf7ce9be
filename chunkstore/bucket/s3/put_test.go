package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
	"github.com/duramendb/duramen/internal/faultproxy"
)

// smallParts has objects of more than 5 MiB sent in parts, two at a time.
func smallParts(c *Config) { c.PartSizeBytes, c.UploadBufferBytes = minPartSize, 2*minPartSize }

func zeros(n int64) io.Reader { return io.LimitReader(zeroReader{}, n) }

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// pattern is n bytes in which no two parts are equal.
func pattern(n int) []byte {
	data := make([]byte, 0, n+16)
	for i := 0; len(data) < n; i++ {
		data = fmt.Appendf(data, "%015x\n", i)
	}
	return data[:n]
}

// requireUploads checks how many multipart uploads have begun and not ended.
func requireUploads(t *testing.T, b *Bucket, want int) {
	t.Helper()
	r, err := b.client.ListMultipartUploads(t.Context(), b.cfg.BucketName, "", "", "", "", 10)
	require.NoError(t, err)
	require.Len(t, r.Uploads, want)
}

func requireMissing(t *testing.T, b *Bucket, key string) {
	t.Helper()
	_, err := b.Stat(t.Context(), key)
	require.ErrorIs(t, err, bucket.ErrNotFound)
	require.NotContains(t, buckettest.Keys(t, b, "", true), key)
}

func TestPutInParts(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s)
	b := p.open(t, s, smallParts)
	for _, size := range []int{minPartSize, minPartSize + 1, 2 * minPartSize, 3*minPartSize - 1} {
		p.Heal()
		data := pattern(size)
		require.NoError(t, b.Put(t.Context(), "t/object", bytes.NewReader(data), int64(size)))
		got, err := drain(b.Get(t.Context(), "t/object"))
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, []byte(got)), "size %d", size)
		parts := (size + minPartSize - 1) / minPartSize
		if parts == 1 {
			parts = 0 // one request that is no part
		}
		require.Equal(t, parts, p.Count(faultproxy.UploadPart))
	}
	requireUploads(t, b, 0)
}

func TestPutInPartsOfAWrongSize(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s)
	b := p.open(t, s, smallParts)
	broken := errors.New("disk read error")
	const size = 2*minPartSize + 10
	for name, r := range map[string]io.Reader{
		"short by a byte":  zeros(size - 1),
		"short by a part":  zeros(minPartSize),
		"empty":            zeros(0),
		"long by a byte":   zeros(size + 1),
		"fails at the end": io.MultiReader(zeros(size), failingReader{broken}),
	} {
		p.Heal()
		err := b.Put(t.Context(), "t/object", r, size)
		require.Error(t, err, name)
		if strings.HasPrefix(name, "fails") {
			require.ErrorIs(t, err, broken)
		}
		requireMissing(t, b, "t/object")
		requireUploads(t, b, 0)
		require.Zero(t, p.Count(faultproxy.CompleteUpload), name)
	}
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

func TestPutsUnderFaults(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s)
	b := p.open(t, s, smallParts)
	small, large := pattern(1000), pattern(2*minPartSize+1000)
	for _, c := range []struct {
		name   string
		data   []byte
		kind   faultproxy.Operation
		faults []faultproxy.Fault
		ok     bool
	}{
		{"503 passes", small, faultproxy.PutObject, faultproxy.Times(tries-1, faultproxy.Answer(503, "")), true},
		{"503 stays", small, faultproxy.PutObject, faultproxy.Times(tries, faultproxy.Answer(503, "")), false},
		{"reset passes", small, faultproxy.PutObject, faultproxy.Times(tries-1, faultproxy.Reset()), true},
		{"applied but reset", small, faultproxy.PutObject, faultproxy.Times(1, faultproxy.Applied(faultproxy.Reset())), true},
		{"applied but 500", small, faultproxy.PutObject, faultproxy.Times(1, faultproxy.Applied(faultproxy.Answer(500, ""))), true},
		{
			"beside a delete", small, faultproxy.PutObject,
			faultproxy.Times(tries-1, faultproxy.S3Error(409, "ExistingObjectIsDirectory")), true,
		},
		{"denied", small, faultproxy.PutObject, faultproxy.Times(1, faultproxy.S3Error(403, "AccessDenied")), false},
		{"a page", small, faultproxy.PutObject, faultproxy.Times(tries, faultproxy.Answer(200, "<html></html>")), false},
		{"begin fails", large, faultproxy.CreateUpload, faultproxy.Times(tries, faultproxy.Answer(500, "")), false},
		{"begin fails at first", large, faultproxy.CreateUpload, faultproxy.Times(tries-1, faultproxy.Answer(500, "")), true},
		{"parts fail at first", large, faultproxy.UploadPart, faultproxy.Times(3, faultproxy.Answer(503, "")), true},
		{"parts reset at first", large, faultproxy.UploadPart, faultproxy.Times(3, faultproxy.Reset()), true},
		{"parts applied but reset", large, faultproxy.UploadPart, faultproxy.Times(3, faultproxy.Applied(faultproxy.Reset())), true},
		{"a part is refused", large, faultproxy.UploadPart, []faultproxy.Fault{faultproxy.Pass(), faultproxy.S3Error(403, "AccessDenied")}, false},
		{"parts fail for good", large, faultproxy.UploadPart, faultproxy.Times(100, faultproxy.Answer(500, "")), false},
		{"parts answered by a page", large, faultproxy.UploadPart, faultproxy.Times(100, faultproxy.Answer(200, "")), false},
		{"end fails at first", large, faultproxy.CompleteUpload, faultproxy.Times(tries-1, faultproxy.S3Error(200, "InternalError")), true},
		{"end fails for good", large, faultproxy.CompleteUpload, faultproxy.Times(tries, faultproxy.S3Error(200, "InternalError")), false},
		{"end answered by a page", large, faultproxy.CompleteUpload, faultproxy.Times(tries, faultproxy.Answer(200, "<html></html>")), false},
		{"end answered by nothing", large, faultproxy.CompleteUpload, faultproxy.Times(tries, faultproxy.Answer(200, "")), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.Heal()
			require.NoError(t, b.Delete(t.Context(), "t/object"))
			p.Spoil(c.kind, c.faults...)
			err := b.Put(t.Context(), "t/object", bytes.NewReader(c.data), int64(len(c.data)))
			p.Spoil(c.kind)
			requireUploads(t, b, 0)
			if !c.ok {
				require.Error(t, err)
				require.ErrorContains(t, err, b.Name())
				requireMissing(t, b, "t/object")
				err = b.Put(t.Context(), "t/object", bytes.NewReader(c.data), int64(len(c.data)))
			}
			require.NoError(t, err)
			got, err := drain(b.Get(t.Context(), "t/object"))
			require.NoError(t, err)
			require.True(t, bytes.Equal(c.data, []byte(got)), "the object is as it was put")
		})
	}
	require.Zero(t, testutil.ToFloat64(b.m.leftovers))
	require.Zero(t, testutil.ToFloat64(b.m.buffered), "all memory is given back")
}

func TestPutWhoseEndIsApplied(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s)
	b := p.open(t, s, smallParts)
	data := pattern(minPartSize + 1)
	p.Spoil(faultproxy.CompleteUpload, faultproxy.Applied(faultproxy.Reset()))
	err := b.Put(t.Context(), "t/object", bytes.NewReader(data), int64(len(data)))
	if err != nil {
		require.NotErrorIs(t, err, bucket.ErrNotFound, "the upload is gone, not the object")
	}
	got, err := drain(b.Get(t.Context(), "t/object"))
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, []byte(got)))
	requireUploads(t, b, 0)
}

func TestUploadThatCannotBeAborted(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s)
	b := p.open(t, s, smallParts)
	p.Spoil(faultproxy.AbortUpload, faultproxy.Times(tries, faultproxy.Answer(500, ""))...)
	require.Error(t, b.Put(t.Context(), "t/object", zeros(minPartSize), minPartSize+1))
	require.EqualValues(t, 1, testutil.ToFloat64(b.m.leftovers))
	requireMissing(t, b, "t/object")
	requireUploads(t, b, 1)
}

func TestPutEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s)
	b := p.open(t, s, smallParts)
	ctx, cancel := context.WithCancel(t.Context())
	stall := faultproxy.Stall(nil)
	stored := make(chan struct{})
	first := faultproxy.Func("first", func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		defer close(stored)
		forward.ServeHTTP(w, r)
	})
	// A server may store a part that it holds already after it was told to abort. So one part is stored in whole, and
	// no other reaches the server.
	second := faultproxy.Func("cancel", func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		<-stored
		cancel()
		stall.Serve(w, r, forward)
	})
	p.Spoil(faultproxy.UploadPart, append([]faultproxy.Fault{first, second}, faultproxy.Times(4, stall)...)...)
	require.ErrorIs(t, b.Put(ctx, "t/object", zeros(50*minPartSize), 50*minPartSize), context.Canceled)
	require.Less(t, p.Count(faultproxy.UploadPart), 6)
	requireMissing(t, b, "t/object")
	requireUploads(t, b, 0) // the parts are removed although the context has ended
}

// TestUploadMemory has many uploads at the same time share the memory of two parts.
func TestUploadMemory(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s)
	b := p.open(t, s, smallParts)
	var peak float64
	var mu sync.Mutex
	watch := faultproxy.Func("watch", func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		mu.Lock()
		peak = max(peak, testutil.ToFloat64(b.m.buffered))
		mu.Unlock()
		forward.ServeHTTP(w, r)
	})
	p.Spoil(faultproxy.UploadPart, faultproxy.Times(100, watch)...)
	var done sync.WaitGroup
	for i := range 6 {
		done.Go(func() {
			if err := b.Put(t.Context(), fmt.Sprint("t/", i), zeros(3*minPartSize), 3*minPartSize); err != nil {
				t.Error(err)
			}
		})
	}
	done.Wait()
	require.Equal(t, 18, p.Count(faultproxy.UploadPart))
	require.Equal(t, 2, p.MostAtOnce(faultproxy.UploadPart), "parts at the same time")
	require.EqualValues(t, 2*minPartSize, peak)
}

func TestPartsGrowWithTheObject(t *testing.T) {
	cfg := valid()
	smallParts(&cfg)
	b := openBucket(t, cfg)
	_, err := b.acquire(t.Context(), b.cfg.UploadBufferBytes+1)
	require.ErrorContains(t, err, "upload_buffer_bytes", "it could never be had")
}

func TestEncryptionIsAskedFor(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s)
	const algorithm, key = "X-Amz-Server-Side-Encryption", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id"
	for _, c := range []struct {
		sse, keyID, wantAlgorithm string
	}{{sseNone, "", ""}, {sseS3, "", "AES256"}, {sseKMS, "", "aws:kms"}, {sseKMS, "key-1", "aws:kms"}} {
		b := p.open(t, s, smallParts, func(cfg *Config) { cfg.SSE, cfg.SSEKMSKeyID = c.sse, c.keyID })
		p.Spoil(faultproxy.PutObject, faultproxy.Answer(400, ""), faultproxy.Answer(400, ""))
		p.Spoil(faultproxy.CreateUpload, faultproxy.Answer(400, ""))
		for kind, put := range map[faultproxy.Operation]func() error{
			putObject:    func() error { return b.Put(t.Context(), "t/object", zeros(1), 1) },
			createUpload: func() error { return b.Put(t.Context(), "t/object", zeros(minPartSize+1), minPartSize+1) },
			"":           func() error { return b.PutIfAbsent(t.Context(), "t/object", nil) },
		} {
			require.Error(t, put())
			if kind == "" {
				kind = faultproxy.PutObject
			}
			require.Equal(t, c.wantAlgorithm, p.Header(kind).Get(algorithm))
			require.Equal(t, c.keyID, p.Header(kind).Get(key))
		}
	}
}

// TestEarlyAnswer has the server refuse parts that it has not read: connections go on reading from what is sent again.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s)
	b := p.open(t, s, smallParts)
	data := pattern(minPartSize)
	for range 3 {
		p.Spoil(faultproxy.PutObject, faultproxy.Times(2, faultproxy.Answer(503, ""))...)
		require.NoError(t, b.Put(t.Context(), "t/object", bytes.NewReader(data), minPartSize))
		got, err := drain(b.Get(t.Context(), "t/object"))
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, []byte(got)))
	}
}

func TestSlowBodyIsNoStall(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s)
	const stallTimeout = 500 * time.Millisecond
	b := p.open(t, s, func(c *Config) { c.StallTimeout = stallTimeout })
	dial := b.transport.DialContext
	b.transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err == nil {
			// The client has to see how fast the body is read, whatever the system would buffer.
			err = c.(*movingConn).Conn.(*net.TCPConn).SetWriteBuffer(32 << 10)
		}
		return c, err
	}
	p.Spoil(faultproxy.PutObject, faultproxy.Func("slow", func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		start := time.Now()
		r.Body = pacedBody{r.Body, 10 * time.Millisecond}
		forward.ServeHTTP(w, r)
		if time.Since(start) < 2*stallTimeout {
			t.Error("the body was not slow enough to show anything")
		}
	}))
	require.NoError(t, b.Put(t.Context(), "t/object", zeros(6<<20), 6<<20))
	require.Equal(t, 1, p.Count(faultproxy.PutObject))
}

// pacedBody is a network of limited speed.
type pacedBody struct {
	io.ReadCloser

	pause time.Duration
}

func (r pacedBody) Read(p []byte) (int, error) {
	time.Sleep(r.pause)
	return r.ReadCloser.Read(p)
}
