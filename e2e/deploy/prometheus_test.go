package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/duramendb/duramen/e2e/process"
)

// promtool runs Prometheus' own checker in the folder of what we offer.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	binary, err := process.Tool("promtool")
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Dir = filepath.Join(top, "deploy/prometheus")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "promtool %v:\n%s", args, out)
}

func TestPrometheusReadsWhatWeOffer(t *testing.T) {
	promtool(t, "check", "config", "remote-write.yml", "remote-write-minimal.yml")
	promtool(t, "check", "config", "--agent", "agent.yml")
	promtool(t, "check", "rules", "alerts.yml")
	promtool(t, "test", "rules", "alerts_test.yml")
}

// TestAlertsNameMetricsThatExist, for an alert over a metric that is gone never fires.
func TestAlertsNameMetricsThatExist(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(top, "deploy/prometheus/alerts.yml"))
	require.NoError(t, err)
	var groups rulefmt.RuleGroups
	require.NoError(t, yaml.Unmarshal(data, &groups))
	known := documented(t)
	n := 0
	for _, g := range groups.Groups {
		for _, rule := range g.Rules {
			n++
			requireKnownMetrics(t, known, rule.Alert, rule.Expr)
			require.Contains(t, []string{"critical", "warning"}, rule.Labels["severity"], rule.Alert)
			require.NotEmpty(t, rule.Annotations["summary"], rule.Alert)
			require.NotEmpty(t, rule.Annotations["description"], rule.Alert)
		}
	}
	require.Positive(t, n)
}

// TestGrafanaFilesAreYAML, with the one key that Grafana looks for.
func TestGrafanaFilesAreYAML(t *testing.T) {
	for file, key := range map[string]string{"datasources/duramen.yml": "datasources", "dashboards/duramen.yml": "providers"} {
		data, err := os.ReadFile(filepath.Join(top, "deploy/grafana/provisioning", file))
		require.NoError(t, err)
		var content map[string]any
		require.NoError(t, yaml.Unmarshal(data, &content), file)
		require.Equal(t, 1, content["apiVersion"], file)
		require.NotEmpty(t, content[key], file)
	}
}
