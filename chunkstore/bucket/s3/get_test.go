package s3

import (
	"context"
	"io"
	"maps"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
	"github.com/duramendb/duramen/internal/faultproxy"
)

const notFoundPage = "<html><head><title>404 Not Found</title></head><body>nginx</body></html>"

func TestReadsUnderFaults(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s)
	b := p.open(t, s)
	content := strings.Repeat("0123456789", 10_000)
	buckettest.Put(t, b, "t/object", content)

	get := func(ctx context.Context) (string, error) { return drain(b.Get(ctx, "t/object")) }
	getRange := func(ctx context.Context) (string, error) { return drain(b.GetRange(ctx, "t/object", 5, 50_000)) }
	none := func(http.Header) {}
	for _, c := range []struct {
		name   string
		read   func(context.Context) (string, error)
		faults []faultproxy.Fault
		want   string // the content, or the empty string for an error
		is     error
		text   string
	}{
		{"503 passes", get, faultproxy.Times(tries-1, faultproxy.Answer(503, "")), content, nil, ""},
		{"503 stays", get, faultproxy.Times(tries, faultproxy.Answer(503, "down")), "", nil, ": 503 Service Unavailable: down"},
		{"SlowDown passes", get, faultproxy.Times(tries-1, faultproxy.S3Error(503, "SlowDown")), content, nil, ""},
		{"500 of a range passes", getRange, faultproxy.Times(tries-1, faultproxy.S3Error(500, "InternalError")), content[5:50_005], nil, ""},
		{"reset passes", get, faultproxy.Times(tries-1, faultproxy.Reset()), content, nil, ""},
		{"reset stays", get, faultproxy.Times(2*tries, faultproxy.Reset()), "", nil, b.Name()},
		{"a proxy's 404", get, faultproxy.Times(tries, faultproxy.Answer(404, notFoundPage)), "", ErrNotS3, "404"},
		{"an empty 404", get, faultproxy.Times(tries, faultproxy.Answer(404, "")), "", ErrNotS3, "404"},
		{"a proxy's 404 of a range", getRange, faultproxy.Times(tries, faultproxy.Answer(404, notFoundPage)), "", ErrNotS3, "404"},
		{"a page in place of the object", get, faultproxy.Times(tries, faultproxy.Answer(200, "<html></html>")), "", ErrNotS3, b.Name()},
		{"no content", get, faultproxy.Times(tries, faultproxy.Answer(204, "")), "", ErrNotS3, "204"},
		{"denied", get, faultproxy.Times(1, faultproxy.S3Error(403, "AccessDenied")), "", ErrDenied, "403 AccessDenied: Injected."},
		{"a signature refused", get, faultproxy.Times(1, faultproxy.S3Error(403, "SignatureDoesNotMatch")), "", ErrDenied, b.Name()},
		{"a bad request", get, faultproxy.Times(1, faultproxy.S3Error(400, "Strange")), "", nil, "400 Strange: Injected."},
		{"a body cut off", get, faultproxy.Times(1, faultproxy.CutAfter(70_000, faultproxy.Reset())), "", nil, "read t/object"},
		{"a body cut off at the start", get, faultproxy.Times(1, faultproxy.CutAfter(0, faultproxy.Reset())), "", nil, "read t/object"},
		{"a range cut off", getRange, faultproxy.Times(1, faultproxy.CutAfter(49_999, faultproxy.Reset())), "", nil, "read t/object"},
		{"a short range", getRange, faultproxy.Times(tries, faultproxy.ShortAfter(10, none)), "", ErrNotS3, "length of 10"},
		{"a short range that ends properly", getRange, faultproxy.Times(1, faultproxy.ShortAfter(49_999, func(h http.Header) {
			h.Del("Content-Length")
		})), "", io.ErrUnexpectedEOF, "1 bytes are missing"},
		{"an object without a length", get, faultproxy.Times(tries, faultproxy.ShortAfter(50_000, func(h http.Header) {
			h.Del("Content-Length")
		})), "", ErrNotS3, "without a length"},
		{"ranges unknown", getRange, faultproxy.Times(tries, faultproxy.WholeObject()), "", ErrNotS3, "5-50004"},
		{"another range", getRange, faultproxy.Times(tries, faultproxy.ShortAfter(50_000, func(h http.Header) {
			h.Set("Content-Range", "bytes 6-50005/100000")
		})), "", ErrNotS3, "bytes 6-50005"},
		{"a range that makes no sense", getRange, faultproxy.Times(tries, faultproxy.ShortAfter(50_000, func(h http.Header) {
			h.Set("Content-Range", "bytes x-y/z")
		})), "", ErrNotS3, "bytes x-y"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.Heal()
			p.Spoil(faultproxy.GetObject, c.faults...)
			got, err := c.read(t.Context())
			require.LessOrEqual(t, p.Count(faultproxy.GetObject), 2*tries, "net/http may repeat a request once, on a new connection")
			if c.want != "" {
				require.NoError(t, err)
				require.Equal(t, c.want, got)
				return
			}
			require.Error(t, err)
			require.NotErrorIs(t, err, bucket.ErrNotFound)
			require.ErrorContains(t, err, c.text)
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
		})
	}
}

func drain(r io.ReadCloser, err error) (string, error) {
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return "", err
	}
	return string(data), r.Close()
}

func TestStalls(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s)
	b := p.open(t, s)
	buckettest.Put(t, b, "t/object", strings.Repeat("x", 100_000))
	calls := map[string]struct {
		kind faultproxy.Operation
		call func(context.Context) error
	}{
		"get": {faultproxy.GetObject, func(ctx context.Context) error {
			_, err := drain(b.Get(ctx, "t/object"))
			return err
		}},
		"get range": {faultproxy.GetObject, func(ctx context.Context) error {
			_, err := drain(b.GetRange(ctx, "t/object", 1, 10))
			return err
		}},
		"stat": {faultproxy.HeadObject, func(ctx context.Context) error {
			_, err := b.Stat(ctx, "t/object")
			return err
		}},
		"put": {faultproxy.PutObject, func(ctx context.Context) error {
			return b.Put(ctx, "t/new", strings.NewReader("x"), 1)
		}},
		"put if absent": {faultproxy.PutObject, func(ctx context.Context) error { return b.PutIfAbsent(ctx, "t/new", nil) }},
		"delete":        {faultproxy.DeleteObjects, func(ctx context.Context) error { return b.Delete(ctx, "t/object") }},
		"list": {faultproxy.ListObjects, func(ctx context.Context) error {
			return b.List(ctx, "", true, func(bucket.Object) error { return nil })
		}},
	}
	for name, c := range calls {
		t.Run(name+" until the deadline", func(t *testing.T) {
			p.Heal()
			p.Spoil(c.kind, faultproxy.Stall(nil))
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			start := time.Now()
			err := c.call(ctx)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorContains(t, err, b.Name())
			require.Less(t, time.Since(start), 5*time.Second)
			require.Equal(t, 1, p.Count(c.kind))
		})
	}
	t.Run("in the body until the deadline", func(t *testing.T) {
		p.Heal()
		p.Spoil(faultproxy.GetObject, faultproxy.CutAfter(50_000, faultproxy.Stall(nil)))
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		r, err := b.Get(ctx, "t/object")
		require.NoError(t, err)
		n, err := io.Copy(io.Discard, r)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.EqualValues(t, 50_000, n)
		require.NoError(t, r.Close())
	})
	t.Run("without a deadline", func(t *testing.T) {
		b := p.open(t, s, func(c *Config) { c.StallTimeout = 100 * time.Millisecond })
		buckettest.Put(t, b, "t/object", strings.Repeat("x", 100_000))
		p.Heal()
		p.Spoil(faultproxy.GetObject, faultproxy.CutAfter(50_000, faultproxy.Stall(nil)), faultproxy.Stall(nil))
		_, err := drain(b.Get(t.Context(), "t/object"))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		got, err := drain(b.Get(t.Context(), "t/object"))
		require.NoError(t, err, "the next try gets an answer")
		require.Len(t, got, 100_000)
	})
}

func TestMissingBucketAndWrongKeys(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	for name, c := range map[string]struct {
		change func(*Config)
		want   error
	}{
		"no bucket":           {func(c *Config) { c.BucketName = "nowhere" }, ErrNoBucket},
		"wrong secret":        {func(c *Config) { c.SecretAccessKey = "wrong" }, ErrDenied},
		"wrong key":           {func(c *Config) { c.AccessKeyID = "nobody" }, ErrDenied},
		"no bucket or region": {func(c *Config) { c.BucketName, c.Region = "nowhere", "" }, ErrNoBucket},
	} {
		t.Run(name, func(t *testing.T) {
			b := s.open(t, c.change)
			for call, err := range everyCall(t.Context(), b) {
				require.ErrorIs(t, err, c.want, call)
				require.NotErrorIs(t, err, bucket.ErrNotFound, call)
				require.ErrorContains(t, err, s.Address(), call)
				require.ErrorContains(t, err, b.cfg.BucketName, call)
				require.NotContains(t, err.Error(), "list :", call)
			}
		})
	}
}

func everyCall(ctx context.Context, b *Bucket) map[string]error {
	errs := map[string]error{
		"put":           b.Put(ctx, "t/object", strings.NewReader("x"), 1),
		"put in parts":  b.Put(ctx, "t/object", strings.NewReader(strings.Repeat("x", 17<<20)), 17<<20),
		"put if absent": b.PutIfAbsent(ctx, "t/object", nil),
		"list":          b.List(ctx, "", true, func(bucket.Object) error { return nil }),
		"delete":        b.Delete(ctx, "t/object", "t/other"),
	}
	_, errs["get"] = b.Get(ctx, "t/object")
	_, errs["get range"] = b.GetRange(ctx, "t/object", 0, 1)
	_, errs["get nothing"] = b.GetRange(ctx, "t/object", 0, 0)
	_, errs["stat"] = b.Stat(ctx, "t/object")
	return errs
}

func TestRegionIsAsked(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s)
	b := p.open(t, s, func(c *Config) { c.Region = "" })
	buckettest.Put(t, b, "t/object", "x")
	buckettest.Get(t, b, "t/object")
	require.Equal(t, 1, p.Count(faultproxy.BucketLocation))
}

func TestStatTellsAProxyFromAMissingObject(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s)
	b := p.open(t, s)
	buckettest.Put(t, b, "t/object", "x")
	p.Heal()
	p.Spoil(faultproxy.HeadObject, faultproxy.Times(tries-1, faultproxy.Answer(404, ""))...)
	o, err := b.Stat(t.Context(), "t/object")
	require.NoError(t, err, "the object is there all the same")
	require.EqualValues(t, 1, o.Size)

	p.Spoil(faultproxy.HeadObject, faultproxy.Times(tries, faultproxy.Answer(404, ""))...)
	p.Spoil(faultproxy.GetObject, faultproxy.Times(tries, faultproxy.Answer(404, notFoundPage))...)
	_, err = b.Stat(t.Context(), "t/object")
	require.ErrorIs(t, err, ErrNotS3)
	require.NotErrorIs(t, err, bucket.ErrNotFound)
}

func TestRequestsPerOperation(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s)
	b := p.open(t, s, smallParts)
	buckettest.Put(t, b, "t/object", "0123456789")
	nothing := func(bucket.Object) error { return nil }
	for _, c := range []struct {
		name string
		want int
		call func() error
	}{
		{"put", 1, func() error { return b.Put(t.Context(), "t/1", strings.NewReader("x"), 1) }},
		{"put in parts", 5, func() error { return b.Put(t.Context(), "t/2", zeros(11<<20), 11<<20) }},
		{"put if absent", 1, func() error { return b.PutIfAbsent(t.Context(), "t/3", nil) }},
		{"get", 1, func() error { return ignore(drain(b.Get(t.Context(), "t/object"))) }},
		{"get range", 1, func() error { return ignore(drain(b.GetRange(t.Context(), "t/object", 3, 3))) }},
		{"get range behind the end", 1, func() error { return ignore(drain(b.GetRange(t.Context(), "t/object", 10, 3))) }},
		{"get range of nothing", 1, func() error { return ignore(drain(b.GetRange(t.Context(), "t/object", 3, 0))) }},
		{"stat", 1, func() error { return ignore(b.Stat(t.Context(), "t/object")) }},
		{"list", 1, func() error { return b.List(t.Context(), "", true, nothing) }},
		{"delete", 1, func() error { return b.Delete(t.Context(), "t/1", "t/2", "t/3") }},
		{"delete nothing", 0, func() error { return b.Delete(t.Context()) }},
		{"probe", 3, func() error { return bucket.Probe(t.Context(), b) }},
	} {
		p.Heal()
		require.NoError(t, c.call(), c.name)
		require.Equal(t, c.want, p.Total(), c.name)
	}
	for name, c := range map[string]struct {
		want int
		err  error
	}{
		"get":  {1, ignore(drain(b.Get(t.Context(), "t/none")))},
		"stat": {2, ignore(b.Stat(t.Context(), "t/none"))},
	} {
		require.ErrorIs(t, c.err, bucket.ErrNotFound, name)
	}
	p.Heal()
	_, err := b.Get(t.Context(), "t/none")
	require.ErrorIs(t, err, bucket.ErrNotFound)
	require.Equal(t, 1, p.Total())
	_, err = b.Stat(t.Context(), "t/none")
	require.ErrorIs(t, err, bucket.ErrNotFound)
	require.Equal(t, 3, p.Total())
}

func ignore[T any](_ T, err error) error { return err }

// TestGetStreams reads an object that is much larger than what reading it may allocate, and is alone while it does.
func TestGetStreams(t *testing.T) {
	const size = 64 << 20
	s := startServer(t)
	b := s.open(t)
	path := filepath.Join(s.Dir(), b.cfg.BucketName, "large")
	f, err := os.Create(path)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(size))
	require.NoError(t, f.Close())

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r, err := b.Get(t.Context(), "large")
	require.NoError(t, err)
	n, err := io.Copy(io.Discard, r)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	runtime.ReadMemStats(&after)
	require.EqualValues(t, size, n)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(2<<20))

	r, err = b.Get(t.Context(), "large")
	require.NoError(t, err)
	require.NoError(t, r.Close(), "a body may be closed unread")
}

func TestRangeLength(t *testing.T) {
	for _, c := range []struct {
		header            string
		length, off, last int64
		want              int64 // -1 for an error
	}{
		{"bytes 0-9/10", 10, 0, 9, 10},
		{"bytes 0-9/10", -1, 0, 99, 10},
		{"bytes 2-4/10", 3, 2, 4, 3},
		{"bytes 2-9/10", 8, 2, math.MaxInt64, 8},
		{"", 10, 0, 9, 10},
		{"", 0, 0, 9, 0},
		{"", 11, 0, 9, -1},
		{"", -1, 0, 9, -1},
		{"", 3, 2, 4, -1},
		{"bytes 2-4/10", 2, 2, 4, -1},
		{"bytes 2-3/10", 2, 2, 4, -1},
		{"bytes 2-5/10", 4, 2, 4, -1},
		{"bytes 3-4/10", 2, 2, 4, -1},
		{"bytes 2-4/*", 3, 2, 4, -1},
		{"bytes 4-2/10", 3, 4, 2, -1},
		{"bytes -4/10", 3, 0, 4, -1},
		{"bytes 2-4", 3, 2, 4, -1},
		{"2", 3, 2, 4, -1},
		{"bytes 2-99999999999999999999/10", 3, 2, 4, -1},
	} {
		n, err := rangeLength(c.header, c.length, c.off, c.last)
		if c.want < 0 {
			require.ErrorIs(t, err, ErrNotS3, "%+v", c)
			continue
		}
		require.NoError(t, err, "%+v", c)
		require.Equal(t, c.want, n, "%+v", c)
	}
}

func TestSlowAnswerIsNoStall(t *testing.T) {
	t.Parallel()
	const stallTimeout, pause, pieces = 500 * time.Millisecond, 20 * time.Millisecond, 50
	s := startServer(t)
	p := startProxy(t, s)
	b := p.open(t, s, func(c *Config) { c.StallTimeout = stallTimeout })
	buckettest.Put(t, b, "t/object", strings.Repeat("x", 1000*pieces))
	p.Spoil(faultproxy.GetObject, faultproxy.Func("slow", func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		rec := faultproxy.Recorded(r, forward)
		maps.Copy(w.Header(), rec.Header())
		for piece := range slices.Chunk(rec.Body.Bytes(), 1000) {
			time.Sleep(pause)
			_, _ = w.Write(piece)
			_ = http.NewResponseController(w).Flush()
		}
	}))
	start := time.Now()
	require.Len(t, buckettest.Get(t, b, "t/object"), 1000*pieces)
	require.Greater(t, time.Since(start), stallTimeout, "or it would show nothing")
}

func TestContextEndsBetweenTries(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s)
	b := p.open(t, s, func(c *Config) { c.FirstPause = time.Hour })
	p.Spoil(faultproxy.GetObject, faultproxy.Answer(503, "down"))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := b.Get(ctx, "t/object")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "503", "and why there was a pause")
}

// TestEndlessAnswers: what is not the content of an object is read up to a bound, in memory and in time.
func TestEndlessAnswers(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s)
	b := p.open(t, s)
	buckettest.Put(t, b, "t/object", "x")
	for _, status := range []int{200, 400, 404, 503} {
		var sent atomic.Int64 // of the longest answer; the end of an abandoned one may overlap the next
		endless := faultproxy.Func("endless", func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("ETag", `"0"`)
			w.WriteHeader(status)
			page := []byte(strings.Repeat(" ", 64<<10))
			for mine := int64(0); ; {
				n, err := w.Write(page)
				mine += int64(n)
				for longest := sent.Load(); mine > longest && !sent.CompareAndSwap(longest, mine); longest = sent.Load() {
				}
				if err != nil {
					return
				}
			}
		})
		for call, f := range map[string]func() error{
			"get":           func() error { return ignore(b.Get(t.Context(), "t/object")) },
			"put":           func() error { return b.Put(t.Context(), "t/object", strings.NewReader("x"), 1) },
			"put if absent": func() error { return b.PutIfAbsent(t.Context(), "t/new", nil) },
			"delete":        func() error { return b.Delete(t.Context(), "t/new") },
			"list":          func() error { return b.List(t.Context(), "", true, func(bucket.Object) error { return nil }) },
		} {
			p.SetPlan(faultproxy.Always(endless))
			err := f()
			p.SetPlan(nil)
			if call != "put" && call != "put if absent" || status != 200 {
				require.Error(t, err, "%d to %s", status, call)
			}
			require.Eventually(t, func() bool { return p.Active() == 0 }, time.Minute, time.Millisecond, "%d to %s", status, call)
			require.Less(t, sent.Load(), int64(64<<20), "%d to %s", status, call)
		}
	}
}
