package ingestrpc

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/ingester"
	"github.com/duramendb/duramen/internal/peerconn"
	"github.com/duramendb/duramen/internal/tracing"
)

// pushGate is a Pusher before another one, which a test can close, and which can fail.
type pushGate struct {
	Pusher

	commits *committer // which pushes here

	mu     sync.Mutex
	shut   chan struct{} // nil: open
	fail   func(tenantID string, b *duramenpb.Batch) error
	pushes int
	inside int
	series []int // of each push
}

// Push implements Pusher.
func (g *pushGate) Push(ctx context.Context, tenantID string, b *duramenpb.Batch, r *duramenpb.PushResult) error {
	g.mu.Lock()
	g.pushes++
	g.inside++
	g.series = append(g.series, len(b.Series))
	shut, fail := g.shut, g.fail
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		g.inside--
		g.mu.Unlock()
	}()
	if shut != nil {
		<-shut
	}
	if fail != nil {
		if err := fail(tenantID, b); err != nil {
			r.Reset()
			return err
		}
	}
	return g.Pusher.Push(ctx, tenantID, b, r)
}

// close holds pushes back until the returned function is called.
func (g *pushGate) close() (open func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	shut := make(chan struct{})
	g.shut = shut
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.shut = nil
		close(shut)
	})
}

// waiting is how many sections have arrived and are in no push yet.
func (g *pushGate) waiting() (n int) {
	g.commits.mu.Lock()
	defer g.commits.mu.Unlock()
	for _, queue := range g.commits.waiting {
		n += len(queue)
	}
	return n
}

func (g *pushGate) failing(fail func(tenantID string, b *duramenpb.Batch) error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fail = fail
}

func (g *pushGate) counts() (pushes, inside int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pushes, g.inside
}

// pushed is a server of pushes in front of an ingester, with a gate between them.
type pushed struct {
	t       testing.TB
	gate    *pushGate
	server  *Server
	grpc    *grpc.Server
	address string
	serving sync.WaitGroup
}

func servePushes(t testing.TB, pusher Pusher, cfg ServerConfig, address string) *pushed {
	t.Helper()
	return serveTraced(t, pusher, cfg, address, nil)
}

func serveTraced(t testing.TB, pusher Pusher, cfg ServerConfig, address string, traces *tracing.Provider) *pushed {
	t.Helper()
	var defaults ServerConfig
	defaults.RegisterFlags(flag.NewFlagSet("", flag.PanicOnError))
	if cfg.BufferBytes > 0 {
		defaults.BufferBytes = cfg.BufferBytes
	}
	p := &pushed{t: t, gate: &pushGate{Pusher: pusher}}
	var err error
	p.server, err = NewServer(defaults, p.gate, traces, slog.New(slog.DiscardHandler), nil)
	require.NoError(t, err)
	p.gate.commits = p.server.commits
	p.grpc = grpc.NewServer(peerconn.ServerOptions(insecure.NewCredentials())...)
	p.server.Register(p.grpc)
	l, err := net.Listen("tcp", address)
	require.NoError(t, err)
	p.address = l.Addr().String()
	p.serving.Go(func() { _ = p.grpc.Serve(l) })
	t.Cleanup(p.stop)
	return p
}

// stop is sudden: connections break.
func (p *pushed) stop() {
	p.grpc.Stop()
	p.serving.Wait()
	p.server.Wait()
}

func pushClient(t testing.TB, cfg ClientConfig) *Client {
	t.Helper()
	conns, err := peerconn.New(peerconn.Config{SilenceTimeout: 400 * time.Millisecond}, slog.New(slog.DiscardHandler), nil)
	require.NoError(t, err)
	var defaults ClientConfig
	defaults.RegisterFlags(flag.NewFlagSet("", flag.PanicOnError))
	if cfg.MaxInflightBytes > 0 {
		defaults.MaxInflightBytes = cfg.MaxInflightBytes
	}
	c, err := NewClient(defaults, conns, slog.New(slog.DiscardHandler), nil)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, c.Close())
		require.Zero(t, c.inflight.Load(), "every section has its answer")
		require.NoError(t, conns.Close())
	})
	return c
}

// sender is what Peer and Local have in common.
type sender interface {
	Send(ctx context.Context, tenantID string, section []byte, done func(*duramenpb.PushResult, error))
	Failing() bool
}

// verdict is a copy of what done was given, and how often it was called.
type verdict struct {
	mu     sync.Mutex
	result duramenpb.PushResult
	err    error
	calls  int
	came   chan struct{}
}

func (v *verdict) done(r *duramenpb.PushResult, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.calls++
	v.err = err
	if r != nil {
		v.result = *r
		v.result.Refs = append([]uint64(nil), r.Refs...)
		v.result.Stale = append([]int(nil), r.Stale...)
		v.result.Refused = append([]duramenpb.Refusal(nil), r.Refused...)
	}
	if v.calls == 1 {
		close(v.came)
	}
}

func (v *verdict) wait(t testing.TB) (*duramenpb.PushResult, error) {
	t.Helper()
	select {
	case <-v.came:
	case <-time.After(20 * time.Second):
		t.Fatal("no answer")
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	require.Equal(t, 1, v.calls)
	return &v.result, v.err
}

func (v *verdict) isDone() bool {
	select {
	case <-v.came:
		return true
	default:
		return false
	}
}

// sendBatch sends a batch and returns where its answer comes.
func sendBatch(ctx context.Context, s sender, tenantID string, b *duramenpb.Batch) *verdict {
	v := &verdict{came: make(chan struct{})}
	s.Send(ctx, tenantID, encodeBatch(tenantID, b), v.done)
	return v
}

func encodeBatch(tenantID string, b *duramenpb.Batch) []byte {
	var e duramenpb.SectionEncoder
	e.Begin(nil, tenantID, b.Incarnation)
	f, h, x := 0, 0, 0
	for _, s := range b.Series {
		e.Series(s.Ref, s.Labels)
		for ; f < s.FloatsEnd; f++ {
			e.Float(b.Floats[f].T, b.Floats[f].ST, b.Floats[f].V)
		}
		for ; h < s.HistogramsEnd; h++ {
			e.Histogram(b.Histograms[h].T, b.Histograms[h].ST, b.Histograms[h].H, b.Histograms[h].FH)
		}
		for ; x < s.ExemplarsEnd; x++ {
			e.Exemplar(b.Exemplars[x])
		}
	}
	for _, m := range b.Metadata {
		e.Metadata(m)
	}
	return e.Finish()
}

// labelled is a batch of one float in each of n new series of a metric.
func labelled(metric string, n int, at int64) *duramenpb.Batch {
	b := &batch{}
	for i := range n {
		b.floats(labels.FromStrings(labels.MetricName, metric, "i", fmt.Sprint(i)), float64(at+int64(i)), at)
	}
	return &b.Batch
}

// references is a batch of one float in each series of refs.
func references(r *duramenpb.PushResult, at int64) *duramenpb.Batch {
	b := &batch{}
	b.Incarnation = r.Incarnation
	for i, ref := range r.Refs {
		b.Floats = append(b.Floats, duramenpb.Float{T: at, V: float64(at + int64(i))})
		b.end(duramenpb.Series{Ref: ref})
	}
	return &b.Batch
}

// contents returns all samples of a tenant by series, in text.
func contents(t testing.TB, i *ingester.Ingester, tenantID string) map[string][]string {
	t.Helper()
	q, _, err := i.Querier(t.Context(), tenantID, everything, math.MinInt64, math.MaxInt64)
	require.NoError(t, err)
	defer func() { require.NoError(t, q.Close()) }()
	out := map[string][]string{}
	set := q.Select(t.Context(), true, nil, anyName())
	for set.Next() {
		s := set.At()
		var samples []string
		it := s.Iterator(nil)
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			switch kind {
			case chunkenc.ValHistogram:
				ts, h := it.AtHistogram(nil)
				samples = append(samples, fmt.Sprint(ts, h, h.CustomValues, h.CounterResetHint))
			case chunkenc.ValFloatHistogram:
				ts, h := it.AtFloatHistogram(nil)
				samples = append(samples, fmt.Sprint(ts, h, h.CustomValues, h.CounterResetHint))
			default:
				ts, v := it.At()
				samples = append(samples, fmt.Sprint(ts, math.Float64bits(v)))
			}
		}
		require.NoError(t, it.Err())
		out[s.Labels().String()] = samples
	}
	require.NoError(t, set.Err())
	return out
}

// soon waits for a condition.
func soon(t testing.TB, what string, cond func() bool) {
	t.Helper()
	require.Eventually(t, cond, 20*time.Second, 2*time.Millisecond, what)
}

func ingesterOf(t testing.TB, gate *pushGate) *ingester.Ingester {
	t.Helper()
	i, ok := gate.Pusher.(*ingester.Ingester)
	require.True(t, ok)
	return i
}
