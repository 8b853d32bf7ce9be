package distributor

import "github.com/duramendb/duramen/internal/tracing"

// endSpan says in a push's span what came and what became of it.
func (r *request) endSpan(span tracing.Span, err error) {
	if !span.Recording() {
		return
	}
	span.String("tenant", r.tenant.id)
	span.String("format", r.format.String())
	span.Int("bytes.compressed", int64(len(r.compressed)))
	span.Int("bytes", int64(len(r.body)))
	span.Int("series", int64(len(r.Labels)))
	span.Int("series.cached", int64(r.known))
	span.Int("samples", int64(r.sent.samples()))
	span.Int("samples.stored", int64(r.stored.samples()))
	span.Int("samples.refused", int64(r.refused.samples))
	span.Int("exemplars", int64(r.sent.exemplars))
	span.Fail(err)
	span.End()
}
