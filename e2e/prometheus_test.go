package e2e

import (
	"context"
	"fmt"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/e2e/process"
)

// TestPrometheusCatchesUp: a real Prometheus scrapes a target and itself, and writes to two tenants, in remote write 1.0
// and 2.0, while the node is killed again and again. It retries by itself, and afterwards both tenants hold exactly what
// Prometheus' own storage holds.
func TestPrometheusCatchesUp(t *testing.T) {
	rnd := random(t)
	n := startNode(t, t.TempDir())
	target := startTarget(t)
	prom := startPrometheus(t, n.URL, target)
	own := client.Prometheus(prom.URL)
	defer own.CloseIdle()
	versions := map[string]*client.Client{"rw1": client.Duramen(n.URL, "rw1"), "rw2": client.Duramen(n.URL, "rw2")}
	begin := client.Now()

	// The first samples arrive before the first kill, so that nothing is a matter of who came first.
	for tenant, c := range versions {
		defer c.CloseIdle()
		require.Eventually(t, func() bool {
			got, err := c.Samples(t.Context(), `up{job="target"}`, client.Now(), 60_000)
			return err == nil && len(got) == 1
		}, startTimeout, 100*time.Millisecond, "first samples of %s", tenant)
	}
	for until := time.Now().Add(*duration); time.Now().Before(until); {
		require.NoError(t, wait(t.Context(), between(rnd, time.Second, 5*time.Second)))
		n.Kill()
		require.NoError(t, wait(t.Context(), between(rnd, 0, 1500*time.Millisecond)))
		require.NoError(t, n.start())
		if rnd.IntN(3) == 0 {
			require.True(t, flush(t.Context(), versions["rw1"]))
		}
	}

	end := client.Now() - 1500 // scrapes are complete by then
	for _, selector := range []string{`{job="target"}`, `{job="prometheus"}`} {
		want, err := own.Samples(t.Context(), selector, end, end-begin)
		require.NoError(t, err)
		require.NotEmpty(t, want)
		client.Sort(want)
		for tenant, c := range versions {
			awaitEqual(t, c, tenant, selector, want, end, end-begin)
		}
	}
	natives, err := own.Samples(t.Context(), "target_native_seconds", end, end-begin)
	require.NoError(t, err)
	require.NotEmpty(t, natives)
	require.NotEmpty(t, natives[0].Histograms, "the target's native histograms are part of the story")
	checkSender(t, own)
}

// awaitEqual waits until a tenant holds what Prometheus holds, and says what differs when it never does.
func awaitEqual(t *testing.T, c *client.Client, tenant, selector string, want []client.Series, end, back int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	var got []client.Series
	for {
		var err error
		if got, err = c.Samples(ctx, selector, end, back); err == nil {
			client.Sort(got)
			if client.Difference(want, got) == "" {
				t.Logf("%s %s: %d series and %d samples equal", tenant, selector, len(want), countPoints(want))
				return
			}
		}
		if wait(ctx, 200*time.Millisecond) != nil {
			require.NoError(t, err)
			require.Empty(t, client.Difference(want, got), "%s %s", tenant, selector)
		}
	}
}

func countPoints(series []client.Series) (n int) {
	for _, s := range series {
		n += len(s.Values) + len(s.Histograms)
	}
	return n
}

// checkSender: Prometheus has dropped nothing, and waits for nothing.
func checkSender(t *testing.T, own *client.Client) {
	t.Helper()
	for _, name := range []string{
		"prometheus_remote_storage_samples_failed_total", "prometheus_remote_storage_histograms_failed_total",
	} {
		v, err := own.Metric(t.Context(), name)
		require.NoError(t, err)
		require.Zero(t, v, name)
	}
	retried, err := own.Metric(t.Context(), "prometheus_remote_storage_samples_retried_total")
	require.NoError(t, err)
	require.Positive(t, retried, "the kills were not felt")
	// New scrapes come in every second; at some moment between two nothing is pending.
	require.Eventually(t, func() bool {
		pending, err := own.Metric(t.Context(), "prometheus_remote_storage_samples_pending")
		return err == nil && pending == 0
	}, startTimeout, 20*time.Millisecond)
}

// startTarget serves counters, gauges, a classic and a native histogram that change with every scrape.
func startTarget(t *testing.T) *httptest.Server {
	t.Helper()
	reg := prometheus.NewRegistry()
	scrapes := prometheus.NewCounter(prometheus.CounterOpts{Name: "target_scrapes_total", Help: "Scrapes."})
	classic := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "target_classic_seconds", Help: "Classic."})
	native := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "target_native_seconds", Help: "Native.", NativeHistogramBucketFactor: 1.1,
	}, []string{"code"})
	levels := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "target_level", Help: "Levels."}, []string{"i"})
	reg.MustRegister(scrapes, classic, native, levels)
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "target_count", Help: "Changes all."}, func() float64 {
		scrapes.Inc()
		for i := range 100 {
			x := float64(time.Now().UnixNano()%1e6) / float64(i+1)
			levels.WithLabelValues(fmt.Sprint(i)).Set(x)
			classic.Observe(x / 1e5)
			native.WithLabelValues([]string{"200", "500"}[i%2]).Observe(x / 1e5)
		}
		return 1
	}))
	server := httptest.NewServer(promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	t.Cleanup(server.Close)
	return server
}

func startPrometheus(t *testing.T, duramenURL string, target *httptest.Server, args ...string) *process.Process {
	t.Helper()
	config := fmt.Sprintf(`
global:
  scrape_interval: 1s
  scrape_native_histograms: true
remote_write:
  - url: %[1]s/api/v1/push
    headers: {X-Scope-OrgID: rw1}
    protobuf_message: prometheus.WriteRequest
    send_native_histograms: true
    queue_config: {batch_send_deadline: 500ms, max_backoff: 1s}
  - url: %[1]s/api/v1/push
    headers: {X-Scope-OrgID: rw2}
    protobuf_message: io.prometheus.write.v2.Request
    send_native_histograms: true
    queue_config: {batch_send_deadline: 500ms, max_backoff: 1s}
scrape_configs:
  - job_name: target
    static_configs: [{targets: ['%[2]s']}]
  - job_name: prometheus
    static_configs: [{targets: ['%[3]s']}]
`, duramenURL, target.Listener.Addr(), process.Self)
	return startConfigured(t, config, args...)
}

// startConfigured starts a Prometheus with a configuration; it is killed at the end of the story.
func startConfigured(t *testing.T, config string, args ...string) *process.Process {
	t.Helper()
	spec, err := process.Prometheus(tool(t, "prometheus"), t.TempDir(), config, args...)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	p, _, err := process.StartReady(ctx, spec)
	require.NoError(t, err)
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("the end of Prometheus' log:\n%s", p.LogTail(2000))
		}
	})
	return p
}
