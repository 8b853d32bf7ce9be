package tracing

import (
	"context"
	"sync/atomic"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
)

const (
	// queueSpans bounds the spans that wait for export, about 1 KB each: what a node writes in some seconds of trouble.
	queueSpans = 4096
	// batchSpans and batchWait bound how much and how long spans are collected for one export.
	batchSpans = 512
	batchWait  = time.Second
)

// queue takes ended spans without ever waiting, and hands them on in batches. When it is full, spans are dropped and
// counted. OpenTelemetry's own batch processor tells nobody how many it drops, and reports errors to a global handler.
type queue struct {
	spans   chan sdk.ReadOnlySpan
	closed  atomic.Bool
	metrics *metrics
}

func newQueue(m *metrics) *queue {
	return &queue{spans: make(chan sdk.ReadOnlySpan, queueSpans), metrics: m}
}

// OnStart implements sdk.SpanProcessor.
func (*queue) OnStart(context.Context, sdk.ReadWriteSpan) {}

// OnEnd implements sdk.SpanProcessor.
func (q *queue) OnEnd(s sdk.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	if q.closed.Load() {
		q.metrics.dropped.WithLabelValues(droppedAtStop).Inc()
		return
	}
	select {
	case q.spans <- s:
	default:
		q.metrics.dropped.WithLabelValues(droppedQueueFull).Inc()
	}
}

// Shutdown implements sdk.SpanProcessor; run has its own end.
func (*queue) Shutdown(context.Context) error { return nil }

// ForceFlush implements sdk.SpanProcessor.
func (*queue) ForceFlush(context.Context) error { return nil }

// run hands batches to export until ctx ends, and then what is left. export must not keep the batch.
func (q *queue) run(ctx context.Context, export func(batch []sdk.ReadOnlySpan)) {
	batch := make([]sdk.ReadOnlySpan, 0, batchSpans)
	wait := time.NewTimer(batchWait)
	defer wait.Stop()
	for more := true; more; {
		batch, more = q.fill(ctx, batch, wait)
		if len(batch) > 0 {
			export(batch)
			clear(batch)
			batch = batch[:0]
		}
	}
	q.closed.Store(true)
}

// fill waits for a first span and then for as many as come within batchWait. It reports whether there may be more.
func (q *queue) fill(ctx context.Context, batch []sdk.ReadOnlySpan, wait *time.Timer) ([]sdk.ReadOnlySpan, bool) {
	select {
	case s := <-q.spans:
		batch = append(batch, s)
	case <-ctx.Done():
		return q.rest(batch)
	}
	wait.Reset(batchWait)
	for len(batch) < batchSpans {
		select {
		case s := <-q.spans:
			batch = append(batch, s)
		case <-wait.C:
			return batch, true
		case <-ctx.Done():
			return q.rest(batch)
		}
	}
	return batch, true
}

// rest takes what is there without waiting.
func (q *queue) rest(batch []sdk.ReadOnlySpan) ([]sdk.ReadOnlySpan, bool) {
	for len(batch) < batchSpans {
		select {
		case s := <-q.spans:
			batch = append(batch, s)
		default:
			return batch, false
		}
	}
	return batch, true
}
