package tracing

import (
	"context"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/duramendb/duramen/internal/errkind"
)

const (
	// maxSpans bounds the spans of one request or background task: a query over years reads thousands of ranges, and
	// nobody looks at each. The root says how many were left out.
	maxSpans = 500
	// maxText bounds a text in a span, in bytes.
	maxText = 2048
)

// Span is an operation of a trace. The zero value records nothing: whoever has one may call all methods, and pays next to
// nothing for it. End it once. It belongs to one goroutine.
type Span struct{ a *active }

// active is what a context carries of a trace that is recorded.
//
// It has a context key of its own beside OpenTelemetry's, because Prometheus' engine puts spans of the global provider
// into its contexts, which record nothing and know no tracer of ours.
type active struct {
	span   trace.Span
	tracer trace.Tracer
	root   *root
}

// root is shared by all spans of one request or background task.
type root struct {
	span    trace.Span
	started atomic.Int64
}

type activeKey struct{}

func fromContext(ctx context.Context) *active {
	a, _ := ctx.Value(activeKey{}).(*active)
	return a
}

// Start begins a span below the one in ctx and returns a context with it. When ctx has none, because tracing is off or
// the request is not sampled, it returns ctx and the zero Span, and allocates nothing.
func Start(ctx context.Context, name string) (context.Context, Span) {
	a := fromContext(ctx)
	if a == nil || a.root.started.Add(1) > maxSpans {
		return ctx, Span{}
	}
	return begin(ctx, a.tracer, a.root, name)
}

func begin(ctx context.Context, tracer trace.Tracer, r *root, name string, options ...trace.SpanStartOption) (
	context.Context, Span,
) {
	ctx, s := tracer.Start(ctx, name, options...)
	a := &active{span: s, tracer: tracer, root: r}
	if r.span == nil {
		r.span = s
	}
	return context.WithValue(ctx, activeKey{}, a), Span{a}
}

// Current returns the span in ctx, to add to it. Its End is up to whoever began it.
func Current(ctx context.Context) Span { return Span{fromContext(ctx)} }

// Recording reports whether the span goes anywhere. Ask it before computing what only a span needs.
func (s Span) Recording() bool { return s.a != nil }

// TraceID returns the trace's ID in hexadecimal digits, empty for the zero Span.
func (s Span) TraceID() string {
	if s.a == nil {
		return ""
	}
	return s.a.span.SpanContext().TraceID().String()
}

// Int adds a number.
func (s Span) Int(key string, value int64) {
	if s.a != nil {
		s.a.span.SetAttributes(attribute.Int64(key, value))
	}
}

// String adds a text, cut to 2 KiB.
func (s Span) String(key, value string) {
	if s.a != nil {
		s.a.span.SetAttributes(attribute.String(key, cut(value)))
	}
}

// Bool adds a yes or no.
func (s Span) Bool(key string, value bool) {
	if s.a != nil {
		s.a.span.SetAttributes(attribute.Bool(key, value))
	}
}

// Rename gives the span another name.
func (s Span) Rename(name string) {
	if s.a != nil {
		s.a.span.SetName(cut(name))
	}
}

// Fail marks the span as failed, with the error's text and kind. A nil error does nothing.
func (s Span) Fail(err error) {
	if s.a == nil || err == nil {
		return
	}
	s.a.span.SetAttributes(attribute.String("error.type", errkind.Of(err).String()))
	s.a.span.SetStatus(codes.Error, cut(err.Error()))
}

// FailBecause marks the span as failed, for a reason that is no error value.
func (s Span) FailBecause(reason string) {
	if s.a != nil {
		s.a.span.SetStatus(codes.Error, cut(reason))
	}
}

// End ends the span. Spans below it may end later.
func (s Span) End() {
	if s.a == nil {
		return
	}
	if s.a.span == s.a.root.span {
		if left := s.a.root.started.Load() - maxSpans; left > 0 {
			s.a.span.SetAttributes(attribute.Int64("spans.left_out", left))
		}
	}
	s.a.span.End()
}

// cut makes a text of a client's fit for a span: of bounded size, and valid UTF-8, because one that is not fails the export
// of the whole batch.
func cut(text string) string {
	if len(text) <= maxText {
		return strings.ToValidUTF8(text, "\uFFFD")
	}
	end := maxText
	for end > maxText-utf8.UTFMax && !utf8.RuneStart(text[end]) {
		end--
	}
	return strings.ToValidUTF8(text[:end], "\uFFFD") + "…"
}

// MetadataKey is the key of gRPC's metadata that carries a Traceparent.
const MetadataKey = "traceparent"

// Traceparent returns what another process needs to go on with the trace below this span, as the W3C writes it; empty for
// the zero Span.
func (s Span) Traceparent() string {
	if s.a == nil {
		return ""
	}
	c := s.a.span.SpanContext()
	return "00-" + c.TraceID().String() + "-" + c.SpanID().String() + "-" + c.TraceFlags().String()
}

// Context returns ctx with the span, for work that another goroutine does below it; ctx itself for the zero Span.
func (s Span) Context(ctx context.Context) context.Context {
	if s.a == nil {
		return ctx
	}
	return context.WithValue(trace.ContextWithSpan(ctx, s.a.span), activeKey{}, s.a)
}

// Parent is what another process needs to go on with a trace below a span, where the W3C's text is too long: the ID of the
// trace and that of the span. The zero Parent is none.
type Parent [24]byte

// Parent returns the span as the parent of others; the zero Parent for the zero Span.
func (s Span) Parent() (p Parent) {
	if s.a != nil {
		c := s.a.span.SpanContext()
		trace, span := c.TraceID(), c.SpanID()
		copy(p[copy(p[:], trace[:]):], span[:])
	}
	return p
}
