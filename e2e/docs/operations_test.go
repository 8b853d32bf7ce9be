package docs

import (
	"encoding/json"
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
	"github.com/duramendb/duramen/internal/objectstore"
)

const operations = "docs/operations.md"

// storiesOf returns the names of the stories that run blocks of a page.
func storiesOf(page string) []string {
	if page != operations {
		return nil
	}
	return []string{"move the bucket", "damaged log", "backup", "to S3", "upgrade", "unreadable manifest"}
}

// story carries out a procedure of docs/operations.md on a node whose working directory has ./data.
type story struct {
	*world
	t     *testing.T
	work  string
	steps []block
	sent  int // samples of the series m of team-a, a second apart
	begin int64
}

func tell(t *testing.T, name string) *story {
	t.Helper()
	root, err := checkout.Top()
	require.NoError(t, err)
	p, err := readPage(filepath.Join(root, operations), operations)
	require.NoError(t, err)
	s := &story{world: &world{dir: t.TempDir()}, t: t, begin: client.Now() - 600_000}
	for _, b := range p.blocks {
		if b.story == name {
			s.steps = append(s.steps, b)
		}
	}
	require.NotEmpty(t, s.steps)
	s.work = filepath.Join(s.dir, "work")
	require.NoError(t, os.MkdirAll(filepath.Join(s.dir, "bin"), 0o755))
	for name, path := range map[string]string{"duramen": duramenBinary, "duramenctl": ctlBinary} {
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
	return s.run(s.t, fmt.Sprintf("%s:%d", operations, b.line), b.text)
}

// fails runs the next block of the page, which ends with an exit code other than 0, and returns what it said.
func (s *story) fails(code int) string {
	s.t.Helper()
	b := s.next("sh")
	return s.run(s.t, fmt.Sprintf("%s:%d", operations, b.line), fmt.Sprintf("{ %s; } 2>&1 || test $? = %d", strings.TrimSpace(b.text), code))
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

func TestMoveTheBucket(t *testing.T) {
	s := tell(t, "move the bucket")
	s.node("")
	s.write(20)
	s.flush()
	s.write(5)
	s.stop()
	s.step()
	require.NoError(t, os.RemoveAll(filepath.Join(s.work, "data", "ingester"))) // the bucket alone answers
	s.node(s.config())
	s.requireAll(20)
	s.write(1)
	s.flush()
	require.NoDirExists(t, filepath.Join(s.work, "data", "bucket"))
}

func TestDamagedLog(t *testing.T) {
	s := tell(t, "damaged log")
	s.node("")
	s.write(60)
	s.duramen.Kill()
	flip(t, filepath.Join(s.work, "data", "ingester", "team-a", "wal", "00000000"))
	s.node("")
	require.EqualValues(t, 1, s.metric("duramen_ingester_damaged_tenants"))
	require.Contains(t, s.duramen.LogTail(1<<20), "write log damaged: acknowledged samples may be lost")
	have := s.values()
	require.Greater(t, len(have), 30, "before and behind the damage")
	require.Less(t, len(have), 60)
	s.write(3)
	require.Len(t, s.values(), len(have)+3)

	report := s.step()
	var damage []map[string]any
	require.NoError(t, json.Unmarshal([]byte(report), &damage), report)
	require.Equal(t, "wal", damage[0]["log"])
	require.Positive(t, damage[0]["behind"])
	s.stop()
	s.step()
	s.node("")
	require.Zero(t, s.metric("duramen_ingester_damaged_tenants"))
	require.Len(t, s.values(), len(have)+3)
}

// flip changes a byte in the middle of what a file holds.
func flip(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	end := len(strings.TrimRight(string(data), "\x00"))
	data[end/2] ^= 0x55
	require.NoError(t, os.WriteFile(path, data, 0o644))
}

func TestBackupAndRestore(t *testing.T) {
	s := tell(t, "backup")
	s.node("")
	s.write(20)
	s.step()
	s.step()
	s.write(7) // after the backup
	s.duramen.Kill()
	require.NoError(t, os.RemoveAll(filepath.Join(s.work, "data")))
	s.step()
	s.node(s.config())
	s.requireAll(20)
	s.write(1)
	require.Len(t, s.values(), 21)
}

func TestToS3(t *testing.T) {
	server := objectstore.Start(t, objectstore.Options{})
	bucketName := server.NewBucket(t)
	t.Setenv("AWS_ACCESS_KEY_ID", objectstore.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", objectstore.SecretKey)
	s := tell(t, "to S3")
	s.node("")
	s.write(20)
	s.flush()
	copyIt := s.steps[0]
	url := []string{"s3://metrics/?endpoint=s3.example.net:9000", "s3://" + bucketName + "/?insecure=true&endpoint=" + server.Address()}
	s.step(url...)
	s.write(10)
	s.step()
	s.stop()
	s.steps = append([]block{copyIt}, s.steps...) // "run the same command once more"
	s.step(url...)
	require.NoError(t, os.RemoveAll(filepath.Join(s.work, "data", "bucket")))
	s.node(s.config("bucket_name: metrics", "bucket_name: "+bucketName,
		"endpoint: s3.example.net:9000", "endpoint: "+server.Address()+"\n    insecure: true"))
	s.requireAll(30)
	s.stop()
	require.NoError(t, os.RemoveAll(filepath.Join(s.work, "data", "ingester"))) // S3 alone answers
	s.node(string(must(os.ReadFile(filepath.Join(s.dir, "duramen.yaml")))))
	s.requireAll(30)
	s.write(1)
	s.flush()
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestUpgrade(t *testing.T) {
	s := tell(t, "upgrade")
	s.node("")
	s.write(20)
	require.Equal(t, "the settings are right\n", s.step(), "while the old one runs")
	s.stop()
	s.node("")
	s.requireAll(20)
}

func TestUnreadableManifest(t *testing.T) {
	s := tell(t, "unreadable manifest")
	s.node("")
	for range 3 {
		s.write(10)
		s.flush()
	}
	s.stop()
	require.NoError(t, os.RemoveAll(filepath.Join(s.work, "data", "ingester"))) // the bucket alone answers
	damaged := filepath.Join(s.work, "data", "bucket", "team-a", "duramen", "manifest", "00000000000000000003")
	require.NoError(t, os.Chmod(damaged, 0o644))
	flip(t, damaged)
	s.node("")
	c := client.Duramen(s.duramen.URL, "team-a")
	defer c.CloseIdle()
	_, err := c.Samples(t.Context(), "m", s.begin+3_600_000, 7_200_000)
	require.ErrorContains(t, err, "00000000000000000003")
	require.Positive(t, s.metric("duramen_manifest_corrupt_total"))

	said := s.fails(3)
	require.Contains(t, said, "checksum does not match")
	require.Contains(t, said, "the newest version that can be read is 2")
	require.Contains(t, s.step(), "version 4 with 3 blocks would be")
	require.Contains(t, s.step(), "written: version 4 with 3 blocks")
	require.Contains(t, s.step(), ": 0 faults in 0 blocks")
	s.requireAll(30)
}
