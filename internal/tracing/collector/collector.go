// Package collector owns a small OpenTelemetry collector for tests: an OTLP server on loopback that keeps what it is sent.
// It refuses to be fast or bounded, so nothing but tests may import it. Read package tracing next for who sends to it.
package collector

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
)

// Span is a span as it arrived. IDs are in hexadecimal digits; numbers, too, are texts in Attributes.
type Span struct {
	TraceID, ID, Parent string
	Name                string
	Kind                string // such as "server"
	Begin, End          time.Time
	Failed              bool
	Message             string // of the status
	Attributes          map[string]string
	Resource            map[string]string
}

// Collector is the server. Safe for concurrent use.
type Collector struct {
	collectorpb.UnimplementedTraceServiceServer

	server *grpc.Server
	addr   string
	served chan struct{}

	mu      sync.Mutex
	spans   []Span
	headers []metadata.MD
	answer  func() error
	arrived chan struct{} // closed and replaced when spans arrive
}

// Start listens on a free port of loopback, with TLS when config is not nil. Stop it.
func Start(config *tls.Config) (*Collector, error) { return StartAt("127.0.0.1:0", config) }

// StartAt is Start on a given address of loopback.
func StartAt(addr string, config *tls.Config) (*Collector, error) {
	l, err := net.Listen("tcp", addr) //nolint:noctx // it does not wait for anybody
	if err != nil {
		return nil, fmt.Errorf("listen for spans: %w", err)
	}
	var options []grpc.ServerOption
	if config != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(config)))
	}
	c := &Collector{
		server: grpc.NewServer(options...), addr: l.Addr().String(), served: make(chan struct{}),
		arrived: make(chan struct{}),
	}
	collectorpb.RegisterTraceServiceServer(c.server, c)
	go func() {
		defer close(c.served)
		_ = c.server.Serve(l) // it says that it was stopped
	}()
	return c, nil
}

// Address is host:port.
func (c *Collector) Address() string { return c.addr }

// Stop closes all connections and waits for the server's end.
func (c *Collector) Stop() {
	c.server.Stop()
	<-c.served
}

// Answer sets what exports are answered with from now on, after answer returned; nil takes them.
func (c *Collector) Answer(answer func() error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = answer
}

// Export implements the OTLP service.
func (c *Collector) Export(
	ctx context.Context, req *collectorpb.ExportTraceServiceRequest,
) (*collectorpb.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	answer := c.answer
	c.mu.Unlock()
	if answer != nil {
		if err := answer(); err != nil {
			return nil, err
		}
	}
	header, _ := metadata.FromIncomingContext(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.headers = append(c.headers, header)
	for _, rs := range req.GetResourceSpans() {
		resource := texts(rs.GetResource().GetAttributes())
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				c.spans = append(c.spans, decode(s, resource))
			}
		}
	}
	close(c.arrived)
	c.arrived = make(chan struct{})
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

// Spans returns what has arrived so far, in that order.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Span(nil), c.spans...)
}

// Headers returns the metadata of the exports.
func (c *Collector) Headers() []metadata.MD {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]metadata.MD(nil), c.headers...)
}

// Trace waits until done says that the spans of one trace are complete and returns them. When ctx ends before, it
// returns what there is and the context's error.
func (c *Collector) Trace(ctx context.Context, traceID string, done func([]Span) bool) ([]Span, error) {
	for {
		c.mu.Lock()
		arrived := c.arrived
		var trace []Span
		for _, s := range c.spans {
			if s.TraceID == traceID {
				trace = append(trace, s)
			}
		}
		c.mu.Unlock()
		if done(trace) {
			return trace, nil
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return trace, ctx.Err()
		}
	}
}

func decode(s *tracepb.Span, resource map[string]string) Span {
	return Span{
		TraceID: hex.EncodeToString(s.GetTraceId()), ID: hex.EncodeToString(s.GetSpanId()),
		Parent: hex.EncodeToString(s.GetParentSpanId()), Name: s.GetName(),
		Kind:  strings.ToLower(strings.TrimPrefix(s.GetKind().String(), "SPAN_KIND_")),
		Begin: time.Unix(0, int64(s.GetStartTimeUnixNano())), End: time.Unix(0, int64(s.GetEndTimeUnixNano())),
		Failed:  s.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR,
		Message: s.GetStatus().GetMessage(), Attributes: texts(s.GetAttributes()), Resource: resource,
	}
}

func texts(attributes []*commonpb.KeyValue) map[string]string {
	out := map[string]string{}
	for _, a := range attributes {
		switch v := a.GetValue().GetValue().(type) {
		case *commonpb.AnyValue_StringValue:
			out[a.GetKey()] = v.StringValue
		case *commonpb.AnyValue_IntValue:
			out[a.GetKey()] = fmt.Sprint(v.IntValue)
		case *commonpb.AnyValue_BoolValue:
			out[a.GetKey()] = fmt.Sprint(v.BoolValue)
		case *commonpb.AnyValue_DoubleValue:
			out[a.GetKey()] = fmt.Sprint(v.DoubleValue)
		default:
			out[a.GetKey()] = fmt.Sprint(v)
		}
	}
	return out
}
