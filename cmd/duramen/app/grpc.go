package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"google.golang.org/grpc"
	grpccodes "google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/duramendb/duramen/ingester/ingestrpc"
	"github.com/duramendb/duramen/internal/peerconn"
	"github.com/duramendb/duramen/internal/service"
	"github.com/duramendb/duramen/internal/tracing"
	"github.com/duramendb/duramen/tenant"
)

// grpcMaxStreams bounds the calls that one client has open.
const grpcMaxStreams = 10_000

// grpcServer is the listener for other processes of ours. It listens when all other parts run, and stops first.
type grpcServer struct {
	cfg      ServerConfig
	log      *slog.Logger
	server   *grpc.Server
	listener atomic.Pointer[net.Listener]

	// drains end streams that do not end by themselves; waits return when nothing runs any more that a call began.
	drains, waits []func()
}

// onStop registers what has to be called so that a graceful stop comes to its end.
func (s *grpcServer) onStop(drain func()) { s.drains = append(s.drains, drain) }

// onStopped registers what is waited for after all calls have ended.
func (s *grpcServer) onStopped(wait func()) { s.waits = append(s.waits, wait) }

// buildGRPC serves what the roles of this process do for others.
func buildGRPC(a *App) (_ *service.Service, err error) {
	if a.grpc, err = newGRPCServer(a.cfg.Server, a.tracing, a.logger("grpc"), a.reg); err != nil {
		return nil, err
	}
	if a.gateway != nil {
		a.gateway.Register(a.grpc.server)
		a.grpc.onStopped(a.gateway.Wait)
	}
	if a.ring == nil || a.ingester == nil {
		return a.grpc.service(), nil
	}
	a.pushServer, err = ingestrpc.NewServer(a.cfg.IngesterServer, a.ingester, a.tracing, a.logger("push"), a.reg)
	if err != nil {
		return nil, err
	}
	a.pushServer.Register(a.grpc.server)
	a.grpc.onStop(a.pushServer.Drain)
	a.grpc.onStopped(a.pushServer.Wait)
	a.readServer, err = ingestrpc.NewReadServer(a.cfg.IngesterServer.Read, a.ingester,
		a.dataDir.instance.StorageID, a.logger("read"), a.reg)
	if err != nil {
		return nil, err
	}
	a.readServer.Register(a.grpc.server)
	a.grpc.onStopped(a.readServer.Wait)
	return a.grpc.service(), nil
}

// newGRPCServer counts, times and traces calls, and refuses those without a tenant.
func newGRPCServer(
	cfg ServerConfig, traces *tracing.Provider, log *slog.Logger, reg prometheus.Registerer,
) (*grpcServer, error) {
	creds, err := peerconn.ServerCredentials(cfg.GRPCTLS, log)
	if err != nil {
		return nil, fmt.Errorf("server.grpc_tls: %w", err)
	}
	m := newGRPCMetrics(reg)
	options := append(peerconn.ServerOptions(creds), grpc.MaxConcurrentStreams(grpcMaxStreams),
		grpc.ChainStreamInterceptor(m.observe(log), tracedStream(traces), withTenantOfStream, tellTenantOfStream))
	return &grpcServer{cfg: cfg, log: log, server: grpc.NewServer(options...)}, nil
}

func (s *grpcServer) service() *service.Service {
	return service.NewService("grpc server", service.Phases{
		Starting: s.starting, Running: s.running, Stopping: s.stopping,
	})
}

func (s *grpcServer) starting(ctx context.Context) error {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", s.cfg.GRPCListenAddress)
	if err != nil {
		return fmt.Errorf("server.grpc_listen_address: %w", err)
	}
	s.listener.Store(&l)
	s.log.Info("listening", "address", l.Addr().String())
	return nil
}

// running serves until ctx ends; then calls that are open have the shutdown timeout to end.
func (s *grpcServer) running(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() { ended <- s.server.Serve(*s.listener.Load()) }()
	select {
	case <-ctx.Done():
	case err := <-ended:
		return err
	}
	drained := make(chan struct{})
	go func() {
		for _, drain := range s.drains {
			drain()
		}
		s.server.GracefulStop()
		close(drained)
	}()
	timer := time.NewTimer(s.cfg.ShutdownTimeout)
	defer timer.Stop()
	select {
	case <-drained:
	case <-timer.C:
		s.log.Warn("calls did not end in time, closing their connections", "timeout", s.cfg.ShutdownTimeout)
		s.server.Stop()
		<-drained
	}
	return <-ended
}

// stopping closes a listener that was never served.
func (s *grpcServer) stopping(error) error {
	if l := s.listener.Load(); l != nil {
		_ = (*l).Close() // closed already as a rule
	}
	for _, wait := range s.waits {
		wait()
	}
	return nil
}

// address is where the server listens; empty before it does.
func (s *grpcServer) address() string {
	if l := s.listener.Load(); l != nil {
		return (*l).Addr().String()
	}
	return ""
}

type grpcMetrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	inflight prometheus.Gauge
	panics   prometheus.Counter
}

func newGRPCMetrics(reg prometheus.Registerer) *grpcMetrics {
	f := promauto.With(reg)
	return &grpcMetrics{
		requests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "duramen_grpc_requests_total",
			Help: "Calls answered, by method and code. A rise of Unavailable, Internal or DataLoss means failing work; " +
				"Canceled is usual, for a querier ends a call when it has read enough.",
		}, []string{"method", "code"}),
		seconds: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "duramen_grpc_request_duration_seconds",
			Help: "Time from a call's begin to its end, with the time in which the caller reads. A rise means that callers " +
				"take longer.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120},
		}, []string{"method"}),
		inflight: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_grpc_requests_in_flight",
			Help: "Calls that are being answered. A rise that lasts means that they come faster than they are done.",
		}),
		panics: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_grpc_panics_total",
			Help: "Handlers of calls that panicked. Any rise is a bug; the log has the stack.",
		}),
	}
}

// observe counts and times calls, and turns a panic into an error.
func (m *grpcMetrics) observe(log *slog.Logger) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
		m.inflight.Inc()
		began := time.Now()
		defer func() {
			if p := recover(); p != nil {
				m.panics.Inc()
				log.ErrorContext(stream.Context(), "handler panicked", "method", info.FullMethod, "panic", p,
					"stack", string(debug.Stack()))
				err = status.Error(grpccodes.Internal, "internal error: a handler panicked; the log has the details")
			}
			m.inflight.Dec()
			if info.FullMethod != ingestrpc.PushMethod { // it lasts as long as the connection
				m.seconds.WithLabelValues(info.FullMethod).Observe(time.Since(began).Seconds())
			}
			m.requests.WithLabelValues(info.FullMethod, status.Code(err).String()).Inc()
		}()
		return next(srv, stream)
	}
}

// tracedStream goes on with the caller's trace, or begins one.
func tracedStream(p *tracing.Provider) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		if !p.Enabled() || info.FullMethod == ingestrpc.PushMethod { // which lasts as long as the connection
			return next(srv, stream)
		}
		header := http.Header{}
		if parent := metadata.ValueFromIncomingContext(stream.Context(), tracing.MetadataKey); len(parent) == 1 {
			header.Set("Traceparent", parent[0])
		}
		ctx, span := p.Request(stream.Context(), header, info.FullMethod)
		if !span.Recording() {
			return next(srv, stream)
		}
		span.String("rpc.system", "grpc")
		err := next(srv, &contextStream{stream, ctx})
		if err != nil && !errors.Is(stream.Context().Err(), context.Canceled) {
			span.FailBecause(status.Convert(err).Message())
		}
		span.End()
		return err
	}
}

// withTenantOfStream demands a tenant of each call but pushes: one stream of these carries those of many tenants.
func withTenantOfStream(
	srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler,
) error {
	if info.FullMethod == ingestrpc.PushMethod {
		return next(srv, stream)
	}
	return tenant.StreamInterceptor(srv, stream, info, next)
}

// tellTenantOfStream adds the tenant to the call's span.
func tellTenantOfStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if span := tracing.Current(stream.Context()); span.Recording() {
		if id, err := tenant.FromContext(stream.Context()); err == nil {
			span.String("tenant", id)
		}
	}
	return next(srv, stream)
}

// contextStream is a stream with another context.
type contextStream struct {
	grpc.ServerStream

	ctx context.Context //nolint:containedctx // gRPC has no other place for it
}

// Context implements grpc.ServerStream.
func (s *contextStream) Context() context.Context { return s.ctx }
