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
	p := startProxy(t, s.address)
	b := p.open(t, s, smallParts)
	for _, size := range []int{minPartSize, minPartSize + 1, 2 * minPartSize, 3*minPartSize - 1} {
		p.heal()
		data := pattern(size)
		require.NoError(t, b.Put(t.Context(), "t/object", bytes.NewReader(data), int64(size)))
		got, err := drain(b.Get(t.Context(), "t/object"))
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, []byte(got)), "size %d", size)
		parts := (size + minPartSize - 1) / minPartSize
		if parts == 1 {
			parts = 0 // one request that is no part
		}
		require.Equal(t, parts, p.count(uploadPart))
	}
	requireUploads(t, b, 0)
}

func TestPutInPartsOfAWrongSize(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s.address)
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
		p.heal()
		err := b.Put(t.Context(), "t/object", r, size)
		require.Error(t, err, name)
		if strings.HasPrefix(name, "fails") {
			require.ErrorIs(t, err, broken)
		}
		requireMissing(t, b, "t/object")
		requireUploads(t, b, 0)
		require.Zero(t, p.count(completeUpload), name)
	}
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

func TestPutsUnderFaults(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s.address)
	b := p.open(t, s, smallParts)
	small, large := pattern(1000), pattern(2*minPartSize+1000)
	for _, c := range []struct {
		name   string
		data   []byte
		kind   string
		faults []fault
		ok     bool
	}{
		{"503 passes", small, putObject, times(tries-1, answer(503, "")), true},
		{"503 stays", small, putObject, times(tries, answer(503, "")), false},
		{"reset passes", small, putObject, times(tries-1, reset), true},
		{"applied but reset", small, putObject, times(1, applied(reset)), true},
		{"applied but 500", small, putObject, times(1, applied(answer(500, ""))), true},
		{"denied", small, putObject, times(1, s3Error(403, "AccessDenied")), false},
		{"a page", small, putObject, times(tries, answer(200, "<html></html>")), false},
		{"begin fails", large, createUpload, times(tries, answer(500, "")), false},
		{"begin fails at first", large, createUpload, times(tries-1, answer(500, "")), true},
		{"parts fail at first", large, uploadPart, times(3, answer(503, "")), true},
		{"parts reset at first", large, uploadPart, times(3, reset), true},
		{"parts applied but reset", large, uploadPart, times(3, applied(reset)), true},
		{"a part is refused", large, uploadPart, []fault{nil, s3Error(403, "AccessDenied")}, false},
		{"parts fail for good", large, uploadPart, times(100, answer(500, "")), false},
		{"parts answered by a page", large, uploadPart, times(100, answer(200, "")), false},
		{"end fails at first", large, completeUpload, times(tries-1, s3Error(200, "InternalError")), true},
		{"end fails for good", large, completeUpload, times(tries, s3Error(200, "InternalError")), false},
		{"end answered by a page", large, completeUpload, times(tries, answer(200, "<html></html>")), false},
		{"end answered by nothing", large, completeUpload, times(tries, answer(200, "")), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.heal()
			require.NoError(t, b.Delete(t.Context(), "t/object"))
			p.spoil(c.kind, c.faults...)
			err := b.Put(t.Context(), "t/object", bytes.NewReader(c.data), int64(len(c.data)))
			p.spoil(c.kind)
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
	p := startProxy(t, s.address)
	b := p.open(t, s, smallParts)
	data := pattern(minPartSize + 1)
	p.spoil(completeUpload, applied(reset))
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
	p := startProxy(t, s.address)
	b := p.open(t, s, smallParts)
	p.spoil(abortUpload, times(tries, answer(500, ""))...)
	require.Error(t, b.Put(t.Context(), "t/object", zeros(minPartSize), minPartSize+1))
	require.EqualValues(t, 1, testutil.ToFloat64(b.m.leftovers))
	requireMissing(t, b, "t/object")
	requireUploads(t, b, 1)
}

func TestPutEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s.address)
	b := p.open(t, s, smallParts)
	ctx, cancel := context.WithCancel(t.Context())
	p.spoil(uploadPart, nil, func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		cancel()
		stall(w, r, forward)
	})
	require.ErrorIs(t, b.Put(ctx, "t/object", zeros(50*minPartSize), 50*minPartSize), context.Canceled)
	require.Less(t, p.count(uploadPart), 6)
	requireMissing(t, b, "t/object")
	requireUploads(t, b, 0) // the parts are removed although the context has ended
}

// TestUploadMemory has many uploads at the same time share the memory of two parts.
func TestUploadMemory(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s.address)
	b := p.open(t, s, smallParts)
	var peak float64
	var mu sync.Mutex
	p.spoil(uploadPart, times(100, func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		mu.Lock()
		peak = max(peak, testutil.ToFloat64(b.m.buffered))
		mu.Unlock()
		forward.ServeHTTP(w, r)
	})...)
	var done sync.WaitGroup
	for i := range 6 {
		done.Go(func() {
			if err := b.Put(t.Context(), fmt.Sprint("t/", i), zeros(3*minPartSize), 3*minPartSize); err != nil {
				t.Error(err)
			}
		})
	}
	done.Wait()
	require.Equal(t, 18, p.count(uploadPart))
	p.mu.Lock()
	defer p.mu.Unlock()
	require.Equal(t, 2, p.most[uploadPart], "parts at the same time")
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
	p := startProxy(t, s.address)
	const algorithm, key = "X-Amz-Server-Side-Encryption", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id"
	for _, c := range []struct {
		sse, keyID, wantAlgorithm string
	}{{sseNone, "", ""}, {sseS3, "", "AES256"}, {sseKMS, "", "aws:kms"}, {sseKMS, "key-1", "aws:kms"}} {
		b := p.open(t, s, smallParts, func(cfg *Config) { cfg.SSE, cfg.SSEKMSKeyID = c.sse, c.keyID })
		p.spoil(putObject, answer(400, ""), answer(400, ""))
		p.spoil(createUpload, answer(400, ""))
		for kind, put := range map[string]func() error{
			putObject:    func() error { return b.Put(t.Context(), "t/object", zeros(1), 1) },
			createUpload: func() error { return b.Put(t.Context(), "t/object", zeros(minPartSize+1), minPartSize+1) },
			"":           func() error { return b.PutIfAbsent(t.Context(), "t/object", nil) },
		} {
			require.Error(t, put())
			if kind == "" {
				kind = putObject
			}
			require.Equal(t, c.wantAlgorithm, p.header(kind).Get(algorithm))
			require.Equal(t, c.keyID, p.header(kind).Get(key))
		}
	}
}

// TestEarlyAnswer has the server refuse parts that it has not read: connections go on reading from what is sent again.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s.address)
	b := p.open(t, s, smallParts)
	data := pattern(minPartSize)
	for range 3 {
		p.spoil(putObject, times(2, answer(503, ""))...)
		require.NoError(t, b.Put(t.Context(), "t/object", bytes.NewReader(data), minPartSize))
		got, err := drain(b.Get(t.Context(), "t/object"))
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, []byte(got)))
	}
}

func TestSlowBodyIsNoStall(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s.address)
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
	p.spoil(putObject, func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		start := time.Now()
		r.Body = pacedBody{r.Body, 10 * time.Millisecond}
		forward.ServeHTTP(w, r)
		if time.Since(start) < 2*stallTimeout {
			t.Error("the body was not slow enough to show anything")
		}
	})
	require.NoError(t, b.Put(t.Context(), "t/object", zeros(6<<20), 6<<20))
	require.Equal(t, 1, p.count(putObject))
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
