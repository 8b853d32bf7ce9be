package app

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
)

func TestMetricsReferenceIsFresh(t *testing.T) {
	const file = "../../../docs/metrics.md"
	var want strings.Builder
	require.NoError(t, WriteMetricsReference(&want))
	have, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, want.String(), string(have), "%s is stale: run go generate ./cmd/duramen/app", file)
}

// TestMetricsAreNamedWell: each metric is registered with a good name, and says what a change of it means, also when it
// has no series yet.
func TestMetricsAreNamedWell(t *testing.T) {
	all, err := Metrics(onS3(), asGateway(), withGateways(), inCluster())
	require.NoError(t, err)
	types := map[string]dto.MetricType{
		"counter": dto.MetricType_COUNTER, "gauge": dto.MetricType_GAUGE, "histogram": dto.MetricType_HISTOGRAM,
		"summary": dto.MetricType_SUMMARY,
	}
	named := regexp.MustCompile(`^duramen_[a-z0-9]+_[a-z0-9_]+$`)
	count := 0
	for _, m := range all {
		if !strings.HasPrefix(m.Name, metricPrefix) {
			continue
		}
		count++
		require.Regexp(t, named, m.Name)
		problems, err := promlint.NewWithMetricFamilies([]*dto.MetricFamily{
			{Name: &m.Name, Help: &m.Help, Type: types[m.Type].Enum()},
		}).Lint()
		require.NoError(t, err)
		require.Empty(t, problems, m.Name)
		_, change := splitHelp(m.Help)
		require.NotEmpty(t, change, "the help of %s says what it is, then what a rise means: %s", m.Name, m.Help)
	}
	require.Greater(t, count, 50)
}

// TestMetricsAreAllDescribed: whatever a running process serves is in the list.
func TestMetricsAreAllDescribed(t *testing.T) {
	all, err := Metrics()
	require.NoError(t, err)
	types := map[string]string{}
	for _, m := range all {
		types[m.Name] = m.Type
	}
	n := startNode(t, testConfig(t.TempDir()))
	served := map[string]string{}
	for line := range strings.Lines(n.do("GET", "/metrics", nil).body) {
		if f := strings.Fields(line); len(f) == 4 && f[1] == "TYPE" {
			served[f[2]] = f[3]
		}
	}
	require.Contains(t, served, "duramen_ingester_open_tenants")
	for name, kind := range served {
		require.Equal(t, kind, types[name], name)
	}
}

func TestDescriptionsAreRead(t *testing.T) {
	d := prometheus.NewDesc("x_total", `A "quoted" {help}, with all.`, []string{"b", "a"}, prometheus.Labels{"c": `"=,}`})
	m, err := parseDesc(d.String())
	require.NoError(t, err)
	require.Equal(t, Metric{Name: "x_total", Labels: []string{"c", "b", "a"}, Help: `A "quoted" {help}, with all.`}, m)
	_, err = parseDesc("Desc{other}")
	require.Error(t, err)

	reg := &describingRegistry{Registry: prometheus.NewRegistry()}
	reg.MustRegister(prometheus.NewCounterVec(prometheus.CounterOpts{Name: "v_total", Help: "No series."}, []string{"l"}))
	got, err := reg.describe()
	require.NoError(t, err)
	require.Equal(t, []Metric{{Name: "v_total", Type: "counter", Labels: []string{"l"}, Help: "No series."}}, got)
}

func TestSplitHelp(t *testing.T) {
	for help, want := range map[string][2]string{
		"Bytes. A rise is bad.":             {"Bytes.", "A rise is bad."},
		"Bytes; a rise is bad; very bad.":   {"Bytes.", "A rise is bad; very bad."},
		"Bytes.":                            {"Bytes.", ""},
		"Bytes":                             {"Bytes", ""},
		"Bytes as in meta.json. A rise ...": {"Bytes as in meta.json.", "A rise ..."},
	} {
		what, change := splitHelp(help)
		require.Equal(t, want, [2]string{what, change}, help)
	}
}
