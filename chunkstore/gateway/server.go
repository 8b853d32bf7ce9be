package gateway

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/duramendb/duramen/chunkstore/reader"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/rpcframe"
	"github.com/duramendb/duramen/tenant"
)

const (
	// serviceName and the methods make the paths of the calls.
	serviceName  = "duramen.StoreGateway"
	methodSelect = "Select"
	methodLabels = "Labels"

	// frameBytes is about the size of a frame: large enough to cost little, small enough to keep a reader busy while the
	// next one is made.
	frameBytes = 128 << 10

	// patience is how long a Select that may send nothing keeps the buffers which the source has filled ahead. Then others
	// get the memory, and what was read ahead is read again, from the caches as a rule.
	patience = 250 * time.Millisecond
)

// Yielder is a session that can give back the memory of what it has read ahead, and read it again later.
type Yielder interface{ Yield() }

// Server answers other processes from a source. It keeps nothing between two calls. Safe for concurrent use.
type Server struct {
	source   reader.Source
	now      func() time.Time
	log      *slog.Logger
	metrics  *serverMetrics
	patience time.Duration

	receivers sync.WaitGroup

	mu    sync.Mutex
	calls map[*Call]struct{}
}

// Call is a call that is open.
type Call struct {
	Tenant string    `json:"tenant"`
	Method string    `json:"method"`
	Blocks int       `json:"blocks"`
	Began  time.Time `json:"began"`
}

// Calls returns those that are open, the oldest first.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := make([]Call, 0, len(s.calls))
	for c := range s.calls {
		calls = append(calls, *c)
	}
	slices.SortFunc(calls, func(a, b Call) int {
		return cmp.Or(a.Began.Compare(b.Began), cmp.Compare(a.Tenant, b.Tenant), a.Blocks-b.Blocks)
	})
	return calls
}

// begun notes a call, and returns the function that ends it.
func (s *Server) begun(tenantID, method string, r *request) func() {
	c := &Call{Tenant: tenantID, Method: method, Blocks: len(r.Blocks), Began: s.now()}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[c] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.calls, c)
	}
}

// NewServer returns a server of what source has. It starts nothing: register it at a gRPC server that passes frames of
// package rpcframe, and whose interceptor puts the tenant into the context.
func NewServer(source reader.Source, now func() time.Time, log *slog.Logger, reg prometheus.Registerer) *Server {
	return &Server{
		source: source, now: now, log: log, metrics: newServerMetrics(reg), patience: patience, calls: map[*Call]struct{}{},
	}
}

// Register adds the service to r.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	r.RegisterService(&grpc.ServiceDesc{
		ServiceName: serviceName,
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{
			{
				StreamName: methodSelect, ServerStreams: true, ClientStreams: true,
				Handler: func(_ any, stream grpc.ServerStream) error { return s.answer(stream, s.selectSeries) },
			},
			{
				StreamName: methodLabels, ServerStreams: true,
				Handler: func(_ any, stream grpc.ServerStream) error { return s.answer(stream, s.labels) },
			},
		},
	}, s)
}

// Wait returns when everything that calls have begun has ended. Call it after the gRPC server has stopped.
func (s *Server) Wait() { s.receivers.Wait() }

// answer runs a call and tells the client its error in a frame, for a status of gRPC does not carry all of it.
func (s *Server) answer(
	stream grpc.ServerStream, work func(ctx context.Context, tenantID string, stream grpc.ServerStream) error,
) error {
	id, err := tenant.FromContext(stream.Context())
	if err == nil {
		err = work(stream.Context(), id, stream)
	}
	if err == nil {
		return nil
	}
	if stream.Context().Err() == nil {
		s.log.DebugContext(stream.Context(), "request failed", "tenant", id, "err", err)
		_ = send(stream, errorFrame(err)) // the status says it, too
	}
	return status.Error(errkind.Of(err).GRPCCode(), err.Error())
}

// sender is a stream of either side.
type sender interface{ SendMsg(m any) error }

func send(stream sender, frame []byte) error {
	f := rpcframe.Frame(frame)
	return stream.SendMsg(&f)
}

func receive(stream interface{ RecvMsg(m any) error }) (rpcframe.Frame, error) {
	var f rpcframe.Frame
	err := stream.RecvMsg(&f)
	return f, err
}

// labels answers with the names or values of labels.
func (s *Server) labels(ctx context.Context, id string, stream grpc.ServerStream) (err error) {
	frame, err := receive(stream)
	if err != nil {
		return err
	}
	r, matchers, err := decodeRequest(frame)
	if err != nil {
		return err
	}
	defer s.begun(id, methodLabels, r)()
	session := s.source.Session(id, r.Blocks, r.MinTime, r.MaxTime)
	defer func() { err = errors.Join(err, session.Close()) }()
	var values []string
	if r.LabelNames {
		values, err = session.LabelNames(ctx, r.LabelHints, matchers...)
	} else {
		values, err = session.LabelValues(ctx, string(r.LabelName), r.LabelHints, matchers...)
	}
	if err != nil {
		return err
	}
	if err := send(stream, openedFrame(blockIDs(r.Blocks))); err != nil {
		return err
	}
	count := len(values)
	for len(values) > 0 {
		frame, values = valuesFrame(values)
		if err := send(stream, frame); err != nil {
			return err
		}
	}
	return send(stream, doneFrame(count))
}

// selectSeries answers a Select: series as the client asks for them, and the chunks that it reads.
func (s *Server) selectSeries(ctx context.Context, id string, stream grpc.ServerStream) (err error) {
	frame, err := receive(stream)
	if err != nil {
		return err
	}
	r, matchers, err := decodeRequest(frame)
	if err != nil {
		return err
	}
	defer s.begun(id, methodSelect, r)()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	session := s.source.Session(id, r.Blocks, r.MinTime, r.MaxTime)
	defer func() { err = errors.Join(err, session.Close()) }()

	w := &selection{server: s, session: session, commands: newInbox(r.More), stream: stream}
	s.receivers.Go(func() { cancel(w.commands.receive(stream)) })
	err = w.run(ctx, r, matchers)
	if errors.Is(context.Cause(ctx), errClientDone) {
		return nil
	}
	return err
}

// errClientDone means that the client wants nothing more.
var errClientDone = errors.New("the client is done")

// inbox collects what the client says until the work has time for it.
type inbox struct {
	arrived chan struct{} // holds one when there is something new

	mu      sync.Mutex
	more    int
	credit  map[uint64]int64 // by generation
	reading *command         // the newest
}

func newInbox(more int) *inbox {
	return &inbox{arrived: make(chan struct{}, 1), more: more, credit: map[uint64]int64{}}
}

// receive runs until the client is done or the stream ends, and returns why.
func (b *inbox) receive(stream grpc.ServerStream) error {
	for {
		frame, err := receive(stream)
		if err != nil {
			return reasonOfEnd(err)
		}
		c, err := decodeCommand(frame)
		if err != nil {
			return errkind.Wrap(errkind.Invalid, err)
		}
		b.put(c)
		select {
		case b.arrived <- struct{}{}:
		default:
		}
	}
}

func (b *inbox) put(c command) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case c.read:
		b.reading = &c
		clear(b.credit)
	case c.credit > 0:
		b.credit[c.generation] += c.credit
		if len(b.credit) > 1 { // what is not of the newest reading came too late
			for generation := range b.credit {
				if generation < c.generation {
					delete(b.credit, generation)
				}
			}
		}
	default:
		b.more += c.more
	}
}

// take returns what came since the last call, to be applied in this order: reading, credit, more.
func (b *inbox) take(generation uint64) (reading *command, credit int64, more int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	reading, more = b.reading, b.more
	if reading != nil {
		generation = reading.generation
	}
	credit = b.credit[generation]
	b.reading, b.more = nil, 0
	clear(b.credit)
	return reading, credit, more
}
