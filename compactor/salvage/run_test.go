package salvage

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/blockcheck"
	"github.com/duramendb/duramen/chunkstore/blockgen"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
)

func flipped(data []byte, at int) []byte {
	data = slices.Clone(data)
	data[at] ^= 0x55
	return data
}

func (w *world) file(t testing.TB, name string) []byte {
	t.Helper()
	for _, f := range w.block.Files {
		if f.Name == name {
			return f.Data
		}
	}
	require.FailNow(t, "no such file", name)
	return nil
}

// damage flips a byte in each file: of the chunks in the data of the first.
func (w *world) damage(t testing.TB) {
	t.Helper()
	files := map[string][]byte{}
	for _, f := range w.block.Files {
		files[f.Name] = flipped(f.Data, len(f.Data)/2)
	}
	files[block.SegmentName(1)] = flipped(w.file(t, block.SegmentName(1)), segmentHeader+5)
	w.with(t, files)
}

func TestRunWritesABlock(t *testing.T) {
	w := newWorld(t, 5)
	w.damage(t)
	res, err := Run(t.Context(), Config{Scratch: w.dir}, w.bkt, w.request())
	require.NoError(t, err)
	require.False(t, res.Empty)
	require.False(t, res.Healed)

	old, b := w.block.Entry, res.Block
	require.Equal(t, w.request().ULID, b.ULID)
	require.Equal(t, old.Sources, b.Sources)
	require.Equal(t, old.Level, b.Level)
	require.Equal(t, old.OutOfOrder, b.OutOfOrder)
	require.Equal(t, []int64{old.MinTime, old.MaxTime}, []int64{b.MinTime, b.MaxTime})
	require.True(t, b.FromCompactor())
	require.Equal(t, old.Chunks-res.Report.Lost.Chunks, b.Chunks)
	require.Equal(t, old.Samples-res.Report.Lost.Samples, b.Samples)
	require.Positive(t, res.Report.Lost.Chunks)
	require.Positive(t, b.SidecarBytes)

	faults, sum, err := blockcheck.Gather(t.Context(), blockcheck.InBucket(w.bkt, tenant, b.ULID), b.ULID, 10)
	require.NoError(t, err)
	require.Empty(t, faults)
	require.Empty(t, blockcheck.CompareEntry(sum.Meta, sum.MetaBytes, b))
	require.Equal(t, old.ULID, sum.Meta.Compaction.Parents[0].ULID)

	// What was written is what can be read of the old one.
	c, report := w.read(t)
	w.judge(t, c, report)
	again := &world{bkt: w.bkt, block: &blockgen.Block{Entry: b}, series: w.series, dir: t.TempDir()}
	written, report := again.read(t)
	require.Empty(t, report.Files)
	require.Len(t, written.series, len(c.series))
	for lset, chks := range c.series {
		require.Len(t, written.series[lset], len(chks))
		for i := range chks {
			require.Equal(t, chks[i].Chunk.Bytes(), written.series[lset][i].Chunk.Bytes())
		}
	}
	left, err := os.ReadDir(w.dir)
	require.NoError(t, err)
	require.Empty(t, slices.DeleteFunc(left, func(e os.DirEntry) bool { return e.Name() == "damaged" }))
}

func TestDryRunWritesNothing(t *testing.T) {
	w := newWorld(t, 5)
	w.damage(t)
	before := keys(t, w.bkt)
	r := w.request()
	r.Dry = true
	res, err := Run(t.Context(), Config{Scratch: w.dir}, w.bkt, r)
	require.NoError(t, err)
	require.Positive(t, res.Report.Lost.Chunks)
	require.Equal(t, before, keys(t, w.bkt))
}

func keys(t testing.TB, bkt bucket.Bucket) (all []string) {
	t.Helper()
	require.NoError(t, bkt.List(t.Context(), "", true, func(o bucket.Object) error {
		all = append(all, o.Key)
		return nil
	}))
	return all
}

func TestNothingReadable(t *testing.T) {
	w := newWorld(t, 5)
	w.with(t, map[string][]byte{block.IndexName: nil, block.SidecarName: nil, block.MetaName: {}})
	res, err := Run(t.Context(), Config{Scratch: w.dir}, w.bkt, w.request())
	require.NoError(t, err)
	require.True(t, res.Empty)
	require.False(t, res.Report.Lossless)
	require.Equal(t, w.block.Entry.Samples, res.Report.Lost.Samples)
	require.Equal(t, w.block.Entry.Series, res.Report.Lost.Series)

	for _, f := range w.block.Files {
		w.with(t, map[string][]byte{f.Name: nil})
		require.NoError(t, w.bkt.Delete(t.Context(), block.Key(tenant, w.block.Entry.ULID, f.Name)))
	}
	for _, f := range w.block.Files {
		require.NoError(t, w.bkt.Delete(t.Context(), block.Key(tenant, w.block.Entry.ULID, f.Name)))
	}
	r := w.request()
	_, err = Run(t.Context(), Config{Scratch: w.dir}, w.bkt, r)
	require.ErrorIs(t, err, ErrNothingThere)
	r.AcceptLoss = true
	res, err = Run(t.Context(), Config{Scratch: w.dir}, w.bkt, r)
	require.NoError(t, err)
	require.True(t, res.Empty)
	require.Equal(t, []Range{{w.block.Entry.MinTime, w.block.Entry.MaxTime}}, res.Report.Ranges)
}

func TestOnlyMetaIsHealedInPlace(t *testing.T) {
	w := newWorld(t, 5)
	before := w.file(t, block.MetaName)
	for _, meta := range [][]byte{nil, {}, before[:len(before)/2], flipped(before, 1)} {
		w.with(t, map[string][]byte{block.MetaName: meta})
		res, err := Run(t.Context(), Config{Scratch: w.dir}, w.bkt, w.request())
		require.NoError(t, err)
		require.True(t, res.Healed, "%+v", res.Report)
		require.NoError(t, block.Verify(t.Context(), w.bkt, tenant, w.block.Entry.ULID))
		faults, sum, err := blockcheck.Gather(
			t.Context(), blockcheck.InBucket(w.bkt, tenant, w.block.Entry.ULID), w.block.Entry.ULID, 10)
		require.NoError(t, err)
		require.Empty(t, faults)
		require.Empty(t, blockcheck.CompareEntry(sum.Meta, sum.MetaBytes, w.block.Entry))
	}
}

func TestHealMeta(t *testing.T) {
	w := newWorld(t, 5)
	healed, err := HealMeta(t.Context(), w.bkt, tenant, w.block.Entry)
	require.NoError(t, err)
	require.False(t, healed, "a meta.json that is there stays")

	w.with(t, map[string][]byte{block.MetaName: nil})
	healed, err = HealMeta(t.Context(), w.bkt, tenant, w.block.Entry)
	require.NoError(t, err)
	require.True(t, healed)
	require.NoError(t, block.Verify(t.Context(), w.bkt, tenant, w.block.Entry.ULID))

	short := w.file(t, block.SegmentName(1))
	w.with(t, map[string][]byte{block.MetaName: nil, block.SegmentName(1): append(short, make([]byte, 20_000)...)})
	healed, err = HealMeta(t.Context(), w.bkt, tenant, w.block.Entry)
	require.NoError(t, err)
	require.False(t, healed, "sizes differ")
}

// TestBucketFails: a bucket that fails is no damage.
func TestBucketFails(t *testing.T) {
	w := newWorld(t, 5)
	w.damage(t)
	for n := 1; ; n += 3 {
		count := 0
		bkt := faultbucket.New(w.bkt, func(faultbucket.Op) faultbucket.Fault { // from the n-th on all fail
			if count++; count >= n {
				return faultbucket.Before
			}
			return faultbucket.None
		})
		r := w.request()
		r.ULID = blockgen.ULID(1e12, uint64(n))
		_, err := Run(t.Context(), Config{Scratch: w.dir}, bkt, r)
		if err == nil {
			require.Greater(t, n, 5)
			return
		}
		require.Equal(t, errkind.Unavailable, errkind.Of(err), "operation %d: %v", n, err)
	}
}

// TestFlippedOnTheWay: bytes that are wrong in one answer only are no damage.
func TestFlippedOnTheWay(t *testing.T) {
	w := newWorld(t, 5)
	for n := 1; ; n++ {
		count := 0
		bkt := faultbucket.New(w.bkt, func(op faultbucket.Op) faultbucket.Fault {
			if count++; count == n {
				return faultbucket.Flip
			}
			return faultbucket.None
		})
		r := w.request()
		r.Dry = true
		res, err := Run(t.Context(), Config{Scratch: w.dir}, bkt, r)
		if err != nil {
			require.Equal(t, errkind.Unavailable, errkind.Of(err), "operation %d: %v", n, err)
		} else {
			require.True(t, res.Report.Lossless, "operation %d: %+v", n, res.Report)
		}
		if count < n {
			return
		}
	}
}

func TestCanceled(t *testing.T) {
	w := newWorld(t, 5)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Run(ctx, Config{Scratch: w.dir}, w.bkt, w.request())
	require.True(t, errors.Is(err, context.Canceled) || errors.Is(err, io.EOF), "%v", err)
}

// TestMiscountedEntry: counts in the manifest that are not those of a whole index claim no loss, and the block gets others.
func TestMiscountedEntry(t *testing.T) {
	for name, miscount := range map[string]func(b *manifest.Block){
		"more chunks":  func(b *manifest.Block) { b.Chunks += 3 },
		"more samples": func(b *manifest.Block) { b.Samples += 1000 },
		"more series":  func(b *manifest.Block) { b.Series++ },
		"less":         func(b *manifest.Block) { b.Series, b.Chunks, b.Samples = b.Series-1, b.Chunks-1, b.Samples-1 },
		"one chunk":    func(b *manifest.Block) { b.Chunks = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 5)
			truth, r := w.block.Entry, w.request()
			miscount(&r.Damaged)
			res, err := Run(t.Context(), Config{Scratch: w.dir}, w.bkt, r)
			require.NoError(t, err)
			require.True(t, res.Report.Lossless, "%+v", res.Report)
			require.Zero(t, res.Report.Lost)
			require.Empty(t, res.Report.LostRanges())
			require.False(t, res.Healed, "meta.json is right, and the manifest is not")
			require.NotEmpty(t, res.Report.Files, "the report says what was wrong")
			require.Equal(t, []uint64{truth.Series, truth.Chunks, truth.Samples},
				[]uint64{res.Block.Series, res.Block.Chunks, res.Block.Samples})

			// What is lost is counted by the index as well.
			w.with(t, map[string][]byte{block.SegmentName(1): flipped(w.file(t, block.SegmentName(1)), segmentHeader+5)})
			r.ULID[15]++
			res, err = Run(t.Context(), Config{Scratch: w.dir}, w.bkt, r)
			require.NoError(t, err)
			require.False(t, res.Report.Lossless)
			require.EqualValues(t, 1, res.Report.Lost.Chunks)
			require.Equal(t, truth.Chunks, res.Block.Chunks+1)
		})
	}
}
