package ingestrpc

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/peerconn"
)

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// scrapes encodes one batch after another of the same series by reference, each a scrape later than the one before.
type scrapes struct {
	first  duramenpb.PushResult
	values []float64
	n      int
	enc    duramenpb.SectionEncoder
	buf    []byte
}

func newScrapes(first *duramenpb.PushResult) *scrapes {
	s := &scrapes{first: *first}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range first.Refs {
		s.values = append(s.values, []float64{float64(r.Int64N(1e9)), r.NormFloat64(), float64(i % 7), float64(r.Int64N(1e7)) / 1000}[i%4])
	}
	return s
}

func (s *scrapes) next() []byte {
	s.n++
	at := testStartMillis() + int64(s.n)*10
	s.enc.Begin(s.buf[:0], "a", s.first.Incarnation)
	for i, ref := range s.first.Refs {
		s.enc.Series(ref, labels.EmptyLabels())
		s.enc.Float(at, 0, s.values[i]+float64(s.n))
	}
	s.buf = s.enc.Finish()
	return s.buf
}

// BenchmarkPushOverLoopback sends sections of floats by reference to an ingester, from samples to answer, and reports the processor's time of both ends together and the bytes on the wire.
func BenchmarkPushOverLoopback(bench *testing.B) {
	for _, senders := range []int{1, 8} {
		for _, samples := range []int{100, 2000} {
			bench.Run(fmt.Sprintf("senders=%d/samples=%d", senders, samples), func(bench *testing.B) {
				benchmarkPush(bench, senders, samples)
			})
		}
	}
}

func benchmarkPush(bench *testing.B, senders, samples int) {
	server := servePushes(bench, newIngester(bench, false), ServerConfig{}, "127.0.0.1:0")
	reg := prometheus.NewRegistry()
	conns, err := peerconn.New(peerconn.Config{SilenceTimeout: time.Second}, slog.New(slog.DiscardHandler), reg)
	require.NoError(bench, err)
	defer conns.Close()
	c, err := NewClient(pushClient(bench, ClientConfig{}).cfg, conns, slog.New(slog.DiscardHandler), nil)
	require.NoError(bench, err)
	defer c.Close()
	p := c.Peer(server.address)
	loads := make([]*scrapes, senders)
	for i := range loads {
		first, err := sendBatch(bench.Context(), p, "a", labelled(fmt.Sprint("m", i), samples, testStartMillis())).wait(bench)
		require.NoError(bench, err)
		loads[i] = newScrapes(first)
	}
	bytes := func() float64 {
		families, err := reg.Gather()
		require.NoError(bench, err)
		sum := 0.0
		for _, f := range families {
			if f.GetName() == "duramen_peerconn_sent_bytes_total" || f.GetName() == "duramen_peerconn_received_bytes_total" {
				sum += f.GetMetric()[0].GetCounter().GetValue()
			}
		}
		return sum
	}
	wire, cpu := bytes(), cpuTime()
	bench.ReportAllocs()
	bench.ResetTimer()
	var working sync.WaitGroup
	for i, load := range loads {
		working.Go(func() {
			done := make(chan struct{}, 1)
			for range (bench.N + senders - 1 - i) / senders {
				p.Send(bench.Context(), "a", load.next(), func(r *duramenpb.PushResult, err error) {
					if err != nil || r.Floats != samples {
						bench.Error(r, err)
					}
					done <- struct{}{}
				})
				<-done
			}
		})
	}
	working.Wait()
	bench.StopTimer()
	total := float64(bench.N) * float64(samples)
	bench.ReportMetric(float64((cpuTime()-cpu).Microseconds())/total*1000, "cpu-µs/1000samples")
	bench.ReportMetric((bytes()-wire)/total, "wire-B/sample")
}
