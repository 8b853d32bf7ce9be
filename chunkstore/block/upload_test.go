package block

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
	"github.com/duramendb/duramen/internal/errkind"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testTenant = "acme"
	testWriter = "ingester-zone-a-0"
)

// createBlock writes a real block of ten series and 1,200 samples and returns its folder.
func createBlock(t *testing.T) string {
	t.Helper()
	const seriesCount, sampleCount = 10, 120
	var series []storage.Series
	for i := range seriesCount {
		var samples []chunks.Sample
		for j := range sampleCount {
			samples = append(samples, sample{t: int64(j) * 15_000, v: float64(i * j)})
		}
		lset := labels.FromStrings("__name__", "up", "instance", fmt.Sprintf("host-%02d", i))
		series = append(series, storage.NewListSeries(lset, samples))
	}
	dir, err := tsdb.CreateBlock(series, t.TempDir(), 0, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return dir
}

// sample is a float.
type sample struct {
	chunks.Sample

	t int64
	v float64
}

func (s sample) T() int64                 { return s.t }
func (s sample) ST() int64                { return 0 }
func (s sample) F() float64               { return s.v }
func (s sample) Type() chunkenc.ValueType { return chunkenc.ValFloat }

func blockID(t *testing.T, dir string) ulid.ULID {
	t.Helper()
	id, err := ulid.ParseStrict(filepath.Base(dir))
	require.NoError(t, err)
	return id
}

// requireUploaded checks that the bucket holds the block byte by byte, its sidecar, and nothing else.
func requireUploaded(t *testing.T, bkt bucket.Bucket, dir string) {
	t.Helper()
	id := blockID(t, dir)
	var want []string
	for _, name := range []string{"chunks/000001", "duramen.idx", "index", "meta.json"} {
		want = append(want, Key(testTenant, id, name))
	}
	require.Equal(t, want, buckettest.Keys(t, bkt, "", true))
	for _, name := range []string{"chunks/000001", "index"} {
		local, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, string(local), buckettest.Get(t, bkt, Key(testTenant, id, name)), name)
	}
	require.NoError(t, Verify(t.Context(), bkt, testTenant, id))
}

func TestUpload(t *testing.T) {
	dir, bkt := createBlock(t), bucket.NewInMemory()
	b, err := Upload(t.Context(), bkt, testTenant, dir, testWriter)
	require.NoError(t, err)
	requireUploaded(t, bkt, dir)

	id := blockID(t, dir)
	require.Equal(t, id, b.ULID)
	require.EqualValues(t, 0, b.MinTime)
	require.EqualValues(t, 119*15_000+1, b.MaxTime, "half-open")
	require.Equal(t, 1, b.Level)
	require.Equal(t, []ulid.ULID{id}, b.Sources)
	require.EqualValues(t, 10, b.Series)
	require.EqualValues(t, 1200, b.Samples)
	require.EqualValues(t, 10, b.Chunks)
	require.Equal(t, testWriter, b.Writer)
	require.False(t, b.OutOfOrder)
	require.Zero(t, b.AddedVersion)

	var size int64
	require.NoError(t, bkt.List(t.Context(), "", true, func(o bucket.Object) error {
		size += o.Size
		return nil
	}))
	require.Equal(t, size, b.SizeBytes+b.SidecarBytes)

	meta, err := FetchMeta(t.Context(), bkt, testTenant, id)
	require.NoError(t, err)
	require.Equal(t, &Duramen{Writer: testWriter, Version: 1}, meta.Duramen)
	require.Empty(t, meta.unknown)
}

// TestUploadedBlockIsAStockBlock opens what lies in a filesystem bucket with the TSDB itself.
func TestUploadedBlockIsAStockBlock(t *testing.T) {
	dir, root := createBlock(t), t.TempDir()
	bkt, err := bucket.NewFilesystem(root)
	require.NoError(t, err)
	defer func() { require.NoError(t, bkt.Close()) }()
	_, err = Upload(t.Context(), bkt, testTenant, dir, testWriter)
	require.NoError(t, err)

	b, err := tsdb.OpenBlock(slog.New(slog.DiscardHandler), filepath.Join(root, testTenant, filepath.Base(dir)), nil, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, b.Close()) }()
	q, err := tsdb.NewBlockQuerier(b, 0, 1<<62)
	require.NoError(t, err)
	defer func() { require.NoError(t, q.Close()) }()
	set := q.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", "up"))
	n := 0
	for set.Next() {
		it := set.At().Iterator(nil)
		for it.Next() != chunkenc.ValNone {
			n++
		}
		require.NoError(t, it.Err())
	}
	require.NoError(t, set.Err())
	require.Equal(t, 1200, n)
}

func TestUploadOfAnOutOfOrderBlock(t *testing.T) {
	dir, bkt := createBlock(t), bucket.NewInMemory()
	changeMeta(t, dir, func(m *Meta) { m.Compaction.SetOutOfOrder() })
	b, err := Upload(t.Context(), bkt, testTenant, dir, testWriter)
	require.NoError(t, err)
	require.True(t, b.OutOfOrder)
}

func changeMeta(t *testing.T, dir string, change func(*Meta)) {
	t.Helper()
	m, err := ReadMeta(dir)
	require.NoError(t, err)
	change(m)
	data, err := m.Marshal()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, MetaName), data, 0o600))
}

func TestUploadWithExternalLabels(t *testing.T) {
	dir, bkt := createBlock(t), bucket.NewInMemory()
	labels, sent := map[string]string{"cluster": "eu", "replica": "0"}, int64(0)
	o := Options{Writer: testWriter, Labels: labels, Went: func(n int64) { sent += n }}
	first, err := UploadAs(t.Context(), bkt, testTenant, dir, o)
	require.NoError(t, err)
	meta, err := FetchMeta(t.Context(), bkt, testTenant, blockID(t, dir))
	require.NoError(t, err)
	require.Equal(t, labels, meta.Thanos.Labels)
	require.Equal(t, first.SizeBytes-int64(len(buckettest.Get(t, bkt, Key(testTenant, meta.ULID, MetaName)))), sent)

	again, err := UploadAs(t.Context(), bkt, testTenant, dir, o)
	require.NoError(t, err)
	require.Equal(t, first, again)
	_, err = Upload(t.Context(), bkt, testTenant, dir, testWriter)
	require.ErrorIs(t, err, ErrDiffers, "the same samples would be of other series")
	require.ErrorContains(t, err, "cluster:eu")
}

// methods returns how often each method was called after the first n operations.
func methods(b *faultbucket.Bucket, n int) map[string]int {
	count := map[string]int{}
	for _, op := range b.Ops()[n:] {
		count[op.Method]++
	}
	return count
}

func TestUploadAgainOnlyVerifies(t *testing.T) {
	dir, bkt := createBlock(t), faultbucket.New(bucket.NewInMemory(), nil)
	first, err := Upload(t.Context(), bkt, testTenant, dir, testWriter)
	require.NoError(t, err)
	done := len(bkt.Ops())
	again, err := Upload(t.Context(), bkt, testTenant, dir, testWriter)
	require.NoError(t, err)
	require.Equal(t, first, again)
	require.Equal(t, map[string]int{"Get": 1, "Stat": 3, "GetRange": 1}, methods(bkt, done))

	changeMeta(t, dir, func(m *Meta) { m.Compaction.Failed = true })
	again, err = Upload(t.Context(), bkt, testTenant, dir, "another writer after a restart")
	require.NoError(t, err, "what the TSDB notes in its own meta.json later makes no other block")
	require.Equal(t, first, again, "the answer is what is in the bucket")
}

// TestUploadFailsAnywhereAndIsRepeated fails the k-th operation, for all k and in every way, and uploads again. At no
// moment may there be a meta.json without the rest.
func TestUploadFailsAnywhereAndIsRepeated(t *testing.T) {
	dir := createBlock(t)
	clean := faultbucket.New(bucket.NewInMemory(), nil)
	want, err := Upload(t.Context(), clean, testTenant, dir, testWriter)
	require.NoError(t, err)
	operations := len(clean.Ops())
	wantMeta := buckettest.Get(t, clean, Key(testTenant, blockID(t, dir), MetaName))

	for fault, kind := range map[faultbucket.Fault]errkind.Kind{
		faultbucket.Before:   errkind.Unavailable,
		faultbucket.After:    errkind.Unavailable,
		faultbucket.Stall:    errkind.Canceled,
		faultbucket.Truncate: errkind.Unavailable, // the size gives it away
	} {
		failures := 0
		for k := range operations {
			inner := bucket.NewInMemory()
			bkt := faultbucket.New(&metaLast{Bucket: inner, t: t}, nil)
			if err := uploadWithFault(t, bkt, dir, k, fault); err != nil {
				failures++
				require.Equal(t, kind, errkind.Of(err), "operation %d, %s: %v", k, fault, err)
			}
			got, err := Upload(t.Context(), bkt, testTenant, dir, testWriter)
			require.NoError(t, err, "operation %d, %s", k, fault)
			require.Equal(t, want, got)
			requireUploaded(t, inner, dir)
			require.Equal(t, wantMeta, buckettest.Get(t, inner, Key(testTenant, blockID(t, dir), MetaName)))
		}
		require.Positive(t, failures, fault.String())
	}
}

// uploadWithFault uploads with operation k failing. A call that stands still is cancelled.
func uploadWithFault(t *testing.T, bkt *faultbucket.Bucket, dir string, k int, f faultbucket.Fault) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	bkt.SetPlan(func(op faultbucket.Op) faultbucket.Fault {
		if op.N != k {
			return faultbucket.None
		}
		if f == faultbucket.Stall {
			cancel()
		}
		return f
	})
	_, err := Upload(ctx, bkt, testTenant, dir, testWriter)
	return err
}

// metaLast fails the test when a meta.json is put before all else is there in full.
type metaLast struct {
	bucket.Bucket

	t *testing.T
}

func (b *metaLast) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	if strings.HasSuffix(key, "/"+MetaName) {
		got := buckettest.Keys(b.t, b.Bucket, "", true)
		require.Len(b.t, slices.DeleteFunc(got, func(k string) bool { return k == key }), 3, "objects before meta.json")
	}
	return b.Bucket.Put(ctx, key, r, size)
}

func TestUploadHealsALostObject(t *testing.T) {
	dir, bkt := createBlock(t), bucket.NewInMemory()
	want, err := Upload(t.Context(), bkt, testTenant, dir, testWriter)
	require.NoError(t, err)
	require.NoError(t, bkt.Delete(t.Context(), Key(testTenant, blockID(t, dir), IndexName)))
	require.ErrorIs(t, Verify(t.Context(), bkt, testTenant, blockID(t, dir)), ErrIncomplete)
	got, err := Upload(t.Context(), bkt, testTenant, dir, testWriter)
	require.NoError(t, err)
	require.Equal(t, want, got)
	requireUploaded(t, bkt, dir)
}

func TestUploadReplacesAnUnreadableMeta(t *testing.T) {
	dir, bkt := createBlock(t), bucket.NewInMemory()
	key := Key(testTenant, blockID(t, dir), MetaName)
	buckettest.Put(t, bkt, key, `{"ulid": "01`)
	require.Equal(t, errkind.Corrupt, errkind.Of(Verify(t.Context(), bkt, testTenant, blockID(t, dir))))
	_, err := Upload(t.Context(), bkt, testTenant, dir, testWriter)
	require.NoError(t, err)
	requireUploaded(t, bkt, dir)
}

func TestUploadDoesNotReplaceACompleteBlock(t *testing.T) {
	dir, bkt := createBlock(t), bucket.NewInMemory()
	_, err := Upload(t.Context(), bkt, testTenant, dir, testWriter)
	require.NoError(t, err)
	index := buckettest.Get(t, bkt, Key(testTenant, blockID(t, dir), IndexName))

	require.NoError(t, os.Truncate(filepath.Join(dir, IndexName), 100)) // a damaged disk
	_, err = Upload(t.Context(), bkt, testTenant, dir, testWriter)
	require.ErrorIs(t, err, ErrDiffers)
	require.Equal(t, errkind.Corrupt, errkind.Of(err))
	require.Equal(t, index, buckettest.Get(t, bkt, Key(testTenant, blockID(t, dir), IndexName)))

	// Not even when its meta.json arrives in part.
	cut := faultbucket.New(bkt, faultbucket.On("Get", faultbucket.Truncate))
	_, err = Upload(t.Context(), cut, testTenant, dir, testWriter)
	require.Equal(t, errkind.Unavailable, errkind.Of(err), "%v", err)
	require.Equal(t, index, buckettest.Get(t, bkt, Key(testTenant, blockID(t, dir), IndexName)))
}

// TestUploadBelievesNoFlippedMeta: what the manifest says of a block decides which queries read it, so a meta.json in the
// bucket that says something else than ours is not passed on.
func TestUploadBelievesNoFlippedMeta(t *testing.T) {
	dir, bkt := createBlock(t), bucket.NewInMemory()
	want, err := Upload(t.Context(), bkt, testTenant, dir, testWriter)
	require.NoError(t, err)
	key := Key(testTenant, blockID(t, dir), MetaName)
	meta := buckettest.Get(t, bkt, key)
	for i := range len(meta) {
		for _, bit := range []byte{0x01, 0x02, 0x10} {
			flipped := []byte(meta)
			flipped[i] ^= bit
			buckettest.Put(t, bkt, key, string(flipped))
			got, err := Upload(t.Context(), bkt, testTenant, dir, testWriter)
			if err == nil {
				got.Writer, got.SizeBytes = want.Writer, want.SizeBytes // these decide nothing
				require.Equal(t, want, got, "byte %d of %s", i, flipped)
			}
		}
	}
}

func TestUploadRefusesADamagedFolder(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(*testing.T, string) string
		kind   errkind.Kind
	}{
		"no index": {func(t *testing.T, dir string) string {
			require.NoError(t, os.Remove(filepath.Join(dir, IndexName)))
			return dir
		}, errkind.Corrupt},
		"empty index": {func(t *testing.T, dir string) string {
			require.NoError(t, os.Truncate(filepath.Join(dir, IndexName), 0))
			return dir
		}, errkind.Corrupt},
		"no chunks": {func(t *testing.T, dir string) string {
			require.NoError(t, os.RemoveAll(filepath.Join(dir, "chunks")))
			return dir
		}, errkind.Corrupt},
		"a gap in the chunks": {func(t *testing.T, dir string) string {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "chunks", "000003"), []byte("x"), 0o600))
			return dir
		}, errkind.Corrupt},
		"meta of another block": {func(t *testing.T, dir string) string {
			other := filepath.Join(filepath.Dir(dir), "01JB2X0000000000000000000A")
			require.NoError(t, os.Rename(dir, other))
			return other
		}, errkind.Corrupt},
		"tombstones": {func(t *testing.T, dir string) string {
			changeMeta(t, dir, func(m *Meta) { m.Stats.NumTombstones = 1 })
			return dir
		}, errkind.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			bkt := bucket.NewInMemory()
			dir := c.damage(t, createBlock(t))
			_, err := Upload(t.Context(), bkt, testTenant, dir, testWriter)
			require.Error(t, err)
			require.Equal(t, c.kind, errkind.Of(err), "%v", err)
			require.Empty(t, buckettest.Keys(t, bkt, "", true))
		})
	}
	_, err := Upload(t.Context(), bucket.NewInMemory(), "../acme", createBlock(t), testWriter)
	require.Equal(t, errkind.Invalid, errkind.Of(err))
}

func TestVerify(t *testing.T) {
	dir, bkt := createBlock(t), bucket.NewInMemory()
	id := blockID(t, dir)
	require.ErrorIs(t, Verify(t.Context(), bkt, testTenant, id), ErrNoMeta)
	_, err := Upload(t.Context(), bkt, testTenant, dir, testWriter)
	require.NoError(t, err)
	buckettest.Put(t, bkt, Key(testTenant, id, SegmentName(1)), "short")
	require.ErrorIs(t, Verify(t.Context(), bkt, testTenant, id), ErrIncomplete)
	failing := faultbucket.New(bkt, faultbucket.On("Stat", faultbucket.Before))
	require.Equal(t, errkind.Unavailable, errkind.Of(Verify(t.Context(), failing, testTenant, id)))
}

func TestVerifyOfABlockWithoutAListOfFiles(t *testing.T) {
	bkt, id := bucket.NewInMemory(), ulid.MustParse("01JB2X0000000000000000000A")
	buckettest.Put(t, bkt, Key("t", id, MetaName), stockMeta)
	require.ErrorIs(t, Verify(t.Context(), bkt, "t", id), ErrIncomplete)
	buckettest.Put(t, bkt, Key("t", id, IndexName), "x")
	require.ErrorIs(t, Verify(t.Context(), bkt, "t", id), ErrIncomplete)
	buckettest.Put(t, bkt, Key("t", id, SegmentName(1)), "x")
	require.NoError(t, Verify(t.Context(), bkt, "t", id))
}

func TestDeleteRemovesMetaFirst(t *testing.T) {
	dir := createBlock(t)
	id := blockID(t, dir)
	for k := range 4 {
		inner := bucket.NewInMemory()
		_, err := Upload(t.Context(), inner, testTenant, dir, testWriter)
		require.NoError(t, err)
		buckettest.Put(t, inner, Key(testTenant, id, "sparse-index-header"), "of another program")
		buckettest.Put(t, inner, "acme/other", "x")

		bkt := faultbucket.New(inner, faultbucket.At(k, faultbucket.Before))
		if err := Delete(t.Context(), bkt, testTenant, id); err != nil {
			require.Equal(t, errkind.Unavailable, errkind.Of(err))
			_, err := inner.Stat(t.Context(), Key(testTenant, id, MetaName))
			if err == nil {
				require.NoError(t, Verify(t.Context(), inner, testTenant, id), "with meta.json there is everything")
			}
		}
		bkt.SetPlan(nil)
		require.NoError(t, Delete(t.Context(), bkt, testTenant, id))
		require.Equal(t, []string{"acme/other"}, buckettest.Keys(t, inner, "", true))
		require.NoError(t, Delete(t.Context(), bkt, testTenant, id), "deleting nothing is no error")
	}
}

func TestKeys(t *testing.T) {
	id := ulid.MustParse("01JB2X0000000000000000000A")
	require.Equal(t, "acme/01JB2X0000000000000000000A/chunks/000012", Key("acme", id, SegmentName(12)))
	tenantID, got, name, ok := ParseKey("acme/01JB2X0000000000000000000A/chunks/000012")
	require.True(t, ok)
	require.Equal(t, []any{"acme", id, "chunks/000012"}, []any{tenantID, got, name})
	for _, key := range []string{
		"", "acme", "acme/01JB2X0000000000000000000A", "acme/01JB2X0000000000000000000A/", "/01JB2X0000000000000000000A/index",
		"acme/01jb2x0000000000000000000a/index", "acme/duramen/manifest/1", "acme/01JB2X/index",
	} {
		_, _, _, ok := ParseKey(key)
		require.False(t, ok, key)
	}
	for name, want := range map[string]int{"chunks/000001": 1, "chunks/1000000": 1_000_000} {
		n, ok := ParseSegmentName(name)
		require.True(t, ok, name)
		require.Equal(t, want, n)
	}
	for _, name := range []string{"chunks/0", "chunks/000000", "chunks/1", "chunks/00001x", "000001", "x/chunks/000001"} {
		_, ok := ParseSegmentName(name)
		require.False(t, ok, name)
	}
}
