package ingester

import (
	"context"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/tracing"
)

// endPushSpan says in a push's span what became of it.
func endPushSpan(span tracing.Span, tenantID string, r *duramenpb.PushResult, err error) {
	if !span.Recording() {
		return
	}
	refused := 0
	for i := range r.Refused {
		refused += r.Refused[i].Floats + r.Refused[i].Histograms
	}
	span.String("tenant", tenantID)
	span.Int("samples.stored", int64(r.Floats+r.Histograms))
	span.Int("samples.refused", int64(refused))
	span.Int("series.stale", int64(len(r.Stale)))
	span.Fail(err)
	span.End()
}

// lockAppend takes appendMu. A push that has to wait for another one of its tenant, or for a cut, says so in its trace.
func (l *life) lockAppend(ctx context.Context) {
	if l.appendMu.TryLock() {
		return
	}
	_, span := tracing.Start(ctx, "ingester.wait_for_lock")
	l.appendMu.Lock()
	span.End()
}

func endCutSpan(span tracing.Span, tenantID string, upTo int64, cut []ulid.ULID, err error) {
	if !span.Recording() {
		return
	}
	span.String("tenant", tenantID)
	span.Int("up_to_ms", upTo)
	span.Int("blocks", int64(len(cut)))
	span.Fail(err)
	span.End()
}

// startShipSpan begins the span of a block's way to the bucket and the manifest.
func (s *shipper) startShipSpan(ctx context.Context, tenantID string, b *tsdb.Block) (context.Context, tracing.Span) {
	ctx, span := s.tracing.Task(ctx, "ingester.ship")
	if span.Recording() {
		span.String("tenant", tenantID)
		span.String("block", b.Meta().ULID.String())
		span.Int("bytes", b.Size())
	}
	return ctx, span
}
