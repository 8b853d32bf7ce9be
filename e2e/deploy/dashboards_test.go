package deploy

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/e2e/process"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// top is the repository's top folder as seen from this package.
const top = "../.."

// dashboard is the part of Grafana's model that has expressions.
type dashboard struct {
	UID        string  `json:"uid"`
	Title      string  `json:"title"`
	Panels     []panel `json:"panels"`
	Templating struct {
		List []struct {
			Name  string `json:"name"`
			Query any    `json:"query"`
		} `json:"list"`
	} `json:"templating"`
}

type panel struct {
	ID          int    `json:"id"`
	Type        string `json:"type"`
	Title       string `json:"title"`
	Description string `json:"description"`
	GridPos     struct{ X, Y, W, H int }
	Targets     []struct {
		Expr  string `json:"expr"`
		RefID string `json:"refId"`
	} `json:"targets"`
}

func dashboards(t *testing.T) map[string]dashboard {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(top, "deploy/grafana/dashboards/*.json"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	out := map[string]dashboard{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		var d dashboard
		require.NoError(t, json.Unmarshal(data, &d), file)
		out[filepath.Base(file)] = d
	}
	return out
}

// filled is an expression as Grafana sends it, with its variables filled in.
func filled(expr string) string {
	return strings.NewReplacer("$__rate_interval", "1m", "$job", ".+", "$instance", ".+").Replace(expr)
}

// documented returns the names of all metrics of the process, with those that a histogram's name stands for.
func documented(t *testing.T) map[string]bool {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(top, "docs/metrics.md"))
	require.NoError(t, err)
	out := map[string]bool{"up": true}
	line := regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\| ([a-z]+) ")
	for _, found := range line.FindAllStringSubmatch(string(data), -1) {
		out[found[1]] = true
		if found[2] == "histogram" {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				out[found[1]+suffix] = true
			}
		}
	}
	require.Greater(t, len(out), 50)
	return out
}

// requireKnownMetrics parses an expression and looks up each metric that it names.
func requireKnownMetrics(t *testing.T, known map[string]bool, where, expr string) {
	t.Helper()
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	require.NoError(t, err, where)
	parser.Inspect(parsed, func(n parser.Node, _ []parser.Node) error {
		if s, ok := n.(*parser.VectorSelector); ok {
			require.NotEmpty(t, s.Name, where)
			own := strings.HasPrefix(s.Name, "duramen_") || s.Name == "up"
			runtime := strings.HasPrefix(s.Name, "go_") || strings.HasPrefix(s.Name, "process_")
			require.True(t, own && known[s.Name] || runtime, "%s: there is no metric %s", where, s.Name)
		}
		return nil
	})
}

func TestDashboardsNameMetricsThatExist(t *testing.T) {
	known := documented(t)
	for file, d := range dashboards(t) {
		require.NotEmpty(t, d.UID, file)
		ids, places := map[int]bool{}, map[[2]int]string{}
		for _, p := range d.Panels {
			where := fmt.Sprintf("%s, panel %q", file, p.Title)
			require.False(t, ids[p.ID], where)
			ids[p.ID] = true
			require.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, where)
			for x := range p.GridPos.W {
				for y := range p.GridPos.H {
					cell := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
					require.Empty(t, places[cell], "%s lies on another", where)
					places[cell] = p.Title
				}
			}
			if p.Type == "row" {
				continue
			}
			require.NotEmpty(t, p.Description, where)
			require.NotEmpty(t, p.Targets, where)
			for _, target := range p.Targets {
				requireKnownMetrics(t, known, where+" "+target.RefID, filled(target.Expr))
			}
		}
	}
}

// TestDashboardsAreAnswered has a real Prometheus, with the configuration that we offer, scrape Duramen and write to it,
// and asks Duramen for every panel.
func TestDashboardsAreAnswered(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	binary, err := process.Build(t.Context(), false)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	spec, err := process.Duramen(binary, t.TempDir())
	require.NoError(t, err)
	node, _, err := process.StartReady(ctx, spec)
	require.NoError(t, err)
	t.Cleanup(node.Kill)

	offered, err := os.ReadFile(filepath.Join(top, "deploy/prometheus/remote-write.yml"))
	require.NoError(t, err)
	config := strings.NewReplacer("scrape_interval: 15s", "scrape_interval: 1s", "localhost:9009",
		strings.TrimPrefix(node.URL, "http://"), "localhost:9090", process.Self).Replace(string(offered))
	prometheusBinary, err := process.Tool("prometheus")
	require.NoError(t, err)
	spec, err = process.Prometheus(prometheusBinary, t.TempDir(), config)
	require.NoError(t, err)
	prometheus, _, err := process.StartReady(ctx, spec)
	require.NoError(t, err)
	t.Cleanup(prometheus.Kill)

	c := client.Duramen(node.URL, "anonymous")
	defer c.CloseIdle()
	require.Eventually(t, func() bool { return answers(ctx, t, c, `count_over_time(up{job="duramen"}[5m]) > 3`) > 0 },
		time.Minute, 50*time.Millisecond)
	silent := map[string]bool{}
	for file, d := range dashboards(t) {
		for _, p := range d.Panels {
			for _, target := range p.Targets {
				if answers(ctx, t, c, filled(target.Expr)) == 0 {
					silent[p.Title] = true
				}
			}
		}
		require.Less(t, len(silent), len(d.Panels)/4, "%s: most panels show something on an idle server, not %v", file, silent)
	}
}

// answers returns how many series an instant query has, and fails the test when there is no answer.
func answers(ctx context.Context, t *testing.T, c *client.Client, expr string) int {
	t.Helper()
	var result []json.RawMessage
	require.NoError(t, c.Query(ctx, expr, client.Now(), &result), expr)
	return len(result)
}
