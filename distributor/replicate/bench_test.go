package replicate

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/duramenpb"
)

const perBatch = 2000

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchmarkReplicate(b *testing.B, series, each int) {
	c := newCluster(b, 3, each, "a", "b", "c")
	r := newTest(b, c, testConfig())
	for _, p := range c.peers {
		p.serve = nil
	}
	var batches []*duramenpb.Batch
	for from := 0; from < series; from += perBatch {
		in := batch(from, perBatch, time.Now().UnixMilli())
		for i := range in.Floats {
			in.Floats[i].V = float64(i) * 1.37
		}
		var res duramenpb.PushResult
		require.NoError(b, r.Push(b.Context(), "t", in, &res))
		byRefs(in, &res)
		batches = append(batches, in)
	}
	for _, p := range c.peers {
		p.serve = count(p.incarnation)
	}
	var res duramenpb.PushResult
	before := testutil.ToFloat64(r.metrics.bytes)
	b.ReportAllocs()
	b.ResetTimer()
	begin := cpuTime()
	for n := 0; b.Loop(); n++ {
		in := batches[n%len(batches)]
		for i := range in.Floats {
			in.Floats[i].T += 15_000
		}
		if err := r.Push(b.Context(), "t", in, &res); err != nil || len(res.Stale) > 0 {
			b.Fatal(err, len(res.Stale))
		}
	}
	n := float64(b.N) * perBatch
	b.ReportMetric(float64((cpuTime()-begin).Nanoseconds())/n, "cpu-ns/sample")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/n, "ns/sample")
	b.ReportMetric((testutil.ToFloat64(r.metrics.bytes)-before)/n/3, "bytes/sample/replica")
}

// count answers with success after reading how many samples a section has.
func count(incarnation uint64) func(context.Context, []byte, func(*duramenpb.PushResult, error)) {
	var d duramenpb.SectionDecoder
	var in duramenpb.Batch
	var res duramenpb.PushResult
	return func(_ context.Context, section []byte, done func(*duramenpb.PushResult, error)) {
		in.Series, in.Floats = in.Series[:0], in.Floats[:0]
		err := d.Decode(section, &in)
		res.Reset()
		res.Incarnation, res.Floats = incarnation, len(in.Floats)
		done(&res, err)
	}
}

// What a batch costs on its way to three replicas when every series is known: one member in each zone, five, and many
// series. The figures have the decoding of the three sections in them, about 10 ns a sample and replica.
func BenchmarkReplicate(b *testing.B)     { benchmarkReplicate(b, perBatch, 1) }
func BenchmarkReplicateWide(b *testing.B) { benchmarkReplicate(b, perBatch, 5) }
func BenchmarkReplicateCold(b *testing.B) { benchmarkReplicate(b, 100_000, 1) }
