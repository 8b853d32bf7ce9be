package ingestrpc

import (
	"context"

	"github.com/duramendb/duramen/internal/tracing"
)

// together returns a context of the trace that the push of w's sections belongs to: that of the first of them which is
// traced. Each other one says in its span where the push is to be found.
func (w *commit) together(ctx context.Context) context.Context {
	var first tracing.Span
	for _, p := range w.parts {
		span := p.a.span
		if !span.Recording() {
			continue
		}
		span.Int("sections", int64(len(w.parts)))
		if first.Recording() {
			span.String("stored_with", first.TraceID())
			continue
		}
		first = span
	}
	return first.Context(ctx)
}

func (a *arrival) endSpan(err error) {
	if !a.span.Recording() {
		return
	}
	a.span.String("tenant", a.tenant)
	a.span.Int("bytes", int64(len(a.section)))
	a.span.Fail(err)
	a.span.End()
}
