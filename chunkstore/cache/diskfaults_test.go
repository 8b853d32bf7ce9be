package cache

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestDiskGivesWayOnAVolumeThatFillsUp(t *testing.T) {
	env := roomy()
	free := int64(50 << 30)
	env.volume = func(string) (int64, int64, error) { return free, 100 << 30, nil }
	remove := env.remove
	env.remove = func(path string) error {
		info, err := os.Stat(path)
		require.NoError(t, err)
		free += info.Size()
		return remove(path)
	}
	dir := t.TempDir()
	d := mustOpen(t, dir, 16<<20, env)
	obj := Object{"o", 10 << 20}
	keep(d, obj, 0, obj.Size)
	require.Equal(t, obj.Size, found(t, d, obj, 0, obj.Size))

	free = 5<<30 - 3<<20 // somebody else took the rest
	d.giveWay()
	have := found(t, d, obj, 0, obj.Size)
	require.Less(t, have, 8<<20+int64(0))
	require.Greater(t, have, int64(4<<20), "no more than needed")

	free = 0
	keep(d, Object{"other", 10 << 20}, 0, 5<<20)
	paths, _ := slotFiles(t, dir)
	require.Empty(t, paths)
	require.Positive(t, testutil.ToFloat64(d.metrics.dropped))
	require.Zero(t, testutil.ToFloat64(d.metrics.off), "a full volume is no broken disk")
	free = 50 << 30
	keep(d, obj, 0, obj.Size)
	require.Equal(t, obj.Size, found(t, d, obj, 0, obj.Size))
}

// brokenFile fails when it is told to.
type brokenFile struct {
	slotFile

	fail *error
}

func (f brokenFile) ReadAt(p []byte, off int64) (int, error) {
	if *f.fail != nil {
		return 0, *f.fail
	}
	return f.slotFile.ReadAt(p, off)
}

func (f brokenFile) WriteAt(p []byte, off int64) (int, error) {
	if *f.fail != nil {
		n, _ := f.slotFile.WriteAt(p[:len(p)/2], off)
		return n, *f.fail
	}
	return f.slotFile.WriteAt(p, off)
}

func TestDiskThatFailsIsLeftAlone(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	var fail error
	env := roomy()
	env.now = func() time.Time { return now }
	env.create = func(path string) (slotFile, error) {
		f, err := roomy().create(path)
		return brokenFile{f, &fail}, err
	}
	dir := t.TempDir()
	var logged bytes.Buffer
	d, err := openDisk(DiskConfig{Dir: dir, MaxBytes: 16 << 20}, slog.New(slog.NewTextHandler(&logged, nil)), nil, env)
	require.NoError(t, err)
	defer d.Close()
	<-d.Loaded()
	obj := Object{"o", 1 << 20}
	keep(d, obj, 0, 1000)

	for _, fail = range []error{unix.ENOSPC, unix.EIO} {
		for range 10 {
			keep(d, obj, 5000, 1000)
			require.Zero(t, found(t, d, obj, 5000, 1000))
		}
		require.Equal(t, 1.0, testutil.ToFloat64(d.metrics.off))
		require.Zero(t, found(t, d, obj, 0, 1000), "it is not even asked")

		fail = nil
		now = now.Add(restTime)
		keep(d, obj, 5000, 1000)
		require.EqualValues(t, 1000, found(t, d, obj, 5000, 1000))
		require.Zero(t, testutil.ToFloat64(d.metrics.off))
		d.Drop(obj, Span{5000, 1000})
	}
	require.LessOrEqual(t, strings.Count(logged.String(), "\n"), 3, logged.String())
	require.EqualValues(t, 1000, found(t, d, obj, 0, 1000))

	fail = unix.EIO // reads fail as well
	require.Zero(t, found(t, d, obj, 0, 1000))
	fail = nil
	require.Zero(t, found(t, d, obj, 0, 1000), "it is not known any more")

	// Behind what was half written lies what a restart still finds.
	keep(d, obj, 5000, 1000)
	require.NoError(t, d.Close())
	d = mustOpen(t, dir, 16<<20, roomy())
	require.EqualValues(t, 1000, found(t, d, obj, 5000, 1000))
}

func TestDiskWhoseDirectoryGoesAway(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	d := mustOpen(t, dir, 16<<20, roomy())
	require.NoError(t, os.RemoveAll(dir))
	for i := range 10 {
		keep(d, Object{"o", 1 << 20}, int64(i)*1000, 1000)
	}
	require.Zero(t, found(t, d, Object{"o", 1 << 20}, 0, 1000))
	require.Equal(t, 3.0, testutil.ToFloat64(d.metrics.failures.WithLabelValues("create")))
}

func TestDiskIsWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := roomy()
		var free atomic.Int64
		free.Store(50 << 30)
		env.volume = func(string) (int64, int64, error) { return free.Load(), 100 << 30, nil }
		dir := t.TempDir()
		d, err := openDisk(DiskConfig{Dir: dir, MaxBytes: 16 << 20}, slog.New(slog.DiscardHandler), nil, env)
		require.NoError(t, err)
		defer d.Close()
		<-d.Loaded()
		keep(d, Object{"o", 1000}, 0, 1000)
		free.Store(1)
		time.Sleep(watchInterval + time.Second)
		synctest.Wait()
		require.Zero(t, found(t, d, Object{"o", 1000}, 0, 1000))
		require.Zero(t, d.used)
	})
}
