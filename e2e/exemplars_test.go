package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/e2e/process"
)

// TestExemplarsAndMetadata: a real Prometheus scrapes targets with exemplars, by OpenMetrics and by protobuf, and sends
// exemplars and metadata in remote write 1.0 and 2.0. The tenants then answer as that Prometheus does, exemplars also
// after the node was killed.
func TestExemplarsAndMetadata(t *testing.T) {
	n := startNode(t, t.TempDir(), "-limits.max-exemplars=10000")
	var frozen atomic.Bool
	prom := startExemplarPrometheus(t, n.URL, startExemplarTarget(t, &frozen, "One version."),
		startExemplarTarget(t, &frozen, "Another version."))
	own := client.Prometheus(prom.URL)
	defer own.CloseIdle()
	tenants := map[string]*client.Client{"rw1": client.Duramen(n.URL, "rw1"), "rw2": client.Duramen(n.URL, "rw2")}
	for _, c := range tenants {
		defer c.CloseIdle()
	}
	require.Eventually(t, func() bool {
		return strings.Count(ask(t, own, exemplarsOf(`{job=~".+"}`)), "trace_id") > 300
	}, startTimeout, 100*time.Millisecond)
	frozen.Store(true)

	awaitExemplars(t, own, tenants)
	awaitMetadata(t, own, tenants["rw1"])
	require.Contains(t, ask(t, tenants["rw1"], "/api/v1/status/tsdb"), `"name":"target_text_seconds_bucket"`)
	n.crash()
	awaitExemplars(t, own, tenants)
	awaitMetadata(t, own, tenants["rw1"])
	pushMetadata2(t, own, tenants["rw2"])
	awaitMetadata(t, own, tenants["rw2"])
	failed, err := own.Metric(t.Context(), "prometheus_remote_storage_exemplars_failed_total")
	require.NoError(t, err)
	require.Zero(t, failed, "every exemplar was confirmed as written")
}

func exemplarsOf(query string) string {
	return "/api/v1/query_exemplars?query=" + url.QueryEscape(query)
}

// ask returns what stands under "data" in an answer, or why there is none.
func ask(t *testing.T, c *client.Client, path string) string {
	t.Helper()
	var data json.RawMessage
	if err := c.Ask(t.Context(), path, &data); err != nil {
		return c.BaseURL + ": " + err.Error()
	}
	return string(data)
}

// awaitExemplars waits until the tenants answer as Prometheus, byte for byte.
func awaitExemplars(t *testing.T, own *client.Client, tenants map[string]*client.Client) {
	t.Helper()
	for _, query := range []string{
		`{job=~".+"}`, `rate(target_text_seconds_bucket{le="0.5"}[1m])`, `histogram_quantile(0.9, target_native_seconds)`,
		`target_text_total / target_native_seconds`,
	} {
		for tenant, c := range tenants {
			require.Eventually(t, func() bool {
				want := ask(t, own, exemplarsOf(query))
				return want != "[]" && want == ask(t, c, exemplarsOf(query))
			}, startTimeout, 200*time.Millisecond, "%s %s", tenant, query)
		}
	}
}

// awaitMetadata waits until the tenant has the metadata that Prometheus has, in any order within a family, as there.
func awaitMetadata(t *testing.T, own, c *client.Client) {
	t.Helper()
	var want, got map[string][]metadata.Metadata
	require.Eventually(t, func() bool {
		want, got = readMetadata(t, own), readMetadata(t, c) // nil when there is no answer
		return len(want["target_text_seconds"]) == 2 && reflect.DeepEqual(want, got)
	}, startTimeout, 200*time.Millisecond, "%s", c.Tenant)
	for _, params := range []string{"metric=target_text_seconds", "metric=nothing", "limit=2", "limit_per_metric=1"} {
		want, got := ask(t, own, "/api/v1/metadata?"+params), ask(t, c, "/api/v1/metadata?"+params)
		require.Equal(t, strings.Count(want, `"help"`) > 0, strings.Count(got, `"help"`) > 0, params)
	}
}

func readMetadata(t *testing.T, c *client.Client) (all map[string][]metadata.Metadata) {
	t.Helper()
	if err := c.Ask(t.Context(), "/api/v1/metadata", &all); err != nil {
		return nil
	}
	for _, family := range all {
		slices.SortFunc(family, func(a, b metadata.Metadata) int { return cmp.Compare(a.Help, b.Help) })
	}
	return all
}

// pushMetadata2 pushes the metadata that Prometheus has in remote write 2.0, where it comes with every series of a family.
// This version of Prometheus sends none there: it does not tell its storage to log what it has scraped.
func pushMetadata2(t *testing.T, own, c *client.Client) {
	t.Helper()
	var (
		w       writev2.Request
		symbols = writev2.NewSymbolTable()
		parts   = map[model.MetricType][]string{
			model.MetricTypeHistogram: {"", "_bucket", "_count", "_sum"}, model.MetricTypeSummary: {"", "_count", "_sum"},
		}
	)
	for family, all := range readMetadata(t, own) {
		for i, m := range all {
			suffixes := []string{""}
			if parts, ok := parts[m.Type]; ok {
				suffixes = parts
			}
			for _, s := range suffixes {
				lset := labels.FromStrings("__name__", family+s, "version", fmt.Sprint(i))
				w.Timeseries = append(w.Timeseries, writev2.TimeSeries{
					LabelsRefs: symbols.SymbolizeLabels(lset, nil),
					Samples:    []writev2.Sample{{Value: 1, Timestamp: client.Now()}},
					Metadata: writev2.Metadata{
						Type: writev2.FromMetadataType(m.Type), HelpRef: symbols.Symbolize(m.Help), UnitRef: symbols.Symbolize(m.Unit),
					},
				})
			}
		}
	}
	w.Symbols = symbols.Symbols()
	raw, err := w.Marshal()
	require.NoError(t, err)
	answer, err := c.Push(t.Context(), client.V2, raw)
	require.NoError(t, err)
	require.True(t, answer.OK(), answer.Body)
}

func startExemplarTarget(t *testing.T, frozen *atomic.Bool, help string) *httptest.Server {
	t.Helper()
	reg := prometheus.NewRegistry()
	text := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "target_text_seconds", Help: help, Buckets: []float64{0.1, 0.5, 1},
	})
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "target_text_total", Help: help})
	summary := prometheus.NewSummary(prometheus.SummaryOpts{Name: "target_summary_bytes", Help: "Summary."})
	native := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "target_native_seconds", Help: "Native.", NativeHistogramBucketFactor: 1.5, NativeHistogramMaxExemplars: 5,
	})
	reg.MustRegister(text, counter, summary, native)
	var (
		mu sync.Mutex
		n  int
	)
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "target_level", Help: "Level."}, func() float64 {
		mu.Lock()
		defer mu.Unlock()
		if frozen.Load() {
			return float64(n)
		}
		for range 20 {
			n++
			x, labels := float64(n%100)/50, prometheus.Labels{"trace_id": fmt.Sprint(n), "who": "é"}
			text.(prometheus.ExemplarObserver).ObserveWithExemplar(x, labels)
			native.(prometheus.ExemplarObserver).ObserveWithExemplar(x, labels)
			counter.(prometheus.ExemplarAdder).AddWithExemplar(x, labels)
			summary.Observe(x)
		}
		return float64(n)
	}))
	server := httptest.NewServer(promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	t.Cleanup(server.Close)
	return server
}

func startExemplarPrometheus(t *testing.T, duramenURL string, one, other *httptest.Server) *process.Process {
	t.Helper()
	config := fmt.Sprintf(`
global:
  scrape_interval: 1s
remote_write:
  - url: %[1]s/api/v1/push
    headers: {X-Scope-OrgID: rw1}
    protobuf_message: prometheus.WriteRequest
    send_native_histograms: true
    send_exemplars: true
    metadata_config: {send_interval: 1s}
    queue_config: {batch_send_deadline: 500ms, max_backoff: 1s}
  - url: %[1]s/api/v1/push
    headers: {X-Scope-OrgID: rw2}
    protobuf_message: io.prometheus.write.v2.Request
    send_native_histograms: true
    send_exemplars: true
    queue_config: {batch_send_deadline: 500ms, max_backoff: 1s}
scrape_configs:
  - job_name: text
    scrape_protocols: [OpenMetricsText1.0.0]
    static_configs: [{targets: ['%[2]s', '%[3]s']}]
  - job_name: proto
    scrape_native_histograms: true
    scrape_protocols: [PrometheusProto]
    static_configs: [{targets: ['%[2]s', '%[3]s']}]
`, duramenURL, one.Listener.Addr(), other.Listener.Addr())
	return startConfigured(t, config, "--enable-feature=exemplar-storage,metadata-wal-records")
}
