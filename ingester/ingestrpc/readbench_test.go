package ingestrpc

import (
	"context"
	"fmt"
	"math"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/ingester"
)

const (
	benchSeries  = 20_000
	benchSamples = 240 // of each, one a quarter of a minute: an hour
)

// fillBench pushes series with ten labels and an hour of gauges.
func fillBench(b *testing.B) *ingester.Ingester {
	i := newIngester(b, false)
	lsets := make([]labels.Labels, benchSeries)
	for n := range lsets {
		lsets[n] = labels.FromStrings("__name__", "http_request_duration_seconds_bucket", "cluster", "eu-west-1a",
			"handler", fmt.Sprintf("/api/v1/handler-%d", n%20), "instance", fmt.Sprintf("10.0.%d.%d:8080", n/200, n/20%10),
			"job", "kubernetes-pods", "le", fmt.Sprint(n%12), "method", "GET", "namespace", "production",
			"pod", fmt.Sprintf("service-%d-6f7c9d7b8-abcde", n/20), "i", fmt.Sprint(n))
	}
	begin := testStart.Add(-time.Hour).UnixMilli()
	for at := 0; at < benchSamples; at += 20 {
		for from := 0; from < len(lsets); from += 5000 {
			p := &batch{}
			for n := from; n < from+5000; n++ {
				for s := at; s < at+20; s++ {
					p.Floats = append(p.Floats, duramenpb.Float{T: begin + int64(s)*15_000, V: float64(n%100) + float64(s%17)})
				}
				p.end(duramenpb.Series{Labels: lsets[n]})
			}
			push(b, i, p)
		}
	}
	return i
}

// cpu is the time that this process has had of its processors.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkSelect reads all series with their chunks: as the ingester gives them, and over loopback with both sides in this
// process. The CPU is that of all goroutines, the collector's included.
func BenchmarkSelect(b *testing.B) {
	i := fillBench(b)
	w := startWire(b, i, nil)
	readers := map[string]interface {
		Select(ctx context.Context, tenantID string, view duramenpb.View, mint, maxt int64, hints *storage.SelectHints,
			matchers ...*labels.Matcher) (duramenpb.Selection, error)
	}{"local": NewLocalReader(i), "wire": w}
	for _, name := range []string{"local", "wire"} {
		for _, fn := range []string{"", listsSeries} {
			b.Run(name+fn, func(b *testing.B) {
				b.ReportAllocs()
				before, samples := cpu(), 0
				for b.Loop() {
					n := 0
					n, samples = benchRead(b, readers[name], fn)
					require.Equal(b, benchSeries, n)
				}
				used := float64((cpu() - before).Microseconds()) / float64(b.N)
				b.ReportMetric(used/benchSeries*1000, "µs/1000series")
				if samples > 0 {
					b.ReportMetric(used/float64(samples)*1e6, "µs/1Msamples")
				}
			})
		}
	}
}

func benchRead(b *testing.B, r interface {
	Select(ctx context.Context, tenantID string, view duramenpb.View, mint, maxt int64, hints *storage.SelectHints,
		matchers ...*labels.Matcher) (duramenpb.Selection, error)
}, fn string,
) (n, samples int) {
	hints := &storage.SelectHints{Start: math.MinInt64, End: math.MaxInt64, Func: fn}
	s, err := r.Select(b.Context(), "a", everything, math.MinInt64, math.MaxInt64, hints, anyName())
	require.NoError(b, err)
	defer s.Close()
	var it chunks.Iterator
	for s.Series.Next() {
		n++
		if fn == listsSeries {
			continue
		}
		for it = s.Series.At().Iterator(it); it.Next(); {
			samples += it.At().Chunk.NumSamples()
		}
	}
	require.NoError(b, s.Series.Err())
	return n, samples
}

// BenchmarkPlan is the price of a call.
func BenchmarkPlan(b *testing.B) {
	i := newIngester(b, false)
	push(b, i, new(batch).floats(labels.FromStrings("__name__", "x"), 1, testStart.UnixMilli()))
	w := startWire(b, i, nil)
	b.ReportAllocs()
	before := cpu()
	for b.Loop() {
		_, err := w.Plan(b.Context(), "a", everything, 0, 1)
		require.NoError(b, err)
	}
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-µs/op")
}
