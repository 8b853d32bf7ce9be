package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/e2e/process"
	"github.com/duramendb/duramen/internal/checkout"
)

const operations = "docs/operations.md"

// storiesOf returns the names of the stories that run blocks of a page.
func storiesOf(page string) []string {
	switch page {
	case operations:
		return []string{"move the bucket", "damaged log", "backup", "to S3", "upgrade", "unreadable manifest", "deletion"}
	case migration:
		return []string{"from Cortex", "from Thanos", "going back"}
	default:
		return nil
	}
}

// story carries out a procedure of a page on a node whose working directory has ./data.
type story struct {
	*world
	t      *testing.T
	page   string
	work   string
	steps  []block
	sent   int // samples of the series m of team-a, a second apart
	begin  int64
	warned func(text string) // takes warnings of queries; nil makes them errors
}

// tell begins a story of docs/operations.md.
func tell(t *testing.T, name string) *story { return tellOf(t, operations, name) }

func tellOf(t *testing.T, page, name string) *story {
	t.Helper()
	root, err := checkout.Top()
	require.NoError(t, err)
	p, err := readPage(filepath.Join(root, page), page)
	require.NoError(t, err)
	s := &story{world: &world{dir: t.TempDir()}, t: t, page: page, begin: client.Now() - 600_000}
	for _, b := range p.blocks {
		if b.story == name {
			s.steps = append(s.steps, b)
		}
	}
	require.NotEmpty(t, s.steps)
	s.work = filepath.Join(s.dir, "work")
	require.NoError(t, os.MkdirAll(filepath.Join(s.dir, "bin"), 0o755))
	promtool, err := process.Tool("promtool")
	require.NoError(t, err)
	for name, path := range map[string]string{"duramen": duramenBinary, "duramenctl": ctlBinary, "promtool": promtool} {
		require.NoError(t, os.Symlink(path, filepath.Join(s.dir, "bin", name)))
	}
	t.Cleanup(func() {
		require.Empty(t, s.steps, "steps of the page that the story does not take")
		if s.duramen != nil {
			s.duramen.Kill()
		}
		if t.Failed() {
			t.Logf("the end of the server's log:\n%s", s.duramen.LogTail(3000))
		}
	})
	return s
}

// node starts Duramen in the working directory with a configuration file's text.
func (s *story) node(config string) {
	s.t.Helper()
	file := filepath.Join(s.dir, "duramen.yaml")
	require.NoError(s.t, os.WriteFile(file, []byte(config), 0o644))
	spec, err := process.Duramen(duramenBinary, s.work, "-config.file="+file, "-ingester.min-free-bytes=1")
	require.NoError(s.t, err)
	spec.Args = spec.Args[1:] // -data-dir is the file's business
	s.duramen, _, err = process.StartReady(s.t.Context(), spec)
	require.NoError(s.t, err)
}

func (s *story) stop() { require.NoError(s.t, s.duramen.Terminate(30*time.Second)) }

// step runs the next block of the page, with words of the page replaced in pairs.
func (s *story) step(replace ...string) string {
	s.t.Helper()
	b := s.next("sh", replace...)
	return s.run(s.t, fmt.Sprintf("%s:%d", s.page, b.line), b.text)
}

// fails runs the next block of the page, which ends with an exit code other than 0, and returns what it said.
func (s *story) fails(code int) string {
	s.t.Helper()
	b := s.next("sh")
	return s.run(s.t, fmt.Sprintf("%s:%d", s.page, b.line), fmt.Sprintf("{ %s; } 2>&1 || test $? = %d", strings.TrimSpace(b.text), code))
}

// config returns the next block of the page, which is a configuration.
func (s *story) config(replace ...string) string {
	s.t.Helper()
	return s.next("yaml", replace...).text
}

func (s *story) next(language string, replace ...string) block {
	s.t.Helper()
	require.NotEmpty(s.t, s.steps, "the story takes more steps than the page")
	b := s.steps[0]
	require.Equal(s.t, language, b.language)
	s.steps = s.steps[1:]
	b.text = strings.NewReplacer(replace...).Replace(b.text)
	return b
}

// write sends some samples that have to be acknowledged.
func (s *story) write(n int) {
	s.t.Helper()
	c := client.Duramen(s.duramen.URL, "team-a")
	defer c.CloseIdle()
	for range n {
		s.sent++
		ts := prompb.TimeSeries{
			Labels:  []prompb.Label{{Name: "__name__", Value: "m"}},
			Samples: []prompb.Sample{{Timestamp: s.begin + int64(s.sent)*1000, Value: float64(s.sent)}},
		}
		raw, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{ts}}).Marshal()
		require.NoError(s.t, err)
		a, err := c.Push(s.t.Context(), client.V1, raw)
		require.NoError(s.t, err)
		require.True(s.t, a.OK(), a)
	}
}

// values returns what a query finds.
func (s *story) values() (values []float64) {
	s.t.Helper()
	c := client.Duramen(s.duramen.URL, "team-a")
	c.Warned = s.warned
	defer c.CloseIdle()
	got, err := c.Samples(s.t.Context(), "m", s.begin+3_600_000, 7_200_000)
	require.NoError(s.t, err)
	for _, series := range got {
		for _, p := range series.Values {
			values = append(values, p.V)
		}
	}
	return values
}

func (s *story) requireAll(n int) {
	s.t.Helper()
	want := make([]float64, n)
	for i := range want {
		want[i] = float64(i + 1)
	}
	require.Equal(s.t, want, s.values())
}

func (s *story) metric(name string) float64 {
	s.t.Helper()
	c := client.Duramen(s.duramen.URL, "")
	defer c.CloseIdle()
	v, err := c.Metric(s.t.Context(), name)
	require.NoError(s.t, err)
	return v
}

func (s *story) flush() {
	s.t.Helper()
	c := client.Duramen(s.duramen.URL, "")
	defer c.CloseIdle()
	a, err := c.Post(s.t.Context(), "/ingester/flush?wait=true")
	require.NoError(s.t, err)
	require.True(s.t, a.OK(), a)
}
