package ingester

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/errkind"
)

// syncRecorder notes what was synced, in order.
type syncRecorder struct {
	mu    sync.Mutex
	files []string
	dirs  []string
	fail  error
	block chan struct{} // when set, a sync of a file waits for it
}

func (r *syncRecorder) calls() syncCalls {
	return syncCalls{
		file: func(f *os.File) error {
			if r.block != nil {
				<-r.block
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			r.files = append(r.files, filepath.Join(filepath.Base(filepath.Dir(f.Name())), filepath.Base(f.Name())))
			return r.fail
		},
		dir: func(path string) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.dirs = append(r.dirs, filepath.Base(path))
			return nil
		},
		volume: func(*os.File) error { return errors.New("not in mode commit") },
	}
}

func (r *syncRecorder) take() (files, dirs []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	files, dirs = r.files, r.dirs
	r.files, r.dirs = nil, nil
	return files, dirs
}

func makeSegments(t *testing.T, dir, log string, numbers ...int) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, log), 0o777))
	for _, n := range numbers {
		require.NoError(t, os.WriteFile(wlog.SegmentName(filepath.Join(dir, log), n), nil, 0o666))
	}
}

func TestCommitSyncsWhatMayHaveChanged(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "tenant")
	makeSegments(t, dir, walDirName, 0, 1)
	r := &syncRecorder{}
	w := newWALSync(SyncCommit, root, nil, discardLog(), nil)
	w.calls = r.calls()
	defer w.closed(dir)
	step := func(wantFiles, wantDirs []string) {
		t.Helper()
		require.NoError(t, w.committed(context.Background(), dir))
		files, dirs := r.take()
		require.Equal(t, wantFiles, files)
		require.Equal(t, wantDirs, dirs)
	}
	step([]string{"wal/00000000", "wal/00000001"}, []string{"wal", "tenant"})
	step([]string{"wal/00000001"}, nil)
	makeSegments(t, dir, walDirName, 2)
	step([]string{"wal/00000001", "wal/00000002"}, []string{"wal"})
	makeSegments(t, dir, walDirName, 3, 4)
	makeSegments(t, dir, wlog.WblDirName, 0)
	step([]string{"wal/00000002", "wal/00000003", "wal/00000004", "wbl/00000000"}, []string{"wal", "wbl", "tenant"})
	step([]string{"wal/00000004", "wbl/00000000"}, nil)
	require.NoError(t, os.Remove(wlog.SegmentName(filepath.Join(dir, walDirName), 0)))
	makeSegments(t, dir, wlog.WblDirName, 1)
	require.NoError(t, os.Remove(wlog.SegmentName(filepath.Join(dir, wlog.WblDirName), 0)))
	step([]string{"wal/00000004", "wbl/00000000", "wbl/00000001"}, []string{"wbl"})
	w.opened(dir) // the files may be others now
	step([]string{"wal/00000001", "wal/00000002", "wal/00000003", "wal/00000004", "wbl/00000001"},
		[]string{"wal", "tenant", "wbl", "tenant"})
}

func TestCommitsShareASync(t *testing.T) {
	dir := t.TempDir()
	makeSegments(t, dir, walDirName, 0)
	r := &syncRecorder{block: make(chan struct{})}
	l := newTenantLog(dir)
	defer l.close()
	first, leads := l.join()
	require.True(t, leads)
	var wg sync.WaitGroup
	wg.Go(func() { require.NoError(t, l.lead(first, r.calls())) })
	r.block <- struct{}{} // the first round syncs: what is committed from here on may come too late for it

	second, leads := l.join()
	require.True(t, leads)
	require.NotSame(t, first, second)
	for range 50 {
		round, leads := l.join()
		require.False(t, leads)
		require.Same(t, second, round, "all wait for one sync")
	}
	<-first.done
	select {
	case <-second.done:
		t.Fatal("answered without a sync")
	default:
	}
	wg.Go(func() { require.NoError(t, l.lead(second, r.calls())) })
	r.block <- struct{}{}
	<-second.done
	wg.Wait()
	files, _ := r.take()
	require.Len(t, files, 2)
}

func TestConcurrentCommits(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "tenant")
	makeSegments(t, dir, walDirName, 0)
	w := newWALSync(SyncCommit, root, nil, discardLog(), nil)
	defer w.closed(dir)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				require.NoError(t, w.committed(context.Background(), dir))
			}
		})
	}
	wg.Wait()
}

func TestFailedSyncIsNeverRepeated(t *testing.T) {
	root := t.TempDir()
	dir, other := filepath.Join(root, "tenant"), filepath.Join(root, "other")
	makeSegments(t, dir, walDirName, 0)
	makeSegments(t, other, walDirName, 0)
	r := &syncRecorder{fail: errors.New("input/output error")}
	var told [][]string
	w := newWALSync(SyncCommit, root, func(dirs []string, err error) {
		require.ErrorIs(t, err, r.fail)
		told = append(told, dirs)
	}, discardLog(), prometheus.NewRegistry())
	w.calls = r.calls()
	defer w.closed(dir)
	defer w.closed(other)
	err := w.committed(context.Background(), dir)
	require.ErrorIs(t, err, r.fail)
	require.Equal(t, errkind.Unavailable, errkind.Of(err))

	failed := r.fail
	r.fail = nil
	require.ErrorIs(t, w.committed(context.Background(), dir), failed, "a second sync would succeed and prove nothing")
	require.NoError(t, w.committed(context.Background(), other), "another tenant has its own files")
	require.Equal(t, [][]string{{dir}}, told)
	w.opened(dir)
	require.NoError(t, w.committed(context.Background(), dir))
}

func TestCommitEndsWithItsContext(t *testing.T) {
	root := t.TempDir()
	makeSegments(t, root, walDirName, 0)
	r := &syncRecorder{block: make(chan struct{})}
	w := newWALSync(SyncCommit, filepath.Dir(root), func([]string, error) { t.Error("no sync failed") }, discardLog(), nil)
	w.calls = r.calls()
	l := newTenantLog(root)
	w.logs[root] = l
	round, leads := l.join()
	require.True(t, leads)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := w.committed(ctx, root)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, errkind.Unavailable, errkind.Of(err))
	close(r.block)
	require.NoError(t, l.lead(round, w.calls))
	w.closed(root)
}

func TestIntervalSyncsTheVolumeWhileDirty(t *testing.T) {
	root := t.TempDir()
	ticks := make(chan time.Time)
	synced := make(chan struct{}, 10)
	results := make(chan error, 10)
	var mu sync.Mutex
	var told []string
	w := newWALSync(SyncInterval, root, func(dirs []string, _ error) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, dirs...)
	}, discardLog(), prometheus.NewRegistry())
	w.ticks = ticks
	w.calls.volume = func(*os.File) error { err := <-results; synced <- struct{}{}; return err }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.run(ctx) }()

	ticks <- time.Time{} // clean: no sync
	require.NoError(t, w.committed(ctx, "a"))
	require.NoError(t, w.committed(ctx, "a"))
	require.NoError(t, w.committed(ctx, "b"))
	results <- nil
	ticks <- time.Time{}
	<-synced
	ticks <- time.Time{}
	require.Empty(t, synced, "clean again")

	require.NoError(t, w.committed(ctx, "c"))
	require.NoError(t, w.committed(ctx, "a"))
	results <- errors.New("input/output error")
	ticks <- time.Time{}
	<-synced
	ticks <- time.Time{} // not repeated
	mu.Lock()
	require.Equal(t, []string{"a", "c"}, told, "b was synced before")
	mu.Unlock()

	require.NoError(t, w.committed(ctx, "d"))
	results <- nil
	cancel()
	require.NoError(t, <-done)
	require.Len(t, synced, 1, "the last second is synced on the way out")
}

func TestRealSyncs(t *testing.T) {
	root := t.TempDir()
	makeSegments(t, filepath.Join(root, "tenant"), walDirName, 0)
	w := newWALSync(SyncCommit, root, nil, discardLog(), nil)
	require.NoError(t, w.committed(context.Background(), filepath.Join(root, "tenant")))
	w.closed(filepath.Join(root, "tenant"))
	volume, err := os.Open(root)
	require.NoError(t, err)
	require.NoError(t, syncfs(volume))
	require.NoError(t, volume.Close())
	require.Error(t, newWALSync(SyncInterval, root+"/none", nil, discardLog(), nil).run(context.Background()))
}

// TestTheVolumeIsOpenBeforeItIsNeeded: a folder that vanishes behind a start that has succeeded does not end the process.
func TestTheVolumeIsOpenBeforeItIsNeeded(t *testing.T) {
	root := filepath.Join(t.TempDir(), "ingester")
	require.NoError(t, os.Mkdir(root, 0o755))
	w := newWALSync(SyncInterval, root, nil, discardLog(), nil)
	require.NoError(t, w.open())
	require.NoError(t, os.Remove(root))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, w.run(ctx))
}
