package e2e

import (
	"os/exec"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
)

// TestPromtool: Prometheus' own tool takes the node for a Prometheus.
func TestPromtool(t *testing.T) {
	n := startNode(t, t.TempDir())
	c := client.Duramen(n.URL, "anonymous")
	defer c.CloseIdle()
	symbols := writev2.NewSymbolTable()
	w := writev2.Request{Timeseries: []writev2.TimeSeries{{
		LabelsRefs: symbols.SymbolizeLabels(labels.FromStrings("__name__", "answer", "job", "deep_thought"), nil),
		Samples:    []writev2.Sample{{Value: 42, Timestamp: client.Now()}},
	}}}
	w.Symbols = symbols.Symbols()
	raw, err := w.Marshal()
	require.NoError(t, err)
	answer, err := c.Push(t.Context(), client.V2, raw)
	require.NoError(t, err)
	require.True(t, answer.OK(), answer.Body)

	url := n.URL + "/prometheus"
	for _, tc := range []struct {
		want string
		args []string
	}{
		{"ready", []string{"check", "ready", "--url=" + url}},
		{"alive", []string{"check", "healthy", "--url=" + url}},
		{`answer{job="deep_thought"} => 42`, []string{"query", "instant", url, "answer"}},
		{"42 @[", []string{"query", "range", "--step=1m", url, "answer"}},
		{`job="deep_thought"`, []string{"query", "series", "--match=answer", url}},
		{"deep_thought", []string{"query", "labels", url, "job"}},
	} {
		out, err := exec.CommandContext(t.Context(), tool(t, "promtool"), tc.args...).CombinedOutput()
		require.NoError(t, err, "%v: %s", tc.args, out)
		require.Contains(t, string(out), tc.want, "%v", tc.args)
	}
}
