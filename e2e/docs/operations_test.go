package docs

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/internal/objectstore"
)

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
	warning := ""
	s.warned = func(text string) { warning = text }
	have := s.values()
	require.Greater(t, len(have), 30, "before and behind the damage")
	require.Eventually(t, func() bool { s.values(); return warning != "" }, 30*time.Second, 50*time.Millisecond,
		"the manifest is told, and queries say it")
	require.Contains(t, warning, "may be missing: they were lost")
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

func TestDeletion(t *testing.T) {
	s := tell(t, "deletion")
	s.node(s.config())
	s.write(10)
	s.flush()
	s.write(5)
	s.requireAll(15)
	list := s.step()
	require.Contains(t, list, `"match":["m"]`)
	require.Empty(t, s.values(), "in memory and in the bucket")
	s.stop()
	s.node("")
	require.Empty(t, s.values(), "also after a restart, from the first query on")
	s.write(2)
	require.Empty(t, s.values(), "written afterwards, of deleted times")
}
