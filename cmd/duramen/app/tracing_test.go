package app

import (
	"context"
	"flag"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/tracing"
	"github.com/duramendb/duramen/internal/tracing/collector"
)

// TestAnAnswerThatBreaksOffFailsItsSpan: its status was sent long before.
func TestAnAnswerThatBreaksOffFailsItsSpan(t *testing.T) {
	c, err := collector.Start(nil)
	require.NoError(t, err)
	t.Cleanup(c.Stop)
	var cfg tracing.Config
	f := flag.NewFlagSet("", flag.ContinueOnError)
	cfg.RegisterFlags(f)
	require.NoError(t, f.Parse([]string{
		"-tracing.otlp-endpoint=" + c.Address(), "-tracing.otlp-insecure", "-tracing.sample-ratio=1",
	}))
	p, err := tracing.New(cfg, tracing.Identity{}, time.Now, slog.New(slog.DiscardHandler), nil)
	require.NoError(t, err)
	s := p.Service()
	require.NoError(t, s.Start(context.WithoutCancel(t.Context())))
	h := traced(p, route{path: "/read", tenanted: true}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
		panic(http.ErrAbortHandler)
	}))
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/read", nil)
	require.PanicsWithValue(t, http.ErrAbortHandler, func() { h.ServeHTTP(&statusWriter{ResponseWriter: httptest.NewRecorder()}, r) })
	require.NoError(t, s.Stop())
	spans := c.Spans()
	require.Len(t, spans, 1)
	require.True(t, spans[0].Failed)
	require.Equal(t, "the answer broke off", spans[0].Message)
	require.Equal(t, "200", spans[0].Attributes["http.response.status_code"])
}
