package tracing

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/tracing/collector"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	callersTrace = "0af7651916cd43dd8448eb211c80319c"
	callersSpan  = "b7ad6b7169203331"
)

func traceparent(flags string) http.Header {
	return http.Header{"Traceparent": {"00-" + callersTrace + "-" + callersSpan + "-" + flags}}
}

func defaults(t testing.TB, args ...string) Config {
	t.Helper()
	var c Config
	f := flag.NewFlagSet("test", flag.ContinueOnError)
	c.RegisterFlags(f)
	require.NoError(t, f.Parse(args))
	return c
}

// node is a provider that runs.
type node struct {
	*Provider
	log  *bytes.Buffer
	stop func()
}

func start(t *testing.T, cfg Config) *node {
	t.Helper()
	n := &node{log: &bytes.Buffer{}}
	log := slog.New(slog.NewTextHandler(n.log, nil))
	p, err := New(cfg, Identity{"1.2.3", "instance-1"}, time.Now, log, prometheus.NewRegistry())
	require.NoError(t, err)
	n.Provider = p
	s := p.Service()
	require.NoError(t, s.Start(t.Context()))
	n.stop = func() { require.NoError(t, s.Stop()) }
	t.Cleanup(n.stop)
	return n
}

func startCollector(t *testing.T, config *tls.Config) *collector.Collector {
	t.Helper()
	c, err := collector.Start(config)
	require.NoError(t, err)
	t.Cleanup(c.Stop)
	return c
}

func (n *node) dropped(reason string) int {
	return int(testutil.ToFloat64(n.metrics.dropped.WithLabelValues(reason)))
}

func byName(spans []collector.Span) map[string]collector.Span {
	m := map[string]collector.Span{}
	for _, s := range spans {
		m[s.Name] = s
	}
	return m
}

func TestSpansOfARequestReachTheCollector(t *testing.T) {
	c := startCollector(t, nil)
	n := start(t, defaults(t, "-tracing.otlp-endpoint", c.Address(), "-tracing.otlp-insecure",
		"-tracing.otlp-headers", "X-Api-Key=k1, x-scope=a=b"))

	ctx, request := n.Request(t.Context(), traceparent("01"), "POST /push")
	require.True(t, request.Recording())
	require.Equal(t, callersTrace, request.TraceID())
	below, child := Start(ctx, "store")
	child.Int("samples", 7)
	child.String("long", strings.Repeat("x", 3000))
	child.Fail(errkind.New(errkind.Unavailable, "disk is full"))
	_, grandchild := n.Task(below, "ship") // a task within a request belongs to it
	grandchild.End()
	Current(ctx).Bool("yes", true)
	child.End()
	request.End()
	n.stop()

	spans := byName(c.Spans())
	require.Len(t, spans, 3)
	r := spans["POST /push"]
	require.Equal(t, callersTrace, r.TraceID)
	require.Equal(t, callersSpan, r.Parent)
	require.Equal(t, "server", r.Kind)
	require.Equal(t, "true", r.Attributes["yes"])
	require.False(t, r.Failed)
	s := spans["store"]
	require.Equal(t, r.ID, s.Parent)
	require.Equal(t, "7", s.Attributes["samples"])
	require.Len(t, s.Attributes["long"], maxText+len("…"))
	require.True(t, s.Failed)
	require.Equal(t, "disk is full", s.Message)
	require.Equal(t, "unavailable", s.Attributes["error.type"])
	require.Equal(t, s.ID, spans["ship"].Parent)
	require.Equal(t, "duramen", r.Resource["service.name"])
	require.Equal(t, "1.2.3", r.Resource["service.version"])
	require.Equal(t, "instance-1", r.Resource["service.instance.id"])
	require.Equal(t, []string{"k1"}, c.Headers()[0]["x-api-key"])
	require.Equal(t, []string{"a=b"}, c.Headers()[0]["x-scope"])
	require.InDelta(t, 3, testutil.ToFloat64(n.metrics.exported), 0)
}

// TestATraceGoesOnInAnotherProcess, which gets a few bytes of it.
func TestATraceGoesOnInAnotherProcess(t *testing.T) {
	c := startCollector(t, nil)
	here := start(t, defaults(t, "-tracing.otlp-endpoint", c.Address(), "-tracing.otlp-insecure"))
	there := start(t, defaults(t, "-tracing.otlp-endpoint", c.Address(), "-tracing.otlp-insecure", "-tracing.sample-ratio=0"))
	_, request := here.Request(t.Context(), traceparent("01"), "request")
	parent := request.Parent()
	_, remote := there.Continue(t.Context(), parent, "remote")
	require.Equal(t, callersTrace, remote.TraceID())
	_, below := Start(remote.Context(t.Context()), "below")
	below.End()
	remote.End()
	request.End()
	here.stop()
	there.stop()
	spans := byName(c.Spans())
	require.Equal(t, spans["request"].ID, spans["remote"].Parent)
	require.Equal(t, "server", spans["remote"].Kind)
	require.Equal(t, spans["remote"].ID, spans["below"].Parent)

	var off *Provider
	_, none := off.Continue(t.Context(), parent, "off")
	require.False(t, none.Recording())
	require.Zero(t, testing.AllocsPerRun(100, func() {
		ctx, none := there.Continue(t.Context(), Span{}.Parent(), "untraced")
		none.Context(ctx)
	}))
}

// TestTextsThatAreNotUTF8: clients choose paths and headers, and a span with one such text must not take the batch with it
// that it is exported in.
func TestTextsThatAreNotUTF8(t *testing.T) {
	c := startCollector(t, nil)
	n := start(t, defaults(t, "-tracing.otlp-endpoint", c.Address(), "-tracing.otlp-insecure"))
	_, request := n.Request(t.Context(), traceparent("01"), "GET /label")
	request.Rename("GET /label\xff")
	request.String("url.path", "/label/\xff/values")
	request.String("query", "x"+strings.Repeat("ü", maxText))
	request.FailBecause("no label \xff")
	request.End()
	n.stop()

	require.Zero(t, n.dropped(droppedExport), n.log.String())
	span := byName(c.Spans())["GET /label\uFFFD"]
	require.Equal(t, "/label/\uFFFD/values", span.Attributes["url.path"])
	require.Equal(t, "x"+strings.Repeat("ü", (maxText-1)/2)+"…", span.Attributes["query"])
	require.Equal(t, "no label \uFFFD", span.Message)
}

func TestWhoSamples(t *testing.T) {
	for name, tc := range map[string]struct {
		ratio  string
		header http.Header
		want   bool
	}{
		"no request at 0":         {"0", http.Header{}, false},
		"each request at 1":       {"1", http.Header{}, true},
		"the caller wants it":     {"0", traceparent("01"), true},
		"the caller does not":     {"1", traceparent("00"), false},
		"a caller's nonsense":     {"0", http.Header{"Traceparent": {"00-zz-01"}}, false},
		"a trace of zeros at all": {"1", http.Header{"Traceparent": {"00-" + strings.Repeat("0", 32) + "-" + callersSpan + "-01"}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := New(defaults(t, "-tracing.otlp-endpoint=localhost:1", "-tracing.sample-ratio", tc.ratio), Identity{},
				time.Now, slog.New(slog.DiscardHandler), nil)
			require.NoError(t, err)
			ctx, s := p.Request(t.Context(), tc.header, "r")
			require.Equal(t, tc.want, s.Recording())
			_, s = Start(ctx, "child")
			require.Equal(t, tc.want, s.Recording())
			_, s = p.Task(t.Context(), "cut")
			require.True(t, s.Recording(), "tasks are few and traced always")
		})
	}
}

func TestOffMeansNothing(t *testing.T) {
	for name, p := range map[string]*Provider{"nil": nil, "no endpoint": start(t, defaults(t)).Provider} {
		t.Run(name, func(t *testing.T) {
			require.False(t, p.Enabled())
			header := traceparent("01")
			ctx := t.Context()
			require.Zero(t, testing.AllocsPerRun(100, func() {
				ctx, request := p.Request(ctx, header, "r")
				ctx, task := p.Task(ctx, "t")
				_, s := Start(ctx, "s")
				for _, s := range []Span{request, task, s, Current(ctx)} {
					s.Int("i", 1)
					s.String("s", "text")
					s.Bool("b", true)
					s.Rename("n")
					s.Fail(errStatic)
					s.FailBecause("x")
					s.End()
				}
			}))
		})
	}
}

var errStatic = errors.New("static")

func TestARequestWithVeryManySpansIsBounded(t *testing.T) {
	c := startCollector(t, nil)
	n := start(t, defaults(t, "-tracing.otlp-endpoint", c.Address(), "-tracing.otlp-insecure"))
	ctx, request := n.Request(t.Context(), traceparent("01"), "r")
	for range maxSpans + 9 {
		_, s := Start(ctx, "get")
		s.End()
	}
	request.End()
	n.stop()
	spans := c.Spans()
	require.Len(t, spans, maxSpans)
	require.Equal(t, "10", byName(spans)["r"].Attributes["spans.left_out"])
}

// freePort returns an address at which nobody listens.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

func TestACollectorThatIsAwayHoldsNobodyUp(t *testing.T) {
	n := start(t, defaults(t, "-tracing.otlp-endpoint", freePort(t), "-tracing.otlp-insecure"))
	const requests = 3 * queueSpans
	for range requests {
		_, s := n.Request(t.Context(), traceparent("01"), "r")
		s.End() // must not wait
	}
	require.NotZero(t, n.dropped(droppedQueueFull))
	begin := time.Now()
	n.stop()
	require.Less(t, time.Since(begin), 20*time.Second, "the stop is bounded")
	require.Equal(t, requests, n.dropped(droppedQueueFull)+n.dropped(droppedExport)+n.dropped(droppedAtStop))
	require.Zero(t, testutil.ToFloat64(n.metrics.exported))
	require.Contains(t, n.log.String(), "spans not exported")
	_, late := n.Request(t.Context(), traceparent("01"), "r")
	late.End()
	require.NotZero(t, n.dropped(droppedAtStop))
}

func TestACollectorThatHangsEndsWithTheStop(t *testing.T) {
	c := startCollector(t, nil)
	hang, asked := make(chan struct{}), make(chan struct{}, 100)
	c.Answer(func() error {
		asked <- struct{}{}
		<-hang
		return nil
	})
	defer close(hang)
	n := start(t, defaults(t, "-tracing.otlp-endpoint", c.Address(), "-tracing.otlp-insecure"))
	_, s := n.Request(t.Context(), traceparent("01"), "r")
	s.End()
	<-asked
	n.stop()
	require.Equal(t, 1, n.dropped(droppedExport))
}

func TestACollectorThatComesBackGetsWhatWaited(t *testing.T) {
	addr := freePort(t)
	n := start(t, defaults(t, "-tracing.otlp-endpoint", addr, "-tracing.otlp-insecure"))
	_, s := n.Request(t.Context(), traceparent("01"), "r")
	s.End()
	c, err := collector.StartAt(addr, nil)
	require.NoError(t, err)
	t.Cleanup(c.Stop)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = c.Trace(ctx, callersTrace, func(s []collector.Span) bool { return len(s) == 1 })
	require.NoError(t, err)
	require.Zero(t, n.dropped(droppedExport))
}

func TestRefusedExportsAreCountedAndLoggedSeldom(t *testing.T) {
	c := startCollector(t, nil)
	c.Answer(func() error { return status.Error(codes.PermissionDenied, "no such key") })
	now := time.Unix(0, 0)
	log := &bytes.Buffer{}
	p, err := New(defaults(t, "-tracing.otlp-endpoint", c.Address(), "-tracing.otlp-insecure"), Identity{},
		func() time.Time { return now }, slog.New(slog.NewTextHandler(log, nil)), nil)
	require.NoError(t, err)
	e := &exporter{p: p}
	require.NoError(t, e.starting(t.Context()))
	defer func() { require.NoError(t, e.stopping(nil)) }()
	export := func() {
		_, s := p.Request(t.Context(), traceparent("01"), "r")
		s.End()
		batch, _ := p.queue.rest(nil)
		e.export(t.Context(), batch)
	}
	for range 10 {
		export()
	}
	require.Equal(t, 1, strings.Count(log.String(), "spans not exported"))
	require.Contains(t, log.String(), "no such key")
	now = now.Add(logPeriod)
	export()
	require.Equal(t, 2, strings.Count(log.String(), "spans not exported"))
	require.Contains(t, log.String(), "failures_before=9")
	c.Answer(nil)
	export()
	export()
	require.Equal(t, 1, strings.Count(log.String(), "spans are exported again"))
	require.InDelta(t, 11, testutil.ToFloat64(p.metrics.failures), 0)
	require.Equal(t, 11, int(testutil.ToFloat64(p.metrics.dropped.WithLabelValues(droppedExport))))
	require.InDelta(t, 2, testutil.ToFloat64(p.metrics.exported), 0)
}

func TestTLSWithAnAuthorityOfOnesOwn(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "collector"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	c := startCollector(t, &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12,
	})
	file := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))

	trusting := start(t, defaults(t, "-tracing.otlp-endpoint", c.Address(), "-tracing.otlp-ca-file", file))
	_, s := trusting.Request(t.Context(), traceparent("01"), "r")
	s.End()
	trusting.stop()
	require.Len(t, c.Spans(), 1)

	wary := start(t, defaults(t, "-tracing.otlp-endpoint", c.Address()))
	_, s = wary.Request(t.Context(), traceparent("01"), "r")
	s.End()
	wary.stop()
	require.Len(t, c.Spans(), 1, "nobody sends spans to a server that it does not trust")
	require.Equal(t, 1, wary.dropped(droppedExport)+wary.dropped(droppedAtStop))

	for name, content := range map[string]string{"missing": "", "no certificate": "hello"} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "ca.pem")
			if content != "" {
				require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
			}
			p, err := New(defaults(t, "-tracing.otlp-endpoint", c.Address(), "-tracing.otlp-ca-file", file), Identity{},
				time.Now, slog.New(slog.DiscardHandler), nil)
			require.NoError(t, err)
			require.ErrorContains(t, p.Service().Start(t.Context()), "tracing.otlp_ca_file")
		})
	}
}

func TestValidate(t *testing.T) {
	ok := defaults(t)
	require.NoError(t, ok.Validate())
	for want, args := range map[string][]string{
		"otlp_endpoint is \"localhost\"":     {"-tracing.otlp-endpoint=localhost"},
		"without a scheme":                   {"-tracing.otlp-endpoint=http://localhost:4317"},
		"otlp_insecure turns TLS off":        {"-tracing.otlp-insecure", "-tracing.otlp-ca-file=ca.pem"},
		"otlp_headers: entry 2 is no header": {"-tracing.otlp-headers=a=b,hunter2"},
		"entry 1 is no header":               {"-tracing.otlp-headers=grpc bin=hunter2"},
		"sample_ratio is 1.5":                {"-tracing.sample-ratio=1.5"},
		"sample_ratio is NaN":                {"-tracing.sample-ratio=NaN"},
		"service_name is empty":              {"-tracing.service-name="},
	} {
		cfg := defaults(t, args...)
		err := cfg.Validate()
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "hunter2")
		_, err = New(cfg, Identity{}, time.Now, slog.New(slog.DiscardHandler), nil)
		require.Error(t, err)
	}
	cfg := defaults(t, "-tracing.otlp-headers=authorization=hunter2")
	require.NotContains(t, fmt.Sprintf("%v %+v %#v", cfg, cfg, cfg), "hunter2")
}

func FuzzHeaders(f *testing.F) {
	f.Add("a=b,c=d")
	f.Fuzz(func(t *testing.T, s string) {
		headers, err := parseHeaders(s)
		if err != nil {
			return
		}
		for name, value := range headers {
			require.True(t, isHeaderName(name))
			require.False(t, strings.ContainsFunc(value, notPrintable))
		}
	})
}

// BenchmarkRequest is a request with five spans below it, as a write has.
func BenchmarkRequest(b *testing.B) {
	for name, args := range map[string][]string{
		"off":  nil,
		"0.01": {"-tracing.otlp-endpoint=localhost:1"},
		"1":    {"-tracing.otlp-endpoint=localhost:1", "-tracing.sample-ratio=1"},
	} {
		b.Run(name, func(b *testing.B) {
			p, err := New(defaults(b, args...), Identity{}, time.Now, slog.New(slog.DiscardHandler), nil)
			require.NoError(b, err)
			header := http.Header{}
			b.ReportAllocs()
			for b.Loop() {
				ctx, request := p.Request(b.Context(), header, "POST /api/v1/push")
				for range 5 {
					var s Span
					ctx, s = Start(ctx, "below")
					s.Int("samples", 2000)
					s.End()
				}
				request.End()
				for p.queue != nil && len(p.queue.spans) > queueSpans/2 {
					<-p.queue.spans
				}
			}
		})
	}
}
