package ingestrpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/rpcframe"
	"github.com/duramendb/duramen/internal/tracing"
	"github.com/duramendb/duramen/tenant"
)

// listsSeries is the Func of hints for series whose chunks nobody reads.
const listsSeries = "series"

// ReadServer answers what other processes read of an ingester. It keeps nothing between two calls. Safe for concurrent
// use.
type ReadServer struct {
	cfg      ReadServerConfig
	ingester Readable
	log      *slog.Logger
	metrics  *readServerMetrics
	gate     *gate
	storage  string // whose identity callers may name
	alive    time.Duration
	frame    int // about the size of a frame, in bytes

	senders sync.WaitGroup
}

// NewReadServer returns a server of what ingester has in the storage with that identity. It starts nothing: register it at a gRPC server that passes frames
// of package rpcframe, and whose interceptor puts the tenant into the context.
func NewReadServer(
	cfg ReadServerConfig, ingester Readable, storageID string, log *slog.Logger, reg prometheus.Registerer,
) (*ReadServer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &ReadServer{
		cfg: cfg, ingester: ingester, log: log, metrics: newReadServerMetrics(reg), gate: newGate(cfg.MaxConcurrent),
		storage: storageID, alive: aliveEvery, frame: frameBytes,
	}, nil
}

// Register adds the service to r.
func (s *ReadServer) Register(r grpc.ServiceRegistrar) {
	desc := &grpc.ServiceDesc{ServiceName: readService, HandlerType: (*any)(nil)}
	for _, m := range []struct {
		name string
		work func(context.Context, *reading) error
	}{
		{methodPlan, s.plan},
		{methodSelect, s.selectSeries},
		{methodLabelValues, s.labelValues},
		{methodLabelNames, s.labelNames},
		{methodExemplars, s.exemplars},
		{methodMetadata, s.metadata},
		{methodHeadStats, s.headStats},
		{methodUserStats, s.userStats},
	} {
		desc.Streams = append(desc.Streams, grpc.StreamDesc{
			StreamName: m.name, ServerStreams: true,
			Handler: func(_ any, stream grpc.ServerStream) error { return s.answer(stream, m.work) },
		})
	}
	r.RegisterService(desc, s)
}

// Wait returns when everything that calls have begun has ended. Call it after the gRPC server has stopped.
func (s *ReadServer) Wait() { s.senders.Wait() }

// reading is a call that is being answered.
type reading struct {
	*outbox

	tenantID string
	frame    int // as the server's
	request  *readRequest
	sets     [][]*labels.Matcher
	done     answered
}

// answer runs a call and tells the client its error in a frame, for a status of gRPC does not carry all of it.
func (s *ReadServer) answer(stream grpc.ServerStream, work func(context.Context, *reading) error) (err error) {
	ctx := stream.Context()
	id, err := tenant.FromContext(ctx)
	if err != nil {
		return status.Error(errkind.Of(err).GRPCCode(), err.Error())
	}
	if err := s.checkStorage(ctx); err != nil {
		return err
	}
	s.metrics.open.Inc()
	defer s.metrics.open.Dec()
	out := newOutbox(stream, s.cfg.StallTimeout, s.metrics)
	defer out.close()
	s.senders.Go(func() { out.run(stream, s.alive) })

	r := &reading{outbox: out, tenantID: id, frame: s.frame}
	if err = s.admit(stream, r, work); err == nil {
		err = out.send(r.done.frame())
	}
	if err == nil {
		err = out.flush()
	}
	if err == nil {
		return nil
	}
	if ctx.Err() == nil && !errors.Is(err, errStalled) {
		s.log.DebugContext(ctx, "read failed", "tenant", id, "err", err)
		if out.send(errorFrame(err)) == nil { // the status says it, too
			_ = out.flush()
		}
	}
	return status.Error(errkind.Of(err).GRPCCode(), err.Error())
}

// storageKey is the metadata in which a caller names the storage that it wants to be answered from.
const storageKey = "duramen-storage-id"

// checkStorage refuses a caller who takes this ingester for another one, or for itself with an earlier disk: an answer
// would lack what only the other one has, and nothing in it would say so. The status is one that clients take for "away".
func (s *ReadServer) checkStorage(ctx context.Context) error {
	if meant := metadata.ValueFromIncomingContext(ctx, storageKey); len(meant) > 0 && meant[0] != s.storage {
		return status.Errorf(codes.FailedPrecondition, "here is storage %s, not %s", s.storage, meant[0])
	}
	return nil
}

// admit receives the request and does the work of the call if there is a place for it.
func (s *ReadServer) admit(stream grpc.ServerStream, r *reading, work func(context.Context, *reading) error) error {
	if err := s.gate.enter(r.tenantID); err != nil {
		s.metrics.refused.Inc()
		return err
	}
	defer s.gate.leave(r.tenantID)
	var frame rpcframe.Frame
	err := stream.RecvMsg(&frame)
	if err != nil {
		return err
	}
	if r.request, r.sets, err = decodeReadRequest(frame); err != nil {
		return err
	}
	return work(stream.Context(), r)
}

// sendItems sends frames that begin with first, each with as many items as fit.
func sendItems[T any](r *reading, first byte, items []T, item func(dst []byte, v T) []byte) error {
	frame := []byte{first}
	for i, v := range items {
		frame = item(frame, v)
		if len(frame) >= r.frame || i == len(items)-1 {
			if err := r.send(frame); err != nil {
				return err
			}
			frame = []byte{first}
		}
	}
	return nil
}

// opened says that an answer follows, beside what the ingester holds.
func (r *reading) opened(held duramenpb.Held) error { return r.send(openedFrame(held)) }

func (s *ReadServer) plan(ctx context.Context, r *reading) error {
	held, err := s.ingester.Plan(ctx, r.tenantID, r.request.view(), r.request.MinTime, r.request.MaxTime)
	if err != nil {
		return err
	}
	return r.opened(held)
}

// querier opens what the request's view leaves to the ingester, and says so.
func (s *ReadServer) querier(ctx context.Context, r *reading) (storage.ChunkQuerier, error) {
	q, held, err := s.ingester.ChunkQuerier(ctx, r.tenantID, r.request.view(), r.request.MinTime, r.request.MaxTime)
	if err != nil {
		return nil, err
	}
	if err := r.opened(held); err != nil {
		return nil, errors.Join(err, q.Close())
	}
	return q, nil
}

func (s *ReadServer) selectSeries(ctx context.Context, r *reading) (err error) {
	q, err := s.querier(ctx, r)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	hints := untrimmed(r.request.SelectHints, r.request.MinTime, r.request.MaxTime)
	set := q.Select(ctx, true, hints, only(r.sets)...)
	w := selectWriter{r: r, withChunks: hints.Func != listsSeries}
	if err := w.write(ctx, set); err != nil {
		return err
	}
	for warning := range set.Warnings() {
		r.done.warnings = append(r.done.warnings, warning)
	}
	s.metrics.series.Add(float64(r.done.items))
	s.metrics.chunks.Add(float64(r.done.chunks))
	span := tracing.Current(ctx)
	span.Int("series", int64(r.done.items))
	span.Int("chunks", int64(r.done.chunks))
	span.Int("chunk_bytes", w.bytes)
	return nil
}

// firstFrameBytes is the room that a Select's first frame begins with; most answers are small.
const firstFrameBytes = 8 << 10

// selectWriter writes series and their chunks into frames. BenchmarkSelect measures it.
type selectWriter struct {
	r          *reading
	encoder    seriesEncoder
	withChunks bool
	chunks     chunks.Iterator // of the series before, to be used again
	bytes      int64           // of chunks
}

func (w *selectWriter) write(ctx context.Context, set storage.ChunkSeriesSet) error {
	w.encoder.begin(firstFrameBytes)
	for set.Next() {
		// A querier that has gone is noticed by send; this is for a pass over many series that fill no frame.
		if w.r.done.items%1024 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := w.series(set.At()); err != nil {
			return err
		}
	}
	if err := set.Err(); err != nil {
		return fmt.Errorf("read recent data of tenant %s: %w", w.r.tenantID, err)
	}
	if len(w.encoder.frame) > 1 {
		return w.r.send(w.encoder.frame)
	}
	return nil
}

func (w *selectWriter) series(s storage.ChunkSeries) error {
	w.encoder.series(s.Labels())
	w.r.done.items++
	n := 0
	if w.withChunks {
		it := s.Iterator(w.chunks)
		for it.Next() {
			m := it.At()
			if m.Chunk.NumSamples() == 0 {
				continue
			}
			w.bytes += int64(w.encoder.chunk(m))
			n++
			if err := w.full(); err != nil {
				return err
			}
		}
		if err := it.Err(); err != nil {
			return fmt.Errorf("read chunks of tenant %s: %w", w.r.tenantID, err)
		}
		w.chunks = it
	}
	w.r.done.chunks += n
	w.encoder.end(n)
	return w.full()
}

// full sends the frame when it is.
func (w *selectWriter) full() error {
	if len(w.encoder.frame) < w.r.frame {
		return nil
	}
	err := w.r.send(w.encoder.frame)
	w.encoder.begin(w.r.frame + w.r.frame/8)
	return err
}

func (s *ReadServer) labelValues(ctx context.Context, r *reading) error {
	return s.labels(ctx, r, func(q storage.ChunkQuerier) ([]string, error) {
		values, _, err := q.LabelValues(ctx, string(r.request.Name), r.request.LabelHints, only(r.sets)...)
		return values, err
	})
}

func (s *ReadServer) labelNames(ctx context.Context, r *reading) error {
	return s.labels(ctx, r, func(q storage.ChunkQuerier) ([]string, error) {
		names, _, err := q.LabelNames(ctx, r.request.LabelHints, only(r.sets)...)
		return names, err
	})
}

func (s *ReadServer) labels(ctx context.Context, r *reading, ask func(storage.ChunkQuerier) ([]string, error)) (
	err error,
) {
	q, err := s.querier(ctx, r)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	values, err := ask(q)
	if err != nil {
		return fmt.Errorf("read labels of tenant %s: %w", r.tenantID, err)
	}
	r.done.items = len(values)
	return sendItems(r, frameValues, values, rpcframe.AppendText)
}

func (s *ReadServer) exemplars(ctx context.Context, r *reading) error {
	found, err := s.ingester.Exemplars(ctx, r.tenantID, r.request.MinTime, r.request.MaxTime, r.sets...)
	if err != nil {
		return err
	}
	if err := r.opened(duramenpb.Held{}); err != nil {
		return err
	}
	var items []exemplarItem
	for _, series := range found {
		for i, e := range series.Exemplars {
			items = append(items, exemplarItem{series.SeriesLabels, i == 0, e})
		}
	}
	r.done.items = len(items)
	return sendItems(r, frameExemplars, items, appendExemplar)
}

func (s *ReadServer) metadata(ctx context.Context, r *reading) error {
	found, err := s.ingester.Metadata(ctx, r.tenantID, string(r.request.Name))
	if err != nil {
		return err
	}
	if err := r.opened(duramenpb.Held{}); err != nil {
		return err
	}
	r.done.items = len(found)
	return sendItems(r, frameMetadata, found, appendMetadata)
}

func (s *ReadServer) headStats(ctx context.Context, r *reading) error {
	if r.request.Limit < 0 {
		return errkind.New(errkind.Invalid, "the request wants lists of %d entries", r.request.Limit)
	}
	stats, err := s.ingester.HeadStats(ctx, r.tenantID, r.request.Limit)
	if err != nil {
		return err
	}
	if err := r.opened(duramenpb.Held{}); err != nil {
		return err
	}
	if err := r.send(headFrame(&stats)); err != nil {
		return err
	}
	var items []countItem
	for n, list := range headLists(&stats) {
		for _, c := range *list {
			items = append(items, countItem{byte(n), c})
		}
	}
	r.done.items = len(items)
	return sendItems(r, frameCounts, items, appendCount)
}

func (s *ReadServer) userStats(ctx context.Context, r *reading) error {
	stats, err := s.ingester.UserStats(ctx, r.tenantID)
	if err != nil {
		return err
	}
	if err := r.opened(duramenpb.Held{}); err != nil {
		return err
	}
	return r.send(userFrame(stats))
}
