package cluster

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTheBucketAndADiskAway: the bucket is away; then the disk of one
// ingester fills up. All writes and queries go on, and everything is shipped when it can be.
func TestTheBucketAndADiskAway(t *testing.T) {
	small := smallDisk(t)
	members := ingesters(1)
	members[2].Args = []string{"-data-dir=" + filepath.Join(small, "data")}
	s := newStory(t, nil, append(append(members, fronts(2)...), back())...)
	a, b, c := s.Node("ingester-a-0"), s.Node("ingester-b-0"), s.Node("ingester-c-0")
	s.begin(live)
	s.await("the cluster works", 40, 20)
	s.flawless("all are there", nil, 40, 20)
	require.True(t, s.flush(a), "the bucket works")

	s.flawless("the bucket is away", func() {
		require.NoError(t, os.Rename(s.Bucket(), s.Bucket()+".away"))
		require.NoError(t, os.WriteFile(s.Bucket(), []byte("no directory"), 0o600))
		require.False(t, s.flush(a), "a flush without a bucket")
	}, 100, 50)
	s.flawless("it is back", func() {
		require.NoError(t, os.Remove(s.Bucket()))
		require.NoError(t, os.Rename(s.Bucket()+".away", s.Bucket()))
		for _, n := range []*Node{a, b} { // the small disk has no room for the file in which a block is begun
			s.until("everything is shipped", func() bool { return s.flush(n) })
		}
	}, 40, 20)

	// The TSDB of Prometheus panics when there is no room for the next file of its head chunks; the others carry on.
	s.allowed = "preallocate: no space left on device"
	ballast := filepath.Join(small, "ballast")
	s.flawless("a disk is full", func() { fill(t, ballast) }, 100, 50)
	s.flawless("it has room again", func() {
		require.NoError(t, os.Remove(ballast))
		if !c.Running() {
			t.Logf("%s ended on the full disk and is started again", c.Name)
			s.start(c)
		}
	}, 40, 20)
	s.end()
}

// smallDisk mounts a tmpfs, or skips the story where nobody may.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=200m")
	if errors.Is(err, syscall.EPERM) {
		t.Skip("mounting a small disk takes root")
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return dir
}

// fill writes a file until the disk has no room left.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	block := make([]byte, 64<<10)
	for {
		if _, err := f.Write(block); errors.Is(err, syscall.ENOSPC) {
			return
		} else if err != nil {
			require.NoError(t, err)
		}
	}
}
