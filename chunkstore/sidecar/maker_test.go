package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/reader"
	"github.com/duramendb/duramen/internal/errkind"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const tenantID = "team-a"

// fixture is a bucket with one block that lost its sidecar.
type fixture struct {
	t       *testing.T
	inner   *bucket.InMemory
	bkt     *faultbucket.Bucket
	maker   *Maker
	notes   *notebook
	b       manifest.Block // as in the manifest: without sizes
	info    reader.SidecarInfo
	key     string // of the sidecar
	sidecar string // as Upload built it
	now     time.Time
}

// notebook is a manifest of sizes.
type notebook struct {
	mu    sync.Mutex
	notes map[ulid.ULID]manifest.Annotation
	err   error
}

func (n *notebook) Annotate(_ context.Context, tenant string, notes ...manifest.Annotation) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, note := range notes {
		if tenant == tenantID && n.err == nil {
			n.notes[note.ULID] = note
		}
	}
	return n.err
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, inner: bucket.NewInMemory(), notes: &notebook{notes: map[ulid.ULID]manifest.Annotation{}}}
	f.bkt = faultbucket.New(f.inner, nil)
	f.now = time.UnixMilli(0)
	f.b = f.add(tenantID)
	f.key = block.Key(tenantID, f.b.ULID, block.SidecarName)
	f.info = reader.SidecarInfo{SidecarBytes: f.b.SidecarBytes, DirectoryBytes: f.b.DirectoryBytes}
	f.b.SidecarBytes, f.b.DirectoryBytes = 0, 0
	f.sidecar = buckettest.Get(t, f.inner, f.key)
	require.NoError(t, f.inner.Delete(t.Context(), f.key))
	f.maker = New(Config{Dir: filepath.Join(t.TempDir(), "sidecars")}, f.bkt, f.notes,
		func() time.Time { return f.now }, slog.New(slog.DiscardHandler), nil)
	t.Cleanup(func() {
		require.NoError(t, f.maker.Close())
		_, err := os.Stat(f.maker.cfg.Dir)
		require.ErrorIs(t, err, os.ErrNotExist)
	})
	return f
}

// add uploads a block of two metrics.
func (f *fixture) add(tenant string) manifest.Block {
	f.t.Helper()
	dir := f.t.TempDir()
	w, err := tsdb.NewBlockWriter(slog.New(slog.DiscardHandler), dir, 1<<40)
	require.NoError(f.t, err)
	app := w.AppenderV2(f.t.Context())
	for i := range 40 {
		lset := labels.FromStrings(labels.MetricName, fmt.Sprintf("m%d", i%2), "i", fmt.Sprint(i))
		for n := range 3 {
			_, err := app.Append(0, lset, 0, int64(n)*1000, float64(i), nil, nil, storage.AOptions{})
			require.NoError(f.t, err)
		}
	}
	require.NoError(f.t, app.Commit())
	id, err := w.Flush(f.t.Context())
	require.NoError(f.t, err)
	require.NoError(f.t, w.Close())
	b, err := block.Upload(f.t.Context(), f.inner, tenant, filepath.Join(dir, id.String()), "test")
	require.NoError(f.t, err)
	return b
}

func (f *fixture) ensure() (reader.SidecarInfo, error) {
	return f.maker.Ensure(f.t.Context(), tenantID, f.b)
}

// requireEnsured asks for the sidecar and checks what is in the bucket then.
func (f *fixture) requireEnsured() {
	f.t.Helper()
	info, err := f.ensure()
	require.NoError(f.t, err)
	require.Equal(f.t, f.info, info)
	require.Equal(f.t, f.sidecar, buckettest.Get(f.t, f.inner, f.key))
}

// reads counts the operations that read the block's index.
func (f *fixture) reads() (n int) {
	for _, op := range f.bkt.Ops() {
		if op.Key == block.Key(tenantID, f.b.ULID, block.IndexName) {
			n++
		}
	}
	return n
}

// left are the files in the folder for building.
func (f *fixture) left() []string {
	names, err := filepath.Glob(filepath.Join(f.maker.cfg.Dir, "*"))
	require.NoError(f.t, err)
	return names
}

func TestEnsureBuildsWhatUploadBuilds(t *testing.T) {
	f := newFixture(t)
	f.requireEnsured()
	require.Equal(t, 1, f.reads(), "one sequential read")
	require.Empty(t, f.left())

	f.requireEnsured()
	require.Equal(t, 1, f.reads(), "it is there now")

	require.NoError(t, f.maker.Close())
	require.Equal(t, map[ulid.ULID]manifest.Annotation{f.b.ULID: {
		ULID: f.b.ULID, SidecarBytes: f.info.SidecarBytes, DirectoryBytes: f.info.DirectoryBytes,
	}}, f.notes.notes)
	_, err := f.ensure()
	require.Equal(t, errkind.Unavailable, errkind.Of(err), "closed: %v", err)
}

func TestEnsureDoesWithoutAManifest(t *testing.T) {
	f := newFixture(t)
	f.notes.err = errors.New("no room for notes")
	f.requireEnsured()
}

// TestEnsureLooksIntoPages: the caller that knows the sizes has read the sidecar already.
func TestEnsureLooksIntoPages(t *testing.T) {
	f := newFixture(t)
	for i := 8; i < len(f.sidecar)-int(f.info.DirectoryBytes); i += 13 {
		damaged := []byte(f.sidecar)
		damaged[i] ^= 4
		buckettest.Put(t, f.inner, f.key, string(damaged))
		f.b.SidecarBytes, f.b.DirectoryBytes = 0, 0
		_, err := f.ensure()
		require.NoError(t, err)
		require.Equal(t, string(damaged), buckettest.Get(t, f.inner, f.key), "the directory is sound")
		f.b.SidecarBytes, f.b.DirectoryBytes = f.info.SidecarBytes, f.info.DirectoryBytes
		f.requireEnsured()
	}
	before := f.reads()
	f.requireEnsured()
	require.Equal(t, before, f.reads(), "a sound one is not built again")
}

// TestEnsureReadsOnceForAll has 20 queries ask at the same time, while the first reading of the index waits for all of them.
func TestEnsureReadsOnceForAll(t *testing.T) {
	f := newFixture(t)
	const queries = 20
	release := make(chan struct{})
	f.bkt.SetPlan(func(op faultbucket.Op) faultbucket.Fault {
		if strings.HasSuffix(op.Key, "/index") {
			<-release
		}
		return faultbucket.None
	})
	var wg sync.WaitGroup
	for range queries {
		wg.Go(func() {
			info, err := f.ensure()
			if err != nil || info != f.info {
				t.Errorf("%v %v", info, err)
			}
		})
	}
	require.Eventually(t, func() bool {
		f.maker.mu.Lock()
		defer f.maker.mu.Unlock()
		j := f.maker.jobs[blockKey{tenantID, f.b.ULID}]
		return j != nil && j.waiters == queries
	}, 10*time.Second, time.Millisecond)
	close(release)
	wg.Wait()
	require.Equal(t, 1, f.reads())
}

// TestAWaiterLeavesWithItsContext and what has begun goes on without it.
func TestAWaiterLeavesWithItsContext(t *testing.T) {
	f := newFixture(t)
	reading, release := make(chan struct{}), make(chan struct{})
	f.bkt.SetPlan(func(op faultbucket.Op) faultbucket.Fault {
		if strings.HasSuffix(op.Key, "/index") {
			close(reading)
			<-release
		}
		return faultbucket.None
	})
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := f.maker.Ensure(ctx, tenantID, f.b)
		gone <- err
	}()
	<-reading
	cancel()
	require.ErrorIs(t, <-gone, context.Canceled)
	close(release)
	f.requireEnsured()
	require.Equal(t, 1, f.reads())
}

// TestNobodysTurnIsNotTaken: blocks whose queries went away before their turn are not built.
func TestNobodysTurnIsNotTaken(t *testing.T) {
	f := newFixture(t)
	var ends []func()
	for range builds {
		done, err := f.maker.turns.wait(t.Context(), "another")
		require.NoError(t, err)
		ends = append(ends, done)
	}
	waits := func() bool {
		f.maker.turns.mu.Lock()
		defer f.maker.turns.mu.Unlock()
		return f.maker.turns.waiting[tenantID] != nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := f.maker.Ensure(ctx, tenantID, f.b)
		gone <- err
	}()
	require.Eventually(t, waits, 10*time.Second, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-gone, context.Canceled)
	require.Eventually(t, func() bool { return !waits() }, 10*time.Second, time.Millisecond)
	require.Zero(t, f.reads())
	for _, end := range ends {
		end()
	}
	f.requireEnsured()
}

func TestEnsureNamesADamagedIndex(t *testing.T) {
	f := newFixture(t)
	name := block.Key(tenantID, f.b.ULID, block.IndexName)
	sound := buckettest.Get(t, f.inner, name)
	damaged := []byte(sound)
	damaged[len(damaged)-1] ^= 1
	buckettest.Put(t, f.inner, name, string(damaged))
	_, err := f.ensure()
	require.Equal(t, errkind.Corrupt, errkind.Of(err), "%v", err)
	require.ErrorContains(t, err, f.b.ULID.String())
	require.ErrorContains(t, err, tenantID)
	require.Equal(t, readings, f.reads(), "it might have been damaged on its way")
	require.Empty(t, f.left())

	done := len(f.bkt.Ops())
	_, again := f.ensure()
	require.Equal(t, err, again)
	require.Len(t, f.bkt.Ops(), done, "not every query reads it again")

	buckettest.Put(t, f.inner, name, sound)
	f.now = f.now.Add(damagedFor)
	f.requireEnsured()
}

func TestEnsureReadsAgainWhatWasDamagedOnItsWay(t *testing.T) {
	f := newFixture(t)
	f.maker.bkt = &flipOnce{Bucket: f.bkt}
	f.requireEnsured()
	require.Equal(t, 2, f.reads())
}

// flipOnce damages the first index that is read.
type flipOnce struct {
	bucket.Bucket
	done bool
}

func (b *flipOnce) GetRange(ctx context.Context, key string, off, length int64) (io.ReadCloser, error) {
	body, err := b.Bucket.GetRange(ctx, key, off, length)
	if err != nil || b.done || !strings.HasSuffix(key, "/index") {
		return body, err
	}
	b.done = true
	data, err := io.ReadAll(body)
	data[len(data)-1] ^= 1
	return io.NopCloser(strings.NewReader(string(data))), errors.Join(err, body.Close())
}

func TestEnsureRefusesAnotherBlocksIndex(t *testing.T) {
	f := newFixture(t)
	f.b.Series++
	_, err := f.ensure()
	require.Equal(t, errkind.Corrupt, errkind.Of(err), "%v", err)
	f.b.Series, f.b.Chunks = 0, 0 // not counted
	f.now = f.now.Add(damagedFor)
	f.requireEnsured()
}

// TestEnsureOfABlockThatIsGone: in whole, or in the middle of its deletion.
func TestEnsureOfABlockThatIsGone(t *testing.T) {
	for name, gone := range map[string][]string{
		"all":                      {block.MetaName, block.IndexName, block.SegmentName(1)},
		"its index":                {block.IndexName},
		"meta.json and the chunks": {block.MetaName, block.SegmentName(1)},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			for _, object := range gone {
				require.NoError(t, f.inner.Delete(t.Context(), block.Key(tenantID, f.b.ULID, object)))
			}
			_, err := f.ensure()
			require.ErrorIs(t, err, bucket.ErrNotFound)
			require.Equal(t, errkind.Unavailable, errkind.Of(err))
		})
	}
}

// TestABucketThatTakesNothing keeps no query from its answer.
func TestABucketThatTakesNothing(t *testing.T) {
	f := newFixture(t)
	f.bkt.SetPlan(faultbucket.On("Put", faultbucket.Before))
	for range 2 {
		info, err := f.ensure()
		require.NoError(t, err)
		require.Equal(t, f.info, info)
		require.Equal(t, 1, f.reads(), "it is built once")
	}
	_, err := f.inner.Stat(t.Context(), f.key)
	require.ErrorIs(t, err, bucket.ErrNotFound)
	require.Len(t, f.left(), 1)

	over := f.maker.Bucket()
	require.Equal(t, f.sidecar, buckettest.Get(t, over, f.key))
	require.Equal(t, buckettest.Get(t, f.inner, block.Key(tenantID, f.b.ULID, "meta.json")),
		buckettest.Get(t, over, block.Key(tenantID, f.b.ULID, "meta.json")))
	s, err := block.FindSidecar(t.Context(), over, tenantID, f.b, nil)
	require.NoError(t, err)
	require.Equal(t, f.info.SidecarBytes, s.Bytes)
	_, err = over.GetRange(t.Context(), f.key, -1, 3)
	require.Error(t, err)

	f.bkt.SetPlan(nil)
	f.requireEnsured()
	require.Equal(t, 1, f.reads())
	require.Empty(t, f.left())
	require.Equal(t, f.sidecar, buckettest.Get(t, over, f.key))
}

// TestOverlayIsABucket passes through what it does not keep.
func TestOverlayIsABucket(t *testing.T) {
	f := newFixture(t)
	buckettest.RunAcceptance(t, func(*testing.T) bucket.Bucket {
		return overlay{bucket.NewInMemory(), f.maker.kept}
	})
}

func TestKeptSidecarsAreBounded(t *testing.T) {
	f := newFixture(t)
	f.maker.cfg.KeepBytes = f.info.SidecarBytes - 1
	f.bkt.SetPlan(faultbucket.On("Put", faultbucket.Before))
	_, err := f.ensure()
	require.Equal(t, errkind.Unavailable, errkind.Of(err))
	require.ErrorContains(t, err, fmt.Sprintf("0 of %d bytes", f.info.SidecarBytes-1))
	require.Empty(t, f.left())
}

func TestEnsureNeedsRoom(t *testing.T) {
	f := newFixture(t)
	f.maker.free = func(string) (int64, error) { return 256 << 20, nil }
	_, err := f.ensure()
	require.Equal(t, errkind.Unavailable, errkind.Of(err))
	require.ErrorContains(t, err, "268435456 bytes free")
	require.Zero(t, f.reads())
	f.maker.free = freeBytes
	f.maker.cfg.ReserveBytes = 1
	f.requireEnsured()
}

// TestWhatAProcessLeftBehindIsDeleted by the one after it.
func TestWhatAProcessLeftBehindIsDeleted(t *testing.T) {
	f := newFixture(t)
	require.NoError(t, os.MkdirAll(f.maker.cfg.Dir, 0o750))
	require.NoError(t, os.WriteFile(filepath.Join(f.maker.cfg.Dir, "index-123"), []byte("x"), 0o600))
	f.requireEnsured()
	require.Empty(t, f.left())
}

// TestEnsureUnderFaults fails each operation in each way: no sidecar that is wrong, no damage where there is none, and the
// next attempt goes well.
func TestEnsureUnderFaults(t *testing.T) {
	f := newFixture(t)
	f.requireEnsured()
	operations := len(f.bkt.Ops())
	for _, fault := range []faultbucket.Fault{faultbucket.Before, faultbucket.After, faultbucket.Truncate} {
		for k := range operations {
			f := newFixture(t)
			f.bkt.SetPlan(faultbucket.At(k, fault))
			info, err := f.ensure()
			if err != nil {
				require.Equal(t, errkind.Unavailable, errkind.Of(err), "operation %d, %s: %v", k, fault, err)
			} else {
				require.Equal(t, f.info, info)
			}
			f.bkt.SetPlan(nil)
			f.requireEnsured()
			require.Empty(t, f.left())
		}
	}
}

func TestTenantsTakeTurns(t *testing.T) {
	turns := newTurns(1)
	first, err := turns.wait(t.Context(), "a")
	require.NoError(t, err)
	var mu sync.Mutex
	var got []string
	var wg sync.WaitGroup
	queued := map[string]int{}
	enqueue := func(tenant string) {
		wg.Go(func() {
			done, err := turns.wait(t.Context(), tenant)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			got = append(got, tenant)
			mu.Unlock()
			done()
		})
		queued[tenant]++
		require.Eventually(t, func() bool {
			turns.mu.Lock()
			defer turns.mu.Unlock()
			lengths := map[string]int{}
			for tenant, l := range turns.waiting {
				lengths[tenant] = l.Len()
			}
			return maps.Equal(queued, lengths)
		}, 10*time.Second, time.Millisecond)
	}
	for _, tenant := range []string{"a", "a", "a", "b", "c", "b"} {
		enqueue(tenant)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = turns.wait(ctx, "b")
	require.ErrorIs(t, err, context.Canceled)
	_, err = turns.wait(ctx, "d")
	require.ErrorIs(t, err, context.Canceled)
	first()
	wg.Wait()
	require.Equal(t, []string{"a", "b", "c", "a", "b", "a"}, got)
	require.Equal(t, 1, turns.free)
	require.Empty(t, turns.waiting)
	require.Zero(t, turns.tenants.Len())
}
