package ingester

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/duramenpb"
)

func benchIngester(b *testing.B) *Ingester {
	b.Helper()
	i, err := New(testConfig(b.TempDir()), bucket.NewInMemory(), &testCatalog{manifests: map[string]*manifest.Manifest{}},
		&testLimits{window: 3 * time.Hour}, time.Now, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(b, err)
	i.shipper.upload = fakeUpload
	s := i.Service()
	require.NoError(b, s.Start(context.Background()))
	b.Cleanup(func() { require.NoError(b, s.Stop()) })
	return i
}

func benchLabels(i int) labels.Labels {
	return labels.FromStrings("__name__", fmt.Sprintf("http_requests_%d_total", i%100), "cluster", "eu-1", "namespace", "shop",
		"pod", fmt.Sprintf("cart-%d", i/100), "container", "cart", "code", "200", "method", "GET", "path", "/cart/checkout")
}

// benchBatches are batches of 2,000 series that cover 100,000.
func benchBatches(series, size int) []*batch {
	var out []*batch
	for i := 0; i < series; i += size {
		b := &batch{}
		for j := i; j < i+size; j++ {
			b.floats(benchLabels(j), 1, 0)
		}
		out = append(out, b)
	}
	return out
}

// stamp gives all samples the time t and a value that changes.
func stamp(b *batch, t int64) {
	for i := range b.Floats {
		b.Floats[i].T, b.Floats[i].V = t, float64(t/1000+int64(i))
	}
}

// BenchmarkPush appends floats to 100,000 series in batches of 2,000, WAL on; a time unit is a batch.
func BenchmarkPush(b *testing.B) {
	const series, size = 100_000, 2000
	for _, mode := range []string{"ref", "labels"} {
		b.Run(mode, func(b *testing.B) {
			i := benchIngester(b)
			batches := benchBatches(series, size)
			r := &duramenpb.PushResult{}
			begin := time.Now().Add(-2 * time.Hour).UnixMilli()
			for _, x := range batches {
				stamp(x, begin)
				require.NoError(b, i.Push(context.Background(), "a", &x.Batch, r))
				if mode == "ref" {
					x.Incarnation = r.Incarnation
					for n := range x.Series {
						x.Series[n].Ref, x.Series[n].Labels = r.Refs[n], labels.EmptyLabels()
					}
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			for n := range b.N {
				x := batches[n%len(batches)]
				b.StopTimer()
				stamp(x, begin+int64(1+n/len(batches))*15_000)
				b.StartTimer()
				if err := i.Push(context.Background(), "a", &x.Batch, r); err != nil || r.Floats != size {
					b.Fatal(err, r)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/size, "ns/sample")
		})
	}
}

// BenchmarkPushRetried sends a request of 2,000 samples again that is held in full: once as the newest of each series,
// once with newer samples behind it.
func BenchmarkPushRetried(b *testing.B) {
	for _, newer := range []int{0, 100} {
		b.Run(fmt.Sprintf("newer=%d", newer), func(b *testing.B) {
			i := benchIngester(b)
			x := benchBatches(2000, 2000)[0]
			r := &duramenpb.PushResult{}
			begin := time.Now().Add(-2 * time.Hour).UnixMilli()
			for n := newer; n >= 0; n-- {
				stamp(x, begin+int64(newer-n)*15_000)
				require.NoError(b, i.Push(context.Background(), "a", &x.Batch, r))
			}
			stamp(x, begin)
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				if err := i.Push(context.Background(), "a", &x.Batch, r); err != nil || r.Floats != 2000 {
					b.Fatal(err, r)
				}
			}
		})
	}
}

// TestPushAllocatesNothingPerSample guards the pooled state of a push: a batch of floats by reference takes a fixed number
// of allocations, most of them stock's appender.
func TestPushAllocatesNothingPerSample(t *testing.T) {
	f := newFixture(t)
	x := benchBatches(2000, 2000)[0]
	at := ms(testStart)
	stamp(x, at)
	r := f.push(x)
	x.Incarnation = r.Incarnation
	for n := range x.Series {
		x.Series[n].Ref, x.Series[n].Labels = r.Refs[n], labels.EmptyLabels()
	}
	perPush := testing.AllocsPerRun(20, func() {
		at += 15_000
		stamp(x, at)
		if err := f.Push(context.Background(), "a", &x.Batch, r); err != nil || r.Floats != 2000 {
			t.Fatal(err, r)
		}
	})
	t.Logf("%.0f allocations for 2,000 samples", perPush)
	require.Less(t, perPush, 100.0)
}
