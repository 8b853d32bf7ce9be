package ingester

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/duramendb/duramen/internal/errkind"
)

// smallVolume mounts a volume of size bytes for the test.
func smallVolume(t *testing.T, size int) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small volume")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("no small volume here: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

// fullVolumeBatch is the i-th commit of a run with that seed.
func fullVolumeBatch(r *rand.Rand, i int) (batch []diskSample) {
	for s := range 20 + r.IntN(60) {
		batch = append(batch, diskSample{fmt.Sprintf("series_%d", s), diskStart + int64(i)*1000, r.Float64()})
	}
	return batch
}

// fillVolume appends until a write fails, and reports how many commits were acknowledged.
func fillVolume(t *testing.T, dir string, seed uint64) string {
	o := openDisk(t, dir)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := 0; ; i++ {
		app := o.DB.Appender(context.Background())
		for _, s := range fullVolumeBatch(r, i) {
			if _, err := app.Append(0, labels.FromStrings(labels.MetricName, s.series), s.ts, s.v); err != nil {
				t.Fatal(err)
			}
		}
		if err := app.Commit(); err != nil {
			require.ErrorIs(t, err, unix.ENOSPC)
			return strconv.Itoa(i)
		}
	}
}

// A volume fills up in the middle of a record and the process dies of it: stock panics when it cannot write head
// chunks. An open on the full volume must fail as an error, and all that was acknowledged must be there once there is
// room.
func TestFullVolume(t *testing.T) {
	for seed := range uint64(rounds(4, 1)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			root := smallVolume(t, 8<<20)
			dir := filepath.Join(root, "tenant")
			ballast := filepath.Join(root, "ballast")
			require.NoError(t, os.WriteFile(ballast, make([]byte, 6<<20+int(seed)*1111), 0o666))
			out, err := runDiskChild(t, "fill", dir, strconv.FormatUint(seed, 10))
			require.NoError(t, err, out)
			n, err := strconv.Atoi(out)
			require.NoError(t, err)
			require.Greater(t, n, 50)
			acked, sent := diskLedger{}, diskLedger{}
			r := rand.New(rand.NewPCG(seed, 1))
			for i := range n + 1 {
				for _, s := range fullVolumeBatch(r, i) {
					sent.add(s.series, s.ts, s.v)
					if i < n {
						acked.add(s.series, s.ts, s.v)
					}
				}
			}
			out, err = runDiskChild(t, "open", dir)
			require.NoError(t, err, "the process must not die of it: %s", out)
			require.Contains(t, out, "replay needs")

			require.NoError(t, os.Remove(ballast))
			b := openDisk(t, dir)
			require.Empty(t, b.Report.LostWAL)
			got := held(t, b.DB)
			sent.missing(t, got)
			require.Zero(t, acked.missing(t, only(got, acked)))
			fill(t, b.DB, acked, 5, 10_000, 3)
			require.NoError(t, b.DB.Close())
			c := openDisk(t, dir)
			require.Zero(t, acked.missing(t, only(held(t, c.DB), acked)))
			require.NoError(t, c.DB.Close())
		})
	}
}

func TestWritesAreRefusedBeforeTheVolumeIsFull(t *testing.T) {
	root := smallVolume(t, 4<<20)
	now := time.Unix(1000, 0)
	f := newFreeSpace(root, 1<<20, func() time.Time { return now })
	require.NoError(t, f.check())
	require.NoError(t, os.WriteFile(filepath.Join(root, "x"), make([]byte, 3<<20+1), 0o666))
	require.NoError(t, f.check(), "one look counts for a second")
	now = now.Add(time.Second)
	err := f.check()
	require.Equal(t, errkind.Unavailable, errkind.Of(err))
	require.NotErrorIs(t, err, unix.ENOSPC)
	require.NoError(t, os.Remove(filepath.Join(root, "x")))
	now = now.Add(time.Second)
	require.NoError(t, f.check())
}

// A deletion of blocks whose traces find no room on the volume does not begin.
func TestFloorOnAFullVolume(t *testing.T) {
	root := smallVolume(t, 1<<20)
	l, err := openLocalBlocks(root, time.Now, time.Hour)
	require.NoError(t, err)
	full, err := os.Create(filepath.Join(root, "full"))
	require.NoError(t, err)
	for err == nil {
		_, err = full.Write(make([]byte, 4096))
	}
	require.ErrorIs(t, errors.Join(err, full.Close()), unix.ENOSPC)
	require.ErrorIs(t, l.write(localState{Floor: 5}), unix.ENOSPC)
	left, err := filepath.Glob(filepath.Join(root, ".*tmp*"))
	require.NoError(t, err)
	require.Empty(t, left)
}
