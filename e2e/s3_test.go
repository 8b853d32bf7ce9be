package e2e

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/internal/certtest"
	"github.com/duramendb/duramen/internal/faultproxy"
	"github.com/duramendb/duramen/internal/objectstore"
)

// s3Args name a bucket of a server, or of a proxy in front of it, that speaks plain HTTP.
func s3Args(address, bucket string, more ...string) []string {
	return append([]string{
		"-bucket.backend=s3", "-bucket.s3.endpoint=" + address, "-bucket.s3.bucket-name=" + bucket, "-bucket.s3.insecure",
		"-bucket.s3.region=" + objectstore.Region, "-bucket.s3.lookup=path",
		"-bucket.s3.access-key-id=" + objectstore.AccessKey, "-bucket.s3.secret-access-key=" + objectstore.SecretKey,
	}, more...)
}

// TestANewNodeOverABucketOnS3: what a node has shipped, a node without any data answers, sample by sample. The server
// speaks TLS under an authority of its own; the one node has its settings from flags and its keys from the environment as
// AWS names it, the other all from a file and the secret from the environment as we name it.
func TestANewNodeOverABucketOnS3(t *testing.T) {
	rnd := random(t)
	ca := certtest.New(t)
	server := objectstore.Start(t, objectstore.Options{TLS: ca})
	bucket := server.NewBucket(t)
	t.Setenv("AWS_ACCESS_KEY_ID", objectstore.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", objectstore.SecretKey)
	old := startNode(t, t.TempDir(), "-bucket.backend=s3", "-bucket.s3.endpoint="+server.Address(),
		"-bucket.s3.bucket-name="+bucket, "-bucket.s3.region="+objectstore.Region, "-bucket.s3.lookup=path",
		"-bucket.s3.tls-ca-file="+ca.File)
	c := client.Duramen(old.URL, "team-a")
	defer c.CloseIdle()
	l := virtualLedger(t, rnd, 300, 16)
	require.NoError(t, l.sendAll(t.Context(), c, rnd, 0))
	require.True(t, flush(t.Context(), c))
	l.verify(t, c, 2)
	checkBlocks(t, filepath.Join(server.BucketDir(bucket), "team-a"), l)
	requireHealth(t, c, http.StatusOK, `"name": "bucket",`)
	shipped, err := c.Metric(t.Context(), "duramen_bucket_tenant_transferred_bytes_total", `tenant="team-a"`, `operation="put"`)
	require.NoError(t, err)
	require.Positive(t, shipped)
	require.NoError(t, old.Terminate(startTimeout))

	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	t.Setenv("DURAMEN_BUCKET_S3_SECRET_ACCESS_KEY", objectstore.SecretKey)
	file := filepath.Join(t.TempDir(), "duramen.yaml")
	require.NoError(t, os.WriteFile(file, []byte("bucket: {backend: s3, s3: {endpoint: '"+server.Address()+"', bucket_name: "+
		bucket+", access_key_id: "+objectstore.AccessKey+", lookup: path, tls_ca_file: "+ca.File+"}}\n"), 0o600))
	fresh := startNode(t, t.TempDir(), "-config.file="+file)
	c2 := client.Duramen(fresh.URL, "team-a")
	defer c2.CloseIdle()
	l.verify(t, c2, 1)

	// It goes on where the other ended.
	now := client.Now()
	a, err := c2.Push(t.Context(), client.V1, request(t, map[string]string{"__name__": "afterwards"}, now, 42))
	require.NoError(t, err)
	require.True(t, a.OK(), a)
	require.True(t, flush(t.Context(), c2))
	got, err := c2.Samples(t.Context(), "afterwards", now, 1000)
	require.NoError(t, err)
	require.Len(t, got, 1)
	l.verify(t, c2, 4)
	for _, n := range []*node{old, fresh} {
		require.NotContains(t, n.LogTail(1<<30), objectstore.SecretKey)
	}
}

// noise is a set of series whose values do not compress: blocks of it take several parts.
type noise struct {
	series, samples int
	begin           int64 // milliseconds; one sample a second follows
}

func (n noise) at(sample int) int64 { return n.begin + int64(sample)*1000 }

func (n noise) value(series, sample int) float64 {
	h := xxhash.Sum64(binary.BigEndian.AppendUint64(nil, uint64(series)<<32|uint64(sample)))
	return math.Float64frombits(h&(1<<52-1) | 1023<<52) // in [1, 2)
}

func (n noise) push(t *testing.T, c *client.Client) {
	t.Helper()
	for s := range n.series {
		ts := prompb.TimeSeries{Labels: []prompb.Label{
			{Name: "__name__", Value: "noise"}, {Name: "n", Value: fmt.Sprintf("%04d", s)},
		}}
		for i := range n.samples {
			ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: n.at(i), Value: n.value(s, i)})
		}
		raw, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{ts}}).Marshal()
		require.NoError(t, err)
		a, err := c.Push(t.Context(), client.V1, raw)
		require.NoError(t, err)
		require.True(t, a.OK(), a)
	}
}

func (n noise) verify(t *testing.T, c *client.Client) {
	t.Helper()
	last := n.at(n.samples - 1)
	got, err := c.Samples(t.Context(), "noise", last, last-n.begin+1)
	require.NoError(t, err)
	require.Len(t, got, n.series)
	seen := map[string]bool{}
	for _, s := range got {
		require.Len(t, s.Values, n.samples)
		var series int
		_, err := fmt.Sscanf(s.Metric["n"], "%04d", &series)
		require.NoError(t, err)
		for i, p := range s.Values {
			if want := (client.Point{T: n.at(i), V: n.value(series, i)}); p != want {
				require.Equal(t, want, p, "series %d", series)
			}
		}
		seen[s.Metric["n"]] = true
	}
	require.Len(t, seen, n.series)
}

// TestTheServerIsKilledInMidUpload: the S3 server dies by SIGKILL in the middle of a part of a block, stays away for a
// while and comes back. Until then nothing of the block is to be seen in the bucket and all of it in answers; afterwards
// the upload is done without anybody asking for it.
func TestTheServerIsKilledInMidUpload(t *testing.T) {
	server := objectstore.Start(t, objectstore.Options{})
	bucket := server.NewBucket(t)
	p := faultproxy.Start(t, server.Address(), nil)
	n := startNode(t, t.TempDir(), s3Args(p.Address(), bucket, "-bucket.s3.part-size-bytes=5242880",
		"-bucket.s3.upload-buffer-bytes=5242880", "-ingester.ship-interval=1s")...)
	c := client.Duramen(n.URL, "noisy")
	defer c.CloseIdle()
	hour := time.Hour.Milliseconds()
	data := noise{series: 300, samples: 3000, begin: (client.Now()/(2*hour)-7)*2*hour + 600_000} // below the cut of queries
	data.push(t, c)

	killed := make(chan struct{})
	p.Spoil(faultproxy.UploadPart, faultproxy.Pass(), faultproxy.Func("the server is killed",
		func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
			r.Body = &tripwire{ReadCloser: r.Body, left: r.ContentLength / 2, trip: func() {
				server.Kill()
				close(killed)
			}}
			forward.ServeHTTP(w, r)
		}))
	a, err := c.Post(t.Context(), "/ingester/flush?wait=true&tenant=noisy")
	require.NoError(t, err)
	require.Equal(t, http.StatusServiceUnavailable, a.Status, a.Body)
	<-killed
	require.Empty(t, find(t, server.BucketDir(bucket), "chunks", "index", "meta.json", "manifest"), "a part of a block is visible")
	requireHealth(t, c, http.StatusServiceUnavailable, "S3 bucket "+bucket)
	requireReady(t, c)

	require.NoError(t, server.Restart())
	eventually(t, "the block is listed", func() bool {
		return len(find(t, server.BucketDir(bucket), "manifest")) > 0
	})
	meta := find(t, server.BucketDir(bucket), "meta.json")
	require.Len(t, meta, 1, "the one block")
	data.verify(t, c)
	n.Kill()

	fresh := startNode(t, t.TempDir(), s3Args(server.Address(), bucket)...)
	c2 := client.Duramen(fresh.URL, "noisy")
	defer c2.CloseIdle()
	data.verify(t, c2)
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
	} else if int64(len(p)) > r.left {
		p = p[:r.left]
	}
	n, err := r.ReadCloser.Read(p)
	r.left -= int64(n)
	return n, err
}

// TestTheServerIsAwayAtTheStart: a node starts, takes writes and answers them while its bucket is away, says so where it
// should, and ships when the bucket is there.
func TestTheServerIsAwayAtTheStart(t *testing.T) {
	server := objectstore.Start(t, objectstore.Options{})
	bucket := server.NewBucket(t)
	server.Kill()
	n := startNode(t, t.TempDir(), s3Args(server.Address(), bucket, "-ingester.ship-interval=1s")...)
	c := client.Duramen(n.URL, "early")
	defer c.CloseIdle()
	first := createTenant(t, c)
	push := func(at int64) {
		t.Helper()
		a, err := c.Push(t.Context(), client.V1, request(t, map[string]string{"__name__": "x"}, at, float64(at)))
		require.NoError(t, err)
		require.True(t, a.OK(), a)
	}
	requirePoints := func(c *client.Client, back int64, want ...int64) {
		t.Helper()
		at := want[len(want)-1]
		got, err := c.Samples(t.Context(), "x", at, back)
		require.NoError(t, err)
		require.Len(t, got, 1)
		var points []client.Point
		for _, p := range want {
			points = append(points, client.Point{T: p, V: float64(p)})
		}
		require.Equal(t, points, got[0].Values)
	}
	push(first)
	push(first + 1)
	var warnings atomic.Int64
	c.Warned = func(text string) {
		require.Contains(t, text, "the bucket, which knows of deletions")
		warnings.Add(1)
	}
	requirePoints(c, 2, first, first+1)
	require.Positive(t, warnings.Load())
	requireReady(t, c)
	requireHealth(t, c, http.StatusServiceUnavailable, "S3 bucket "+bucket)
	require.Contains(t, n.LogTail(1<<20), "bucket does not work, starting without it")

	// What may be in the bucket alone is not answered without it, and the answer says why.
	var refused *client.QueryError
	_, err := c.Samples(t.Context(), "x", first, 24*time.Hour.Milliseconds())
	require.ErrorAs(t, err, &refused)
	require.Equal(t, http.StatusServiceUnavailable, refused.Status)
	require.Contains(t, refused.Text, "S3 bucket "+bucket)
	a, err := c.Post(t.Context(), "/ingester/flush?wait=true&tenant=early")
	require.NoError(t, err)
	require.Equal(t, http.StatusServiceUnavailable, a.Status, a.Body)
	requirePoints(c, 2, first, first+1) // they are in a block of the local disk

	require.NoError(t, server.Restart())
	eventually(t, "the block is listed", func() bool {
		return len(find(t, server.BucketDir(bucket), "manifest")) > 0
	})
	eventually(t, "health", func() bool {
		a, err := c.Get(t.Context(), "/healthz")
		return err == nil && a.Status == http.StatusOK
	})
	c.Warned = nil
	requirePoints(c, 24*time.Hour.Milliseconds(), first, first+1)
	fresh := startNode(t, t.TempDir(), s3Args(server.Address(), bucket)...)
	c2 := client.Duramen(fresh.URL, "early")
	defer c2.CloseIdle()
	requirePoints(c2, 24*time.Hour.Milliseconds(), first, first+1)
}

// TestAServerThatHangs: a server that takes requests and never answers holds up neither the start, nor what needs no
// bucket, nor the end of the process.
func TestAServerThatHangs(t *testing.T) {
	server := objectstore.Start(t, objectstore.Options{})
	bucket := server.NewBucket(t)
	p := faultproxy.Start(t, server.Address(), nil)
	p.SetPlan(faultproxy.Always(faultproxy.Stall(nil)))
	n := startNode(t, t.TempDir(), s3Args(p.Address(), bucket, "-ingester.ship-interval=1s", "-server.shutdown-timeout=2s")...)
	c := client.Duramen(n.URL, "patient")
	defer c.CloseIdle()
	data := noise{series: 2, samples: 2, begin: createTenant(t, c)}
	data.push(t, c)
	c.Warned = func(text string) { require.Contains(t, text, "the bucket, which knows of deletions") }
	data.verify(t, c)
	requireReady(t, c)
	requireHealth(t, c, http.StatusServiceUnavailable, `"name": "bucket",`)

	// A query, and behind it a flush, wait for the server. The process ends all the same, in good order.
	var waiting sync.WaitGroup
	defer waiting.Wait()
	waiting.Go(func() { _, _ = c.Samples(t.Context(), "x", client.Now(), 24*time.Hour.Milliseconds()) })
	waiting.Go(func() { flush(t.Context(), c) })
	eventually(t, "requests are on their way", func() bool { return p.Active() > 0 })
	data.verify(t, c)
	requireReady(t, c)
	require.NoError(t, n.Terminate(15*time.Second))

	p.SetPlan(nil)
	require.NoError(t, n.start())
	require.True(t, flush(t.Context(), c))
	data.verify(t, c)
}

// createTenant writes a first sample and returns a time behind it. What is older than the tenant's first write on a disk
// may be in the bucket alone, and is not answered without it.
func createTenant(t *testing.T, c *client.Client) int64 {
	t.Helper()
	a, err := c.Push(t.Context(), client.V1, request(t, map[string]string{"__name__": "first"}, client.Now(), 1))
	require.NoError(t, err)
	require.True(t, a.OK(), a)
	return client.Now() + 1
}

func requireHealth(t *testing.T, c *client.Client, status int, contains string) {
	t.Helper()
	a, err := c.Get(t.Context(), "/healthz")
	require.NoError(t, err)
	require.Equal(t, status, a.Status, a.Body)
	require.Contains(t, a.Body, contains)
	require.NotContains(t, a.Body, objectstore.SecretKey)
}

func requireReady(t *testing.T, c *client.Client) {
	t.Helper()
	a, err := c.Get(t.Context(), "/ready")
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, a.Status, a.Body)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, startTimeout, 20*time.Millisecond, what)
}

// find returns the files below dir in whose path, from dir on, one of the names is an element. What the server keeps of
// uploads that have not ended lies in a folder of its own and is not seen by clients.
func find(t *testing.T, dir string, names ...string) []string {
	t.Helper()
	var found []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil // removed meanwhile
		}
		if err != nil {
			return err
		}
		if e.IsDir() && strings.HasPrefix(e.Name(), ".sgwtmp") {
			return filepath.SkipDir
		}
		rest, err := filepath.Rel(dir, path)
		if err != nil || e.IsDir() {
			return err
		}
		for element := range strings.SplitSeq(rest, string(filepath.Separator)) {
			if slices.Contains(names, element) {
				found = append(found, path)
				break
			}
		}
		return nil
	}))
	return found
}
