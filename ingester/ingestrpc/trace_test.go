package ingestrpc

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/peerconn"
	"github.com/duramendb/duramen/internal/rpcframe"
	"github.com/duramendb/duramen/internal/tracing"
	"github.com/duramendb/duramen/internal/tracing/collector"
)

// recorder records spans.
type recorder struct {
	*tracing.Provider

	t         *testing.T
	collector *collector.Collector
	n         int
}

func newRecorder(t *testing.T) *recorder {
	t.Helper()
	c, err := collector.Start(nil)
	require.NoError(t, err)
	t.Cleanup(c.Stop)
	var cfg tracing.Config
	f := flag.NewFlagSet("", flag.ContinueOnError)
	cfg.RegisterFlags(f)
	require.NoError(t, f.Parse([]string{"-tracing.otlp-endpoint=" + c.Address(), "-tracing.otlp-insecure"}))
	p, err := tracing.New(cfg, tracing.Identity{}, time.Now, slog.New(slog.DiscardHandler), nil)
	require.NoError(t, err)
	s := p.Service()
	require.NoError(t, s.Start(context.WithoutCancel(t.Context())))
	t.Cleanup(func() { require.NoError(t, s.Stop()) })
	return &recorder{Provider: p, t: t, collector: c}
}

// begin begins another trace.
func (r *recorder) begin() (context.Context, tracing.Span) {
	r.n++
	parent := fmt.Sprintf("00-%032x-%016x-01", r.n, 7)
	return r.Request(r.t.Context(), http.Header{"Traceparent": {parent}}, "request")
}

// spans waits for a trace of n spans and returns them by name.
func (r *recorder) spans(of tracing.Span, n int) map[string]collector.Span {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	all, err := r.collector.Trace(ctx, of.TraceID(), func(s []collector.Span) bool { return len(s) >= n })
	require.NoError(r.t, err, all)
	byName := map[string]collector.Span{}
	for _, s := range all {
		byName[s.Name] = s
	}
	require.Len(r.t, byName, n)
	return byName
}

// TestTracesCrossToIngesters: the spans of an ingester are below the span that sends, over a stream and in process. Of
// sections that are pushed together one has the push below it, and the others name its trace.
func TestTracesCrossToIngesters(t *testing.T) {
	r := newRecorder(t)
	for _, way := range []string{"stream", "local"} {
		t.Run(way, func(t *testing.T) {
			var s sender
			var gate *pushGate
			if way == "stream" {
				p := serveTraced(t, newIngester(t, false), ServerConfig{}, "127.0.0.1:0", r.Provider)
				s, gate = pushClient(t, ClientConfig{}).Peer(p.address), p.gate
			} else {
				gate = &pushGate{Pusher: newIngester(t, false)}
				l := NewLocal(ClientConfig{MaxInflightBytes: 32 << 20}, gate, slog.New(slog.DiscardHandler))
				t.Cleanup(func() { require.NoError(t, l.Close()) })
				s, gate.commits = l, l.commits
			}
			send := func(ctx context.Context, metric string) *verdict {
				return sendBatch(ctx, s, "a", labelled(metric, 2, testStartMillis()))
			}
			_, err := send(t.Context(), "untraced").wait(t) // with its answer comes what the server speaks
			require.NoError(t, err)

			open := gate.close()
			waits := send(t.Context(), "first")
			soon(t, "a push waits", func() bool { _, inside := gate.counts(); return inside == 1 })
			ctx, one := r.begin()
			v1 := send(ctx, "one")
			ctx, two := r.begin()
			v2 := send(ctx, "two")
			v3 := send(t.Context(), "three")
			soon(t, "sections wait together", func() bool { return gate.waiting() == 3 })
			open()
			for _, v := range []*verdict{waits, v1, v2, v3} {
				_, err := v.wait(t)
				require.NoError(t, err)
			}
			one.End()
			two.End()

			spans := r.spans(one, 4)
			section := spans["ingester.section"]
			require.Equal(t, spans["request"].ID, section.Parent)
			require.Equal(t, section.ID, spans["ingester.push"].Parent)
			require.Equal(t, spans["ingester.push"].ID, spans["ingester.append"].Parent)
			require.Equal(t, "3", section.Attributes["sections"])
			require.Equal(t, "a", section.Attributes["tenant"])
			require.NotContains(t, section.Attributes, "stored_with")
			spans = r.spans(two, 2)
			require.Equal(t, spans["request"].ID, spans["ingester.section"].Parent)
			require.Equal(t, one.TraceID(), spans["ingester.section"].Attributes["stored_with"])

			gate.failing(func(string, *duramenpb.Batch) error { return errkind.New(errkind.Unavailable, "no room") })
			ctx, three := r.begin()
			_, err = send(ctx, "refused").wait(t)
			require.ErrorContains(t, err, "no room")
			three.End()
			section = r.spans(three, 2)["ingester.section"]
			require.True(t, section.Failed)
			require.Equal(t, "no room", section.Message)
		})
	}
}

// TestAServerOfTheReleaseBeforeGetsNoTraces: it says nothing of versions, and would end the stream at a frame of another one.
func TestAServerOfTheReleaseBeforeGetsNoTraces(t *testing.T) {
	r := newRecorder(t)
	server := grpc.NewServer(append(peerconn.ServerOptions(insecure.NewCredentials()),
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			for number := uint64(0); ; {
				var f rpcframe.Frame
				if err := stream.RecvMsg(&f); err != nil {
					return err
				}
				d, version, err := openFrame(f, pushVersion)
				if err != nil {
					return err
				}
				answers := rpcframe.Frame{pushVersion}
				for ; d.More(); number++ {
					nextSection(&d, version)
					answers = appendAnswer(answers, number, duramenpb.AppendResult(nil, &duramenpb.Batch{}, &duramenpb.PushResult{},
						duramenpb.Range{}, 0), d.Err())
				}
				if err := stream.SendMsg(&answers); err != nil {
					return err
				}
			}
		}))...)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() {
		server.Stop()
		serving.Wait()
	})
	p := pushClient(t, ClientConfig{}).Peer(l.Addr().String())
	ctx, span := r.begin()
	defer span.End()
	for range 3 {
		_, err := sendBatch(ctx, p, "a", labelled("m", 1, testStartMillis())).wait(t)
		require.NoError(t, err)
	}
}

// TestUntracedSectionsCostNothing: what traces need is asked for each section.
func TestUntracedSectionsCostNothing(t *testing.T) {
	r := newRecorder(t)
	ctx := t.Context()
	it, l, w := &item{}, &lane{}, &commit{parts: []part{{a: &arrival{}}, {a: &arrival{}}}}
	items := []*item{it, it}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		it.span = tracing.Current(ctx)
		parent := it.span.Parent()
		_, w.parts[0].a.span = r.Continue(ctx, parent, "ingester.section")
		if parent != (tracing.Parent{}) || l.versionFor(items) != pushVersion || w.together(ctx) != ctx {
			t.Error("something is traced")
		}
		w.parts[0].a.endSpan(nil)
	}))
}
