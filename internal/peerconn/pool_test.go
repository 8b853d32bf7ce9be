package peerconn

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/duramendb/duramen/internal/certtest"
	"github.com/duramendb/duramen/internal/faultproxy"
	"github.com/duramendb/duramen/internal/rpcframe"
	"github.com/duramendb/duramen/internal/tlsfiles"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo is a server whose only call sends each frame back. It can be stopped and started at the same address.
type echo struct {
	t       *testing.T
	creds   credentials.TransportCredentials
	address string
	server  *grpc.Server
	serving sync.WaitGroup
}

func startEcho(t *testing.T, creds credentials.TransportCredentials) *echo {
	e := &echo{t: t, creds: creds, address: "127.0.0.1:0"}
	e.start()
	t.Cleanup(e.stop)
	return e
}

func (e *echo) start() {
	e.t.Helper()
	l, err := net.Listen("tcp", e.address)
	require.NoError(e.t, err)
	e.address = l.Addr().String()
	e.server = grpc.NewServer(ServerOptions(e.creds)...)
	e.server.RegisterService(&grpc.ServiceDesc{ServiceName: "echo", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{
		StreamName: "Echo", ServerStreams: true, ClientStreams: true,
		Handler: func(_ any, stream grpc.ServerStream) error {
			for {
				var f rpcframe.Frame
				if err := stream.RecvMsg(&f); err != nil {
					if errors.Is(err, io.EOF) {
						return nil
					}
					return err
				}
				if err := stream.SendMsg(&f); err != nil {
					return err
				}
			}
		},
	}}}, nil)
	s := e.server
	e.serving.Go(func() { _ = s.Serve(l) })
}

func (e *echo) stop() {
	e.server.Stop()
	e.serving.Wait()
}

func newPool(t *testing.T, cfg Config) *Pool {
	t.Helper()
	if cfg.SilenceTimeout == 0 {
		cfg.SilenceTimeout = 400 * time.Millisecond
	}
	p, err := New(cfg, slog.New(slog.DiscardHandler), nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p
}

// call has the peer echo a frame over a connection of its own.
func call(p *Pool, address string) error {
	c, err := p.Get(address)
	if err != nil {
		return err
	}
	defer c.Release()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	stream, err := open(ctx, c)
	if err != nil {
		return err
	}
	return exchange(stream)
}

func open(ctx context.Context, c *Conn) (grpc.ClientStream, error) {
	return c.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/echo/Echo")
}

func exchange(stream grpc.ClientStream) error {
	sent := rpcframe.Frame("hello")
	if err := stream.SendMsg(&sent); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	var got rpcframe.Frame
	if err := stream.RecvMsg(&got); err != nil {
		return err
	}
	if string(got) != "hello" {
		return status.Error(codes.DataLoss, string(got))
	}
	return nil
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	require.Eventually(t, cond, 10*time.Second, 5*time.Millisecond, what)
}

func TestOneConnectionServesAllCalls(t *testing.T) {
	e := startEcho(t, insecure.NewCredentials())
	p := newPool(t, Config{})
	require.Equal(t, "none", p.State(e.address))
	for range 3 {
		require.NoError(t, call(p, e.address))
	}
	require.Equal(t, "ready", p.State(e.address))
	require.False(t, p.Failing(e.address))
	require.Equal(t, 1.0, testutil.ToFloat64(p.metrics.connects))
	require.Positive(t, testutil.ToFloat64(p.metrics.sent))
	require.Positive(t, testutil.ToFloat64(p.metrics.received))
}

func TestAPeerThatIsAwayIsKnownWithoutACall(t *testing.T) {
	e := startEcho(t, insecure.NewCredentials())
	p := newPool(t, Config{})
	require.NoError(t, call(p, e.address))
	e.stop()
	eventually(t, "the first call to notice makes the peer fail", func() bool {
		_ = call(p, e.address)
		return p.Failing(e.address)
	})
	require.Equal(t, "failing", p.State(e.address))
	require.Equal(t, codes.Unavailable, status.Code(call(p, e.address)))
	require.Equal(t, 1.0, testutil.ToFloat64(p.metrics.failing))
	e.start()
	eventually(t, "nobody has to call", func() bool { return !p.Failing(e.address) })
	require.NoError(t, call(p, e.address))
	require.Zero(t, testutil.ToFloat64(p.metrics.failing))
}

func TestASilentPeerFailsAndItsCallsBreak(t *testing.T) {
	e := startEcho(t, insecure.NewCredentials())
	cable := faultproxy.StartCable(t, e.address)
	p := newPool(t, Config{})
	address := cable.Address()
	c, err := p.Open(address)
	require.NoError(t, err)
	defer c.Release()
	stream, err := open(t.Context(), c)
	require.NoError(t, err)
	require.NoError(t, exchange(stream))

	cable.Silence()
	c.Expect()
	began := time.Now()
	require.Error(t, exchange(stream), "it would wait for ever")
	require.Less(t, time.Since(began), 5*p.cfg.SilenceTimeout)
	require.GreaterOrEqual(t, time.Since(began), p.cfg.SilenceTimeout)
	require.True(t, c.Failing())
	c.Answered()
	require.Equal(t, 1.0, testutil.ToFloat64(p.metrics.silences))
	require.True(t, p.Failing(address), "as long as it is silent")

	cable.Heal()
	eventually(t, "it answers again", func() bool { return !p.Failing(address) })
	require.NoError(t, call(p, address))
}

// TestASlowAnswerIsNoSilence: a peer that computes for long answers probes meanwhile.
func TestASlowAnswerIsNoSilence(t *testing.T) {
	e := startEcho(t, insecure.NewCredentials())
	cable := faultproxy.StartCable(t, e.address)
	p := newPool(t, Config{SilenceTimeout: 200 * time.Millisecond})
	c, err := p.Get(cable.Address())
	require.NoError(t, err)
	defer c.Release()
	stream, err := open(t.Context(), c)
	require.NoError(t, err)
	require.NoError(t, exchange(stream))
	passed := cable.Passed()
	began := time.Now()
	eventually(t, "probes pass", func() bool {
		return cable.Passed() > passed+100 && time.Since(began) > 3*p.cfg.SilenceTimeout
	})
	require.NoError(t, exchange(stream))
	require.False(t, c.Failing())
	require.Zero(t, testutil.ToFloat64(p.metrics.silences))
}

// TestWhoOwesNothingMayBeSilent, so that idle peers cost nothing.
func TestWhoOwesNothingMayBeSilent(t *testing.T) {
	e := startEcho(t, insecure.NewCredentials())
	cable := faultproxy.StartCable(t, e.address)
	p := newPool(t, Config{SilenceTimeout: 100 * time.Millisecond})
	require.NoError(t, call(p, cable.Address()))
	cable.Silence()
	began := time.Now()
	eventually(t, "time passes", func() bool { return time.Since(began) > 4*p.cfg.SilenceTimeout })
	require.False(t, p.Failing(cable.Address()))
	p.Reset(cable.Address())
	eventually(t, "a peer that is said to be new is looked at", func() bool { return p.Failing(cable.Address()) })
}

func TestKeepClosesWhatNobodyUses(t *testing.T) {
	one, two := startEcho(t, insecure.NewCredentials()), startEcho(t, insecure.NewCredentials())
	p := newPool(t, Config{})
	require.NoError(t, call(p, one.address))
	used, err := p.Open(two.address)
	require.NoError(t, err)
	p.Keep(func(string) bool { return false })
	require.Equal(t, "none", p.State(one.address))
	require.Equal(t, "idle", p.State(two.address))
	used.Release()
	p.Keep(func(address string) bool { return address == two.address })
	require.Equal(t, "idle", p.State(two.address))
	require.NoError(t, p.Close())
	require.ErrorIs(t, call(p, one.address), ErrClosed)
}

func TestTLSBothWays(t *testing.T) {
	ours, others := certtest.New(t), certtest.New(t)
	cert, key := ours.Issue(t, "server")
	creds, err := ServerCredentials(tlsfiles.ServerConfig{CertFile: cert, KeyFile: key, ClientCAFile: ours.File}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	e := startEcho(t, creds)

	good := tlsfiles.ClientConfig{Enabled: true, CAFile: ours.File}
	good.CertFile, good.KeyFile = ours.Issue(t, "client")
	p := newPool(t, Config{TLS: good})
	require.NoError(t, call(p, e.address))

	foreign := good
	foreign.CertFile, foreign.KeyFile = others.Issue(t, "client")
	wrongName := good
	wrongName.ServerName = "elsewhere"
	for name, c := range map[string]tlsfiles.ClientConfig{
		"no certificate": {Enabled: true, CAFile: ours.File}, "a foreign certificate": foreign, "a foreign server": {Enabled: true, CAFile: others.File},
		"another name": wrongName, "no TLS": {},
	} {
		require.Error(t, call(newPool(t, Config{TLS: c}), e.address), name)
	}
}

func TestTheNextHandshakeGoesByChangedFiles(t *testing.T) {
	before, after := certtest.New(t), certtest.New(t)
	cert, key := before.Issue(t, "server")
	creds, err := ServerCredentials(tlsfiles.ServerConfig{CertFile: cert, KeyFile: key}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	e := startEcho(t, creds)
	trusts := func(a *certtest.Authority) bool {
		return call(newPool(t, Config{TLS: tlsfiles.ClientConfig{Enabled: true, CAFile: a.File}}), e.address) == nil
	}
	require.True(t, trusts(before))
	after.Renew(t, cert, key)
	eventually(t, "the new certificate is presented", func() bool { return trusts(after) })
	require.False(t, trusts(before))
}

func TestSettingsThatCannotBe(t *testing.T) {
	for name, c := range map[string]Config{
		"no silence":      {},
		"much silence":    {SilenceTimeout: time.Hour},
		"half a pair":     {SilenceTimeout: time.Second, TLS: tlsfiles.ClientConfig{Enabled: true, CertFile: "x"}},
		"files without":   {SilenceTimeout: time.Second, TLS: tlsfiles.ClientConfig{CAFile: "x"}},
		"a missing file":  {SilenceTimeout: time.Second, TLS: tlsfiles.ClientConfig{Enabled: true, CAFile: "/does/not/exist"}},
		"a file of words": {SilenceTimeout: time.Second, TLS: tlsfiles.ClientConfig{Enabled: true, CAFile: "pool_test.go"}},
	} {
		_, err := New(c, slog.New(slog.DiscardHandler), nil)
		require.Error(t, err, name)
	}
	_, err := ServerCredentials(tlsfiles.ServerConfig{CertFile: "/does/not/exist", KeyFile: "x"}, nil)
	require.Error(t, err)
}
