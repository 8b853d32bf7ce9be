package e2e

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/internal/seriesgen"
)

// reserve is the default of -ingester.min-free-bytes. The small disk of 160 MiB holds it and what the stories write.
const reserve = 64 << 20

// TestDiskNearlyFull: while the disk has less than the reserve, writes are answered 503 and reads go on; once there is
// room, writes go on by themselves. Nothing acknowledged is lost, then or at a kill.
func TestDiskNearlyFull(t *testing.T) {
	fullDisk(t, reserve+(6<<20), nil)
}

// TestDiskFull is the same without a reserve: the log meets ENOSPC in the middle of a record, and replay, too, has no room.
// Reads may then be refused, with 503, and are never wrong.
func TestDiskFull(t *testing.T) {
	fullDisk(t, 0, []string{"-ingester.min-free-bytes=1"})
}

// fullDisk writes to a node on a small disk, fills the disk until keep bytes are left, writes until it is refused, frees
// the disk and writes on.
func fullDisk(t *testing.T, keep int64, args []string) {
	disk := mountSmallDisk(t)
	n := startNode(t, filepath.Join(disk, "node"), args...)
	c := client.Duramen(n.URL, "full")
	defer c.CloseIdle()
	l := newLedger(t, seriesgen.Config{
		Seed: random(t).Uint64(), Series: 40 * seriesgen.SeriesPerPod, Start: client.Now() - 3_600_000, Interval: time.Second,
	}, 3000, 40)

	next := 0
	send := func() bool {
		ok, err := l.pushOnce(t.Context(), c, next, 0)
		require.NoError(t, err)
		if ok {
			next++
		}
		return ok
	}
	for range 50 {
		require.Eventually(t, send, startTimeout, retryEvery)
	}
	ballast := fill(t, disk, keep)
	for send() {
		require.Less(t, next, l.scrapes-200, "the disk is full, and writes are still acknowledged")
	}
	t.Logf("refused after %d of %d requests", next, l.scrapes)
	refused, err := c.Push(t.Context(), client.V1, request(t, map[string]string{"__name__": "x"}, client.Now(), 1))
	require.NoError(t, err)
	require.Equal(t, http.StatusServiceUnavailable, refused.Status, refused.Body)
	require.NotEmpty(t, refused.Header.Get("Retry-After"))
	err = l.checkPod(t.Context(), c, 0, 0, l.scrapes-1, l.podFates(0))
	if queryErr := (*client.QueryError)(nil); keep > 0 || !errors.As(err, &queryErr) || queryErr.Status != http.StatusServiceUnavailable {
		require.NoError(t, err, "reads while the disk is full")
	}

	require.NoError(t, os.Remove(ballast))
	for range 50 {
		require.Eventually(t, send, startTimeout, retryEvery, "writes after the disk was freed")
	}
	l.verify(t, c, 4)
	n.crash()
	l.verify(t, c, 4)
}

// mountSmallDisk mounts a tmpfs, or skips the story where nobody may.
func mountSmallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=160m")
	if errors.Is(err, syscall.EPERM) {
		t.Skip("mounting a small disk takes root")
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return dir
}

// fill writes a file that leaves keep bytes of the disk, and returns its path.
func fill(t *testing.T, disk string, keep int64) string {
	t.Helper()
	path := filepath.Join(disk, "ballast")
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	block := make([]byte, 64<<10)
	for {
		var fs syscall.Statfs_t
		require.NoError(t, syscall.Statfs(disk, &fs))
		if int64(fs.Bavail)*fs.Bsize <= keep {
			return path
		}
		if _, err := f.Write(block); errors.Is(err, syscall.ENOSPC) {
			return path
		} else if err != nil {
			require.NoError(t, err)
		}
	}
}
