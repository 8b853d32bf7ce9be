package docs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.yaml.in/yaml/v3"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/e2e/process"
	"github.com/duramendb/duramen/internal/certtest"
	"github.com/duramendb/duramen/internal/checkout"
)

// What the pages call the two servers.
const (
	duramenOnPages    = "localhost:9009"
	prometheusOnPages = "localhost:9090"
)

var duramenBinary, ctlBinary string

func TestMain(m *testing.M) {
	var errs [2]error
	duramenBinary, errs[0] = process.Build(context.Background(), false)
	ctlBinary, errs[1] = process.BuildCommand(context.Background(), "duramenctl", false)
	if err := errors.Join(errs[:]...); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// TestPages runs every example of every page, each page against a server of its own.
func TestPages(t *testing.T) {
	root, err := checkout.Top()
	require.NoError(t, err)
	names, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	require.NoError(t, err)
	for _, path := range append(names, filepath.Join(root, "README.md"), filepath.Join(root, "CONTRIBUTING.md")) {
		name, err := filepath.Rel(root, path)
		require.NoError(t, err)
		t.Run(strings.ReplaceAll(name, "/", "_"), func(t *testing.T) {
			p, err := readPage(path, name)
			require.NoError(t, err)
			runPage(t, p)
		})
	}
}

// runPage runs the blocks in their order. A server is started only for a page that needs one.
func runPage(t *testing.T, p *page) {
	w := &world{dir: t.TempDir()}
	for _, b := range p.blocks {
		require.Contains(t, append(storiesOf(p.name), ""), b.story, "%s:%d", p.name, b.line)
	}
	output := "" // of the block before, when it ran
	ran := false
	for i, b := range p.blocks {
		at := fmt.Sprintf("%s:%d", p.name, b.line)
		switch b.language {
		case "sh":
			if ran = b.notRun == "" && b.story == ""; !ran {
				syntax(t, at, b.text)
				continue
			}
			w.start(t, p)
			output = w.run(t, at, b.text)
			continue
		case "json", "text":
			if ran && b.follows && b.notCompared == "" {
				match := matchText
				if b.language == "json" {
					match = matchJSON
				}
				require.Empty(t, match(b.text, output), at)
			} else if b.language == "json" {
				require.True(t, json.Valid([]byte(b.text)), at)
			}
		case "yaml":
			checkYAML(t, at, b)
		case "mermaid", "alloy", "promql", "":
		default:
			t.Errorf("%s: nobody checks blocks of %q", at, b.language)
		}
		ran = ran && i+1 < len(p.blocks) && p.blocks[i+1].follows
	}
}

// world is what the examples of a page find: a server that the page calls localhost:9009, a Prometheus that the page calls
// localhost:9090, the tools on the path, and an empty working directory.
type world struct {
	dir                 string
	duramen, prometheus *process.Process
}

func (w *world) start(t *testing.T, p *page) {
	t.Helper()
	if w.duramen != nil {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	spec, err := process.Duramen(duramenBinary, filepath.Join(w.dir, "duramen"))
	require.NoError(t, err)
	spec.Args = append(spec.Args, "-ingester.min-free-bytes=1")
	w.duramen, _, err = process.StartReady(ctx, spec)
	require.NoError(t, err)
	t.Cleanup(func() {
		w.duramen.Kill()
		if t.Failed() {
			t.Logf("the end of the server's log:\n%s", w.duramen.LogTail(2000))
		}
	})
	if slices.ContainsFunc(p.blocks, func(b block) bool { return b.language == "sh" && strings.Contains(b.text, prometheusOnPages) }) {
		tool, err := process.Tool("prometheus")
		require.NoError(t, err)
		spec, err := process.Prometheus(tool, filepath.Join(w.dir, "prometheus"), "scrape_configs: []\n")
		require.NoError(t, err)
		w.prometheus, _, err = process.StartReady(ctx, spec)
		require.NoError(t, err)
		t.Cleanup(w.prometheus.Kill)
	}
	require.NoError(t, os.MkdirAll(filepath.Join(w.dir, "bin"), 0o755))
	promtool, err := process.Tool("promtool")
	require.NoError(t, err)
	for name, path := range map[string]string{"duramen": duramenBinary, "duramenctl": ctlBinary, "promtool": promtool} {
		require.NoError(t, os.Symlink(path, filepath.Join(w.dir, "bin", name)))
	}
	for _, s := range p.seeds {
		w.plant(t, s)
	}
}

func (w *world) plant(t *testing.T, s seed) {
	t.Helper()
	lset, err := parser.NewParser(parser.Options{}).ParseMetric(s.series)
	require.NoError(t, err)
	value, err := strconv.ParseFloat(s.value, 64)
	require.NoError(t, err)
	ts := prompb.TimeSeries{Labels: prompb.FromLabels(lset, nil), Samples: []prompb.Sample{{Timestamp: client.Now(), Value: value}}}
	raw, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{ts}}).Marshal()
	require.NoError(t, err)
	c := client.Duramen(w.duramen.URL, s.tenant)
	defer c.CloseIdle()
	a, err := c.Push(t.Context(), client.V1, raw)
	require.NoError(t, err)
	require.True(t, a.OK(), a)
}

// run runs a block as a script that ends at its first error, and returns what it said.
func (w *world) run(t *testing.T, at, text string) string {
	t.Helper()
	text = strings.ReplaceAll(text, duramenOnPages, strings.TrimPrefix(w.duramen.URL, "http://"))
	if w.prometheus != nil {
		text = strings.ReplaceAll(text, prometheusOnPages, strings.TrimPrefix(w.prometheus.URL, "http://"))
	}
	for _, tool := range []string{"duramen", "duramenctl"} {
		text = strings.ReplaceAll(text, "go run ./cmd/"+tool+" ", tool+" ")
		text = strings.ReplaceAll(text, "bin/"+tool+" ", tool+" ")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", text)
	work := filepath.Join(w.dir, "work")
	require.NoError(t, os.MkdirAll(work, 0o755))
	cmd.Dir = work
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(w.dir, "bin")+":"+os.Getenv("PATH"), "HOME="+work)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	require.NoError(t, cmd.Run(), "%s\n%s\n%s%s", at, text, out.String(), errs.String())
	return out.String()
}

func syntax(t *testing.T, at, text string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-n")
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s: %s", at, out)
}

// withFiles gives a block files where it names those of /etc/duramen, for a check reads them.
func withFiles(t *testing.T, text string) string {
	const etc = "/etc/duramen/"
	if !strings.Contains(text, etc) {
		return text
	}
	authority := certtest.New(t)
	cert, key := authority.Issue(t, "duramen")
	dir := t.TempDir()
	for name, from := range map[string]string{"ca.pem": authority.File, "cert.pem": cert, "key.pem": key} {
		data, err := os.ReadFile(from)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	return strings.ReplaceAll(text, etc, dir+"/")
}

// checkYAML has a block checked by whose configuration it is, which its first key tells. One of somebody else says so in a
// comment in its first line.
func checkYAML(t *testing.T, at string, b block) {
	t.Helper()
	var top map[string]any
	require.NoError(t, yaml.Unmarshal([]byte(b.text), &top), at)
	if strings.HasPrefix(b.text, "#") || b.notRun != "" || b.story != "" {
		return
	}
	file := filepath.Join(t.TempDir(), "block.yml")
	require.NoError(t, os.WriteFile(file, []byte(withFiles(t, b.text)), 0o644))
	promtool, err := process.Tool("promtool")
	require.NoError(t, err)
	has := func(names ...string) bool {
		return slices.ContainsFunc(names, func(n string) bool { _, ok := top[n]; return ok })
	}
	cmd := []string{duramenBinary, "-config.check", "-config.file=" + file}
	switch {
	case has("remote_write", "remote_read", "scrape_configs", "global"):
		cmd = []string{promtool, "check", "config", "--syntax-only", file}
	case has("groups"):
		cmd = []string{promtool, "check", "rules", file}
	case has("basic_auth_users", "tls_server_config"):
		cmd = []string{duramenBinary, "-config.check", "-server.web-config-file=" + file}
	case has("overrides"):
		cmd = []string{duramenBinary, "-config.check", "-limits.overrides-file=" + file}
	}
	check := exec.CommandContext(t.Context(), cmd[0], cmd[1:]...)
	if strings.Contains(b.text, "access_key_id:") && !strings.Contains(b.text, "secret_access_key:") {
		check.Env = append(os.Environ(), "DURAMEN_BUCKET_S3_SECRET_ACCESS_KEY=x") // where the pages say that it belongs
	}
	out, err := check.CombinedOutput()
	require.NoError(t, err, "%s: %s", at, out)
}
