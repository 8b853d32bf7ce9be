package ctl

import (
	"bytes"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/internal/objectstore"
)

// TestBucketCopy moves a node from a disk to an S3 server and back, with the tool killed and stopped in the middle, while
// the node writes on. In the end a node on either copy answers what the first one answers.
func TestBucketCopy(t *testing.T) {
	s3 := objectstore.Start(t, objectstore.Options{})
	bucketName := s3.NewBucket(t)
	dir := t.TempDir()
	n := startNode(t, filepath.Join(dir, "first"), "-compactor.interval=0") // what is compared stays as it is
	start := time.Now().Truncate(2 * time.Hour).Add(-119 * time.Minute)     // one block's span holds all of it, whatever the time
	fill(t, n, "team-b", start)
	for i := range 12 { // a block each
		fill(t, n, "team-a", start.Add(time.Duration(i)*time.Minute))
	}
	disk := filepath.Join(dir, "first", "data", "bucket")
	s3dir := s3.BucketDir(bucketName)

	interrupted(t, syscall.SIGKILL, s3dir, "-from="+disk, "-to="+s3URL(s3, bucketName), "-parallel=1")
	fill(t, n, "team-a", start.Add(20*time.Minute)) // the source goes on
	interrupted(t, syscall.SIGINT, s3dir, "-from="+disk, "-to="+s3URL(s3, bucketName), "-parallel=1")
	s := ctl(t, awsEnv(), "bucket", "copy", "-from="+disk, "-to="+s3URL(s3, bucketName))
	require.Zero(t, s.code, s.errors)
	require.Regexp(t, `team-a: copied version 13 with 13 blocks: \d+ objects, .*; [1-9]\d* objects, .*, were there`, s.out)
	requireSame(t, disk, s3dir)
	s = ctl(t, awsEnv(), "blocks", "check", "-bucket="+s3URL(s3, bucketName))
	require.Zero(t, s.code, s.out)
	s = ctl(t, awsEnv(), "bucket", "copy", "-from="+disk, "-to="+s3URL(s3, bucketName), "-verify=all")
	require.Zero(t, s.code, s.errors)
	require.Contains(t, s.out, ": 0 objects, 0 B; ")

	// And back to another disk.
	back := filepath.Join(dir, "second", "data", "bucket")
	interrupted(t, syscall.SIGKILL, back, "-from="+s3URL(s3, bucketName), "-to="+back, "-parallel=2")
	s = ctl(t, awsEnv(), "bucket", "copy", "-from="+s3URL(s3, bucketName), "-to="+back)
	require.Zero(t, s.code, s.errors)
	requireSame(t, s3dir, back)

	want := samplesOf(t, n.URL, start)
	onS3 := startNode(t, filepath.Join(dir, "third"), s3Args(s3, bucketName)...)
	require.Equal(t, want, samplesOf(t, onS3.URL, start))
	onDisk := startNode(t, filepath.Join(dir, "second"))
	require.Equal(t, want, samplesOf(t, onDisk.URL, start))

	// The first node writes on, and so does the second: their histories part.
	fill(t, n, "team-a", start.Add(30*time.Minute))
	fill(t, onDisk, "team-a", start.Add(31*time.Minute))
	s = ctl(t, nil, "bucket", "copy", "-from="+disk, "-to="+back)
	require.Equal(t, 3, s.code)
	require.Contains(t, s.errors, "a history of its own")
	s3.Kill()
	s = ctl(t, awsEnv(), "bucket", "copy", "-from="+disk, "-to="+s3URL(s3, bucketName))
	require.Equal(t, 1, s.code)
	require.Contains(t, s.errors, s3.Address())
}

// samplesOf returns what a node has of team-a, as text.
func samplesOf(t *testing.T, url string, start time.Time) string {
	t.Helper()
	c := client.Duramen(url, "team-a")
	defer c.CloseIdle()
	got, err := c.Samples(t.Context(), `m`, start.Add(25*time.Minute).UnixMilli(), 40*60_000)
	require.NoError(t, err)
	require.Len(t, got, 5)
	var b strings.Builder
	for _, s := range got {
		require.Len(t, s.Values, 13*30)
		for _, v := range s.Values {
			b.WriteString(time.UnixMilli(v.T).String())
		}
	}
	return b.String()
}

// interrupted starts a copy and sends it a signal when the destination has some of the objects. On a machine that is busy
// with other work the copy may have ended by then; what follows holds all the same.
func interrupted(t *testing.T, sig syscall.Signal, dst string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), ctlBinary, append([]string{"bucket", "copy"}, args...)...)
	cmd.Env = append([]string{"HOME=" + t.TempDir()}, awsEnv()...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	enough := len(objectsIn(t, dst)) + 3 + rand.IntN(4)
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool { return len(objectsIn(t, dst)) >= enough }, time.Minute, time.Millisecond)
	require.NoError(t, cmd.Process.Signal(sig))
	if err := cmd.Wait(); err == nil {
		t.Logf("the copy came to its end before the signal %s", sig)
		return
	}
	if sig == syscall.SIGINT {
		require.Equal(t, 1, cmd.ProcessState.ExitCode())
		require.Contains(t, errs.String(), "run it again")
	}
	for name := range objectsIn(t, dst) {
		require.False(t, strings.HasPrefix(name, "team-a/duramen/manifest/"), "the manifest is last: %s", name)
	}
}

// objectsIn returns the objects below a folder, those left out that a backend keeps for itself, and the index for peers,
// which each server writes for itself.
func objectsIn(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil //nolint:nilerr // folders come and go meanwhile
		}
		name, err := filepath.Rel(dir, path)
		if err == nil && strings.HasPrefix(name, "team-") && e.Name() != "bucket-index.json.gz" {
			found[filepath.ToSlash(name)] = path
		}
		return err
	})
	require.NoError(t, err)
	return found
}

// requireSame compares two buckets by their files; old manifest versions may be left out in the second.
func requireSame(t *testing.T, a, b string) {
	t.Helper()
	theirs := objectsIn(t, b)
	for name, path := range objectsIn(t, a) {
		other, ok := theirs[name]
		if !ok {
			require.Contains(t, name, "/duramen/manifest/")
			continue
		}
		want, err := os.ReadFile(path)
		require.NoError(t, err)
		got, err := os.ReadFile(other)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got), name)
		delete(theirs, name)
	}
	require.Empty(t, theirs)
}
