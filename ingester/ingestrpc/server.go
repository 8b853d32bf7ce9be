package ingestrpc

import (
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/tracing"
)

// Server answers push streams from an ingester. What has arrived and waits for the ingester is bounded: beyond it nothing
// more is read, and the senders notice. Safe for concurrent use.
type Server struct {
	commits *committer
	buffer  *budget
	traces  *tracing.Provider
	log     *slog.Logger
	metrics *serverMetrics

	drain     func()
	draining  chan struct{}  // closed by drain
	receivers sync.WaitGroup // of all streams
}

// NewServer returns a server that pushes into pusher. It starts nothing: Register it at a gRPC server that passes frames of
// package rpcframe. Sections that belong to a trace go on with it by traces, which may be nil.
func NewServer(
	cfg ServerConfig, pusher Pusher, traces *tracing.Provider, log *slog.Logger, reg prometheus.Registerer,
) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Server{
		buffer: newBudget(cfg.BufferBytes), traces: traces, log: log, metrics: newServerMetrics(reg),
		draining: make(chan struct{}),
	}
	s.commits = newCommitter(pusher, log, s.metrics)
	s.drain = sync.OnceFunc(func() { close(s.draining) })
	return s, nil
}

// Register adds the service to r.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	r.RegisterService(&grpc.ServiceDesc{
		ServiceName: pushService,
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{
			StreamName: pushName, ServerStreams: true, ClientStreams: true,
			Handler: func(_ any, stream grpc.ServerStream) error { return s.serve(stream) },
		}},
	}, s)
}

// Drain has all streams end once what has arrived on them is answered, and refuses new ones. It does not wait. Call it
// before GracefulStop: a stream does not end by itself as long as its client lives.
func (s *Server) Drain() { s.drain() }

// Wait returns when nothing runs any more that a call began. Call it after the gRPC server has stopped.
func (s *Server) Wait() {
	s.receivers.Wait()
	s.commits.wait()
}

func (s *Server) serve(stream grpc.ServerStream) error {
	s.metrics.streams.Inc()
	defer s.metrics.streams.Dec()
	err := newPushStream(s, stream).run()
	if err == nil || stream.Context().Err() != nil {
		return err
	}
	return status.Error(errkind.Of(err).GRPCCode(), err.Error())
}

// budget bounds bytes.
type budget struct {
	most int

	mu    sync.Mutex
	used  int
	freed chan struct{} // closed when used falls; nil while nobody waits
}

func newBudget(most int) *budget { return &budget{most: most} }

// take waits until n bytes fit, or everything is free, and reports false when one of the two channels is closed first.
func (b *budget) take(n int, ended, draining <-chan struct{}) bool {
	for {
		freed, ok := b.try(n)
		if ok {
			return true
		}
		select {
		case <-freed:
		case <-ended:
			return false
		case <-draining:
			return false
		}
	}
}

func (b *budget) try(n int) (freed <-chan struct{}, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used == 0 || b.used+n <= b.most {
		b.used += n
		return nil, true
	}
	if b.freed == nil {
		b.freed = make(chan struct{})
	}
	return b.freed, false
}

func (b *budget) give(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	if b.freed != nil {
		close(b.freed)
		b.freed = nil
	}
}
