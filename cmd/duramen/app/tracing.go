package app

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/duramendb/duramen/internal/service"
	"github.com/duramendb/duramen/internal/tracing"
	"github.com/duramendb/duramen/tenant"
)

// buildTracing comes early so that it stops late: the parts above it may begin spans until they have stopped.
func buildTracing(a *App) (_ *service.Service, err error) {
	id := tracing.Identity{Version: a.build.Version, Instance: a.dataDir.instance.StorageID}
	if a.tracing, err = tracing.New(a.cfg.Tracing, id, time.Now, a.logger("tracing"), a.reg); err != nil {
		return nil, err
	}
	return a.tracing.Service(), nil
}

// traced begins a span for each request to a route that does the tenants' work. Probes, metrics and pages have none.
func traced(p *tracing.Provider, r route, next http.Handler) http.Handler {
	if !p.Enabled() || !r.tenanted && !r.gated {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		ctx, span := p.Request(req.Context(), req.Header, methodLabel(req.Method)+" "+r.path)
		if !span.Recording() {
			next.ServeHTTP(w, req)
			return
		}
		span.String("http.request.method", req.Method)
		span.String("http.route", r.path)
		span.String("url.path", req.URL.Path)
		span.String("user_agent.original", req.UserAgent())
		defer func() {
			broken := recover()
			if broken != nil { // the status says nothing of an answer that ended in its middle
				span.FailBecause("the answer broke off")
				defer panic(broken)
			}
			if s, ok := w.(*statusWriter); ok {
				span.Int("http.response.status_code", int64(s.code()))
				if s.code() >= http.StatusInternalServerError {
					span.FailBecause(http.StatusText(s.code()))
				}
			}
			span.End()
		}()
		next.ServeHTTP(w, req.WithContext(ctx))
	})
}

// tellTenant adds the tenant to the request's span.
func tellTenant(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if span := tracing.Current(r.Context()); span.Recording() {
			if id, err := tenant.FromContext(r.Context()); err == nil {
				span.String("tenant", id)
			}
		}
		next.ServeHTTP(w, r)
	})
}

// traceIDs is a log handler that adds the ID of the trace which a record's context carries.
type traceIDs struct{ slog.Handler }

// Handle implements slog.Handler.
func (h traceIDs) Handle(ctx context.Context, r slog.Record) error {
	if id := tracing.Current(ctx).TraceID(); id != "" {
		r = r.Clone()
		r.AddAttrs(slog.String("trace_id", id))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h traceIDs) WithAttrs(attrs []slog.Attr) slog.Handler {
	return traceIDs{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h traceIDs) WithGroup(name string) slog.Handler { return traceIDs{h.Handler.WithGroup(name)} }
