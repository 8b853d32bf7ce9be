package e2e

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/e2e/process"
	"github.com/duramendb/duramen/internal/tracing/collector"
)

// caller sends each request as a span of one trace, as an instrumented Grafana does.
type caller struct {
	http.RoundTripper
	trace, span string
}

func (c caller) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Traceparent", "00-"+c.trace+"-"+c.span+"-01")
	return c.RoundTripper.RoundTrip(r)
}

// tracedClient returns a client whose requests belong to a trace of that number.
func tracedClient(t *testing.T, url string, number int) (*client.Client, caller) {
	c := client.Duramen(url, "team-a")
	as := caller{c.HTTP.Transport, fmt.Sprintf("%032x", number), fmt.Sprintf("%016x", 7000+number)}
	transport := c.HTTP.Transport.(*http.Transport)
	t.Cleanup(transport.CloseIdleConnections)
	c.HTTP.Transport = as
	return c, as
}

// traceOf waits for the caller's trace until its root, the request's span, has arrived, which is the last to end.
func traceOf(t *testing.T, c *collector.Collector, as caller) (root collector.Span, all []collector.Span) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	all, err := c.Trace(ctx, as.trace, func(spans []collector.Span) bool {
		return slices.ContainsFunc(spans, func(s collector.Span) bool { return s.Parent == as.span })
	})
	require.NoError(t, err, "%d spans", len(all))
	for _, s := range all {
		if s.Parent == as.span {
			root = s
		}
	}
	return root, all
}

// paths returns the distinct names of the spans, each with those above it.
func paths(spans []collector.Span) []string {
	byID := map[string]collector.Span{}
	for _, s := range spans {
		byID[s.ID] = s
	}
	var out []string
	for _, s := range spans {
		path := s.Name
		for up, ok := byID[s.Parent]; ok; up, ok = byID[up.Parent] {
			path = up.Name + " > " + path
		}
		out = append(out, path)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func spanNamed(t *testing.T, spans []collector.Span, name string) collector.Span {
	t.Helper()
	i := slices.IndexFunc(spans, func(s collector.Span) bool { return s.Name == name })
	require.GreaterOrEqual(t, i, 0, "no span %s among %v", name, paths(spans))
	return spans[i]
}

// TestTracesOfWritesAndQueries: whoever names a trace in a write, a flush or a query finds in it what the node did, step by
// step, and its ID in the log; whoever does not, and is not sampled, leaves nothing.
func TestTracesOfWritesAndQueries(t *testing.T) {
	spans, err := collector.Start(nil)
	require.NoError(t, err)
	t.Cleanup(spans.Stop)
	n := startNode(t, t.TempDir(), "-tracing.otlp-endpoint="+spans.Address(), "-tracing.otlp-insecure",
		"-tracing.sample-ratio=0", "-ingester.wal-sync=commit", "-log.level=debug")
	old := client.Now() - 20*time.Hour.Milliseconds()
	lset := map[string]string{"__name__": "up", "job": "x"}

	t.Run("a tenant's first write", func(t *testing.T) {
		c, as := tracedClient(t, n.URL, 9)
		a, err := c.Push(t.Context(), client.V1, request(t, lset, old, 1))
		require.NoError(t, err)
		require.True(t, a.OK(), a)
		_, all := traceOf(t, spans, as)
		require.Contains(t, paths(all), "POST /api/v1/push > distributor.push > ingester.push > ingester.wait_for_tenant")
		untraced := client.Duramen(n.URL, "team-a")
		defer untraced.CloseIdle()
		require.NoError(t, untraced.Query(t.Context(), "up", old, &[]client.Series{}))
	})

	t.Run("write", func(t *testing.T) {
		c, as := tracedClient(t, n.URL, 1)
		a, err := c.Push(t.Context(), client.V1, request(t, lset, old+1000, 2))
		require.NoError(t, err)
		require.True(t, a.OK(), a)
		root, all := traceOf(t, spans, as)
		require.Equal(t, []string{
			"POST /api/v1/push",
			"POST /api/v1/push > distributor.push",
			"POST /api/v1/push > distributor.push > ingester.push",
			"POST /api/v1/push > distributor.push > ingester.push > ingester.append",
			"POST /api/v1/push > distributor.push > ingester.push > ingester.wal_sync",
		}, paths(all))
		require.Equal(t, "server", root.Kind)
		require.Equal(t, "team-a", root.Attributes["tenant"])
		require.Equal(t, "/api/v1/push", root.Attributes["http.route"])
		require.Equal(t, "200", root.Attributes["http.response.status_code"])
		require.Equal(t, "duramen", root.Resource["service.name"])
		require.NotEmpty(t, root.Resource["service.instance.id"])
		push := spanNamed(t, all, "distributor.push")
		for key, want := range map[string]string{
			"series": "1", "series.cached": "1", "samples": "1", "samples.stored": "1", "samples.refused": "0", "format": "1.0",
		} {
			require.Equal(t, want, push.Attributes[key], key)
		}
	})

	t.Run("refused write", func(t *testing.T) {
		c, as := tracedClient(t, n.URL, 2)
		a, err := c.Push(t.Context(), client.V1, request(t, lset, client.Now()+time.Hour.Milliseconds(), 2))
		require.NoError(t, err)
		require.Equal(t, http.StatusBadRequest, a.Status)
		root, all := traceOf(t, spans, as)
		require.Equal(t, "400", root.Attributes["http.response.status_code"])
		require.False(t, root.Failed, "a client's fault is none of ours")
		require.Equal(t, "1", spanNamed(t, all, "distributor.push").Attributes["samples.refused"])
	})

	t.Run("malformed write", func(t *testing.T) {
		c, as := tracedClient(t, n.URL, 3)
		a, err := c.Push(t.Context(), client.V1, []byte("nonsense"))
		require.NoError(t, err)
		require.Equal(t, http.StatusBadRequest, a.Status)
		_, all := traceOf(t, spans, as)
		push := spanNamed(t, all, "distributor.push")
		require.True(t, push.Failed)
		require.Equal(t, "invalid", push.Attributes["error.type"])
		require.Contains(t, n.LogTail(1<<20), "trace_id="+as.trace)
	})

	t.Run("flush", func(t *testing.T) {
		c, as := tracedClient(t, n.URL, 4)
		require.True(t, flush(t.Context(), c))
		_, all := traceOf(t, spans, as)
		const top = "POST /ingester/flush"
		require.Subset(t, paths(all), []string{
			top + " > ingester.cut",
			top + " > ingester.ship > bucket.put",
			top + " > ingester.ship > manifest.add > bucket.put_if_absent",
		})
		require.Equal(t, "1", spanNamed(t, all, "ingester.cut").Attributes["blocks"])
		require.True(t, strings.HasPrefix(spanNamed(t, all, "bucket.put").Attributes["key"], "team-a/"))
	})

	t.Run("query", func(t *testing.T) {
		c, as := tracedClient(t, n.URL, 5)
		var result []client.Series
		require.NoError(t, c.Query(t.Context(), `sum by (job) (last_over_time(up{job="x"}[1m]))`, old+2000, &result))
		root, all := traceOf(t, spans, as)
		const eval = "POST /prometheus/api/v1/query > querier.eval"
		require.Subset(t, paths(all), []string{
			eval + " > querier.plan",
			eval + " > querier.select_recent",
			eval + " > querier.select_store > bucket.get_range",
		})
		require.Equal(t, "200", root.Attributes["http.response.status_code"])
		require.Equal(t, "1", spanNamed(t, all, "querier.plan").Attributes["blocks"])
		require.Contains(t, spanNamed(t, all, "querier.eval").Attributes["query"], "sum by (job)")
		require.Equal(t, "1", spanNamed(t, all, "querier.select_store").Attributes["series"])
		require.Contains(t, spanNamed(t, all, "querier.select_store").Attributes["matchers"], `job="x"`)
		var read []string // what is read of the block: its sidecar, and the chunks that it points to
		for _, s := range all {
			if s.Name == "bucket.get_range" {
				_, name, _ := strings.Cut(strings.TrimPrefix(s.Attributes["key"], "team-a/"), "/")
				read = append(read, name)
				require.NotEqual(t, "0", s.Attributes["bytes"])
			}
		}
		require.Contains(t, read, "duramen.idx")
		require.Contains(t, read, "chunks/000001")
	})

	t.Run("query with a fault", func(t *testing.T) {
		c, as := tracedClient(t, n.URL, 6)
		var result []client.Series
		require.Error(t, c.Query(t.Context(), `label_replace(up, "a", "$1", "job", "(")`, old+2000, &result))
		root, all := traceOf(t, spans, as)
		require.Equal(t, "422", root.Attributes["http.response.status_code"])
		eval := spanNamed(t, all, "querier.eval")
		require.True(t, eval.Failed)
		require.Contains(t, eval.Message, "invalid regular expression")
	})

	require.NoError(t, n.Terminate(startTimeout))
	for _, s := range spans.Spans() {
		require.True(t, strings.HasPrefix(s.TraceID, "0000"), "only who named a trace is traced: %+v", s)
	}
}

// TestACollectorThatIsAwayCostsNothingButSpans: writes and queries are answered as ever, and a stop is bounded.
func TestACollectorThatIsAwayCostsNothingButSpans(t *testing.T) {
	port, err := process.FreePort()
	require.NoError(t, err)
	n := startNode(t, t.TempDir(), fmt.Sprintf("-tracing.otlp-endpoint=127.0.0.1:%d", port), "-tracing.otlp-insecure",
		"-tracing.sample-ratio=1")
	c := client.Duramen(n.URL, "team-a")
	defer c.CloseIdle()
	now := client.Now()
	for i := range int64(3000) { // more spans than the queue takes
		a, err := c.Push(t.Context(), client.V1, request(t, map[string]string{"__name__": "x"}, now-3000+i, 1))
		require.NoError(t, err)
		require.True(t, a.OK(), a)
	}
	got, err := c.Samples(t.Context(), "x", now, time.Minute.Milliseconds())
	require.NoError(t, err)
	require.Len(t, got[0].Values, 3000)
	dropped, err := c.Metric(t.Context(), "duramen_tracing_dropped_spans_total", `reason="queue_full"`)
	require.NoError(t, err)
	require.Positive(t, dropped)
	require.NoError(t, n.Terminate(30*time.Second), "the stop does not wait for a collector")
	require.Equal(t, 1, strings.Count(n.LogTail(1<<20), "spans not exported"), n.LogTail(3000))
}
