package app

import (
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/duramendb/duramen/internal/tracing"
)

// otherRoute is the label of requests to paths that do not exist.
const otherRoute = "other"

// newRouter serves the routes: methods are checked, requests counted, timed and traced, panics answered with 500.
func newRouter(
	routes []route, notFound http.HandlerFunc, traces *tracing.Provider, log *slog.Logger, reg prometheus.Registerer,
) http.Handler {
	m := newHTTPMetrics(reg)
	mux := http.NewServeMux()
	for _, r := range routes {
		h := allow(r.methods, recovered(r.handler, r.path, m, log))
		mux.Handle(r.path, m.observe(r.path, traced(traces, r, h)))
	}
	mux.Handle("/", m.observe(otherRoute, notFound))
	return mux
}

// allow answers 405 to other methods. GET stands for HEAD, too.
func allow(methods []string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		if !slices.Contains(methods, method) {
			w.Header().Set("Allow", strings.Join(methods, ", "))
			http.Error(w, "use "+strings.Join(methods, " or "), http.StatusMethodNotAllowed)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// recovered turns a panic into a 500, a log line with the stack, and a count. A handler that aborts on purpose is let
// through to the server.
func recovered(next http.Handler, route string, m *httpMetrics, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(p)
			}
			m.panics.Inc()
			log.ErrorContext(r.Context(), "handler panicked", "route", route, "panic", p, "stack", string(debug.Stack()))
			if s, ok := w.(*statusWriter); ok && s.status != 0 {
				panic(http.ErrAbortHandler) // half an answer is on its way: break the connection, so that it is seen
			}
			http.Error(w, "internal error: a handler panicked; the log has the details", http.StatusInternalServerError)
		}()
		next.ServeHTTP(w, r)
	})
}

// observe counts and times the requests of a route.
func (m *httpMetrics) observe(route string, next http.Handler) http.Handler {
	seconds := m.seconds.WithLabelValues(route)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.inflight.Inc()
		began := time.Now()
		s := &statusWriter{ResponseWriter: w}
		defer func() {
			m.inflight.Dec()
			seconds.Observe(time.Since(began).Seconds())
			m.requests.WithLabelValues(route, methodLabel(r.Method), strconv.Itoa(s.code())).Inc()
		}()
		next.ServeHTTP(s, r)
	})
}

// methodLabel keeps the label's values a closed set, whatever clients invent.
func methodLabel(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions:
		return method
	default:
		return "other"
	}
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter

	status int // 0 until the header is written
}

// WriteHeader implements http.ResponseWriter.
func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *statusWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach what the server's writer can do besides.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *statusWriter) code() int {
	if w.status == 0 {
		return http.StatusOK // what the server sends for a handler that wrote nothing
	}
	return w.status
}
