package distributor

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/distributor/rw1"
	"github.com/duramendb/duramen/distributor/rw2"
	"github.com/duramendb/duramen/duramenpb"
)

const perRequest = 2000

// perSample reports time per sample, and the process's CPU time, which says more on a busy machine. begin is from
// cpuTime.
func perSample(b *testing.B, begin time.Duration) {
	n := float64(b.N) * perRequest
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/n, "ns/sample")
	b.ReportMetric(float64((cpuTime()-begin).Nanoseconds())/n, "cpu-ns/sample")
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func marshal1(t testing.TB, w *prompb.WriteRequest) []byte {
	body, err := w.Marshal()
	require.NoError(t, err)
	return body
}

func marshal2(t testing.TB, w *writev2.Request) []byte {
	body, err := w.OptimizedMarshal(nil)
	require.NoError(t, err)
	return body
}

func BenchmarkDecode1(b *testing.B) {
	body := marshal1(b, scrape(perRequest, 0))
	r := &request{}
	b.ReportAllocs()
	begin := cpuTime()
	for b.Loop() {
		r.Request.Reset(body, 1<<30, r)
		if err := rw1.Decode(&r.Request); err != nil {
			b.Fatal(err)
		}
	}
	perSample(b, begin)
}

func BenchmarkDecode2(b *testing.B) {
	body := marshal2(b, toFormat2(scrape(perRequest, 0)))
	r := &request{}
	b.ReportAllocs()
	begin := cpuTime()
	for b.Loop() {
		r.Request.Reset(body, 1<<30, r)
		if err := rw2.Decode(&r.Request); err != nil {
			b.Fatal(err)
		}
	}
	perSample(b, begin)
}

func BenchmarkKeys1(b *testing.B) {
	h := newHasher()
	r := &request{}
	r.Request.Reset(marshal1(b, scrape(perRequest, 0)), 1<<30, r)
	require.NoError(b, rw1.Decode(&r.Request))
	begin := cpuTime()
	for b.Loop() {
		r.keys = h.labelKeys(r.keys[:0], &r.Request)
	}
	perSample(b, begin)
}

func BenchmarkKeys2(b *testing.B) {
	h := newHasher()
	r := &request{}
	r.Request.Reset(marshal2(b, toFormat2(scrape(perRequest, 0))), 1<<30, r)
	require.NoError(b, rw2.Decode(&r.Request))
	begin := cpuTime()
	for b.Loop() {
		r.symbols = h.symbolHashes(r.symbols[:0], &r.Request)
		r.keys = h.refKeys(r.keys[:0], &r.Request, r.symbols)
	}
	perSample(b, begin)
}

// pushOnce takes a compressed body the way that the handler does, without HTTP around it.
func pushOnce(d *Distributor, f format, compressed []byte) error {
	return pushContext(context.Background(), d, f, compressed)
}

func pushContext(ctx context.Context, d *Distributor, f format, compressed []byte) error {
	r := d.pool.get(d, f)
	defer d.pool.put(r)
	r.begin("t", d.now())
	r.compressed = append(r.compressed[:0], compressed...)
	if err := r.push(ctx); err != nil {
		return err
	}
	if r.stored.floats != r.sent.floats {
		return errNotStored
	}
	return nil
}

var errNotStored = errRate{}

// numbering accepts all and gives references without allocating.
func numbering(_ context.Context, _ string, b *duramenpb.Batch, r *duramenpb.PushResult) error {
	r.Incarnation = 7
	for i := range b.Series {
		r.Refs = append(r.Refs, max(b.Series[i].Ref, uint64(i+1)))
	}
	r.Floats, r.Histograms, r.Exemplars = len(b.Floats), len(b.Histograms), len(b.Exemplars)
	return nil
}

func benchmarkPush(b *testing.B, f format, series int) {
	d, _ := newTest(b, pusherFunc(numbering), openLimits())
	var bodies [][]byte
	for from := 0; from < series; from += perRequest {
		w := scrape(perRequest, from)
		body := snappy.Encode(nil, marshal1(b, w))
		if f == format2 {
			body = snappy.Encode(nil, marshal2(b, toFormat2(w)))
		}
		bodies = append(bodies, body)
		require.NoError(b, pushOnce(d, f, body))
	}
	at := time.Now()
	d.now = func() time.Time { return at }
	b.ReportAllocs()
	b.ResetTimer()
	begin := cpuTime()
	for n := 0; b.Loop(); n++ {
		if err := pushOnce(d, f, bodies[n%len(bodies)]); err != nil {
			b.Fatal(err)
		}
	}
	perSample(b, begin)
}

// The whole way from a compressed body to the answer, everything in the cache.
func BenchmarkPush1(b *testing.B)     { benchmarkPush(b, format1, perRequest) }
func BenchmarkPush2(b *testing.B)     { benchmarkPush(b, format2, perRequest) }
func BenchmarkPush1Cold(b *testing.B) { benchmarkPush(b, format1, 100_000) }
func BenchmarkPush2Cold(b *testing.B) { benchmarkPush(b, format2, 100_000) }

// BenchmarkPush1New is the slow path: no series is in the cache.
func BenchmarkPush1New(b *testing.B) {
	l := openLimits()
	d, _ := newTest(b, pusherFunc(numbering), l)
	body := snappy.Encode(nil, marshal1(b, scrape(perRequest, 0)))
	b.ReportAllocs()
	begin := cpuTime()
	for b.Loop() {
		l.epoch++
		if err := pushOnce(d, format1, body); err != nil {
			b.Fatal(err)
		}
	}
	perSample(b, begin)
}
