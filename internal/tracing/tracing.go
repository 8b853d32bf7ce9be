// Package tracing owns spans: which requests are traced, how a trace crosses HTTP, and the export to an OpenTelemetry
// collector by OTLP. It refuses to make anybody wait for a collector, and sets nothing global: who begins a trace has
// the Provider, what is below finds the trace in its context. Read docs/tracing.md next for which spans there are.
package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/duramendb/duramen/internal/service"
)

// Identity says which process the spans come from.
type Identity struct {
	// Version is the program's, Instance tells processes of one service apart.
	Version, Instance string
}

// Provider begins traces. A nil Provider, like one without an endpoint, begins none. Safe for concurrent use.
type Provider struct {
	cfg      Config
	log      *slog.Logger
	now      func() time.Time
	metrics  *metrics
	queue    *queue
	provider *sdk.TracerProvider // nil when off
	tracer   trace.Tracer
}

// New checks cfg and builds the provider. It starts nothing; without the service's run, spans fill the queue and are
// dropped then.
//
// Attributes of the process may be added and replaced by OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME, which
// OpenTelemetry's SDK reads here.
func New(
	cfg Config, id Identity, now func() time.Time, log *slog.Logger, reg prometheus.Registerer,
) (*Provider, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	p := &Provider{cfg: cfg, log: log, now: now, metrics: newMetrics(reg)}
	if cfg.OTLPEndpoint == "" {
		return p, nil
	}
	process, err := resource.New(context.Background(),
		resource.WithTelemetrySDK(),
		resource.WithHost(),
		resource.WithAttributes(
			attribute.String("service.name", cfg.ServiceName),
			attribute.String("service.version", id.Version),
			attribute.String("service.instance.id", id.Instance),
		),
		resource.WithFromEnv(),
	)
	if err != nil {
		return nil, fmt.Errorf("attributes of traces: %w", err)
	}
	p.queue = newQueue(p.metrics)
	p.provider = sdk.NewTracerProvider(
		sdk.WithResource(process),
		sdk.WithSampler(sdk.AlwaysSample()), // Request has decided
		sdk.WithSpanProcessor(p.queue),
	)
	p.tracer = p.provider.Tracer("github.com/duramendb/duramen")
	return p, nil
}

// Enabled reports whether anything is traced.
func (p *Provider) Enabled() bool { return p != nil && p.tracer != nil }

// Request begins the trace of a request, or goes on with the one that its header traceparent names: then it is sampled if
// the caller says so. It returns the zero Span when the request is not sampled.
func (p *Provider) Request(ctx context.Context, header http.Header, name string) (context.Context, Span) {
	if !p.Enabled() {
		return ctx, Span{}
	}
	sampled := false
	if header.Get("Traceparent") != "" { // spelt as net/http has it, which takes no allocation
		ctx = propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(header))
	}
	if caller := trace.SpanContextFromContext(ctx); caller.IsValid() {
		sampled = caller.IsSampled()
	} else {
		sampled = rand.Float64() < p.cfg.SampleRatio //nolint:gosec // nobody gains by guessing it
	}
	if !sampled {
		return ctx, Span{}
	}
	return p.root(ctx, name, trace.SpanKindServer)
}

// Continue goes on with a trace that another process records, by the Parent that it has sent. It returns the zero Span for
// the zero Parent, and when tracing is off here.
func (p *Provider) Continue(ctx context.Context, parent Parent, name string) (context.Context, Span) {
	if parent == (Parent{}) || !p.Enabled() {
		return ctx, Span{}
	}
	c := trace.SpanContextConfig{TraceFlags: trace.FlagsSampled, Remote: true}
	copy(c.SpanID[:], parent[copy(c.TraceID[:], parent[:]):])
	return p.root(trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(c)), name, trace.SpanKindServer)
}

// Task begins the trace of something that no request waits for. Below a span it begins a span like Start.
func (p *Provider) Task(ctx context.Context, name string) (context.Context, Span) {
	if fromContext(ctx) != nil {
		return Start(ctx, name)
	}
	if !p.Enabled() {
		return ctx, Span{}
	}
	return p.root(ctx, name, trace.SpanKindInternal)
}

func (p *Provider) root(ctx context.Context, name string, kind trace.SpanKind) (context.Context, Span) {
	r := &root{}
	r.started.Store(1)
	return begin(ctx, p.tracer, r, name, trace.WithSpanKind(kind))
}

// Service returns the export's life: it connects without waiting for the collector, exports, and at the stop exports
// what is left within two seconds. It should stop after everything that begins spans.
func (p *Provider) Service() *service.Service {
	if !p.Enabled() {
		return service.NewService("tracing", service.Phases{})
	}
	e := &exporter{p: p}
	return service.NewService("tracing", service.Phases{
		Starting: e.starting, Running: e.running, Stopping: e.stopping,
	})
}
