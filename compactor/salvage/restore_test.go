package salvage

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/blockgen"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/compactor/merge"
	"github.com/duramendb/duramen/internal/errkind"
)

// mergedWorld is a block that was made of two replicas, which left the manifest for it and are still there.
type mergedWorld struct {
	t      *testing.T
	bkt    bucket.Bucket
	owner  *manifest.Owner
	now    time.Time
	inputs []manifest.Block
	block  manifest.Block
	n      uint64
}

// replicaSeries are ten series that all replicas have, and one of its own; of the first the replica has but every other chunk.
func replicaSeries(t *testing.T, slot int64, replica int) (all []blockgen.Series) {
	for i := range 11 {
		lset := labels.FromStrings("__name__", "up", "i", fmt.Sprintf("%02d", i))
		if i == 10 {
			lset = labels.FromStrings("__name__", "up", "i", "own", "replica", fmt.Sprint(replica))
		}
		s := blockgen.Series{Labels: lset}
		for k := range int64(4) {
			if i == 0 && k%2 != int64(replica) {
				continue
			}
			c := chunkenc.NewXORChunk()
			app, err := c.Appender()
			require.NoError(t, err)
			from := slot + k*1_800_000
			for n := range int64(30) {
				app.Append(0, from+n*60_000, float64(n%7+int64(i)))
			}
			s.Chunks = append(s.Chunks, blockgen.Chunk{
				MinTime: from, MaxTime: from + 29*60_000, Encoding: c.Encoding(), Data: c.Bytes(), Samples: 30,
			})
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b blockgen.Series) int { return labels.Compare(a.Labels, b.Labels) })
	return all
}

func newMerged(t *testing.T, deletions ...string) *mergedWorld {
	t.Helper()
	w := &mergedWorld{t: t, bkt: bucket.NewInMemory(), now: time.UnixMilli(1_700_000_000_000)}
	w.owner = manifest.NewOwner(w.bkt, func() time.Time { return w.now }, slog.New(slog.DiscardHandler), nil)
	slot := w.now.UnixMilli()/7_200_000*7_200_000 - 4*7_200_000
	for i := range 2 {
		b, err := blockgen.Build(blockgen.Options{
			ULID: blockgen.ULID(slot+7_200_000, uint64(i)), MinTime: slot, MaxTime: slot + 7_200_000, Sidecar: true, //nolint:gosec // small
		}, replicaSeries(t, slot, i))
		require.NoError(t, err)
		require.NoError(t, b.Put(t.Context(), w.bkt, tenant))
		_, err = w.owner.Add(t.Context(), tenant, b.Entry)
		require.NoError(t, err)
		w.inputs = append(w.inputs, b.Entry)
	}
	for _, selector := range deletions {
		_, err := w.owner.Delete(t.Context(), tenant, manifest.Deletion{
			Selectors: []string{selector}, MinTime: 0, MaxTime: w.now.UnixMilli(), CreatedAt: w.now.UnixMilli(),
		})
		require.NoError(t, err)
	}
	m := w.manifest()
	job := merge.Job{ULID: w.ulid(), Writer: manifest.CompactorWriter + "test", Level: 2}
	change := manifest.Change{}
	if m.NextDeletion > 0 {
		job.DeletedThrough = m.NextDeletion - 1
	}
	fake := manifest.Block{MinTime: slot, MaxTime: slot + 7_200_000, Sources: []ulid.ULID{}, Deleted: job.DeletedThrough}
	for i := range w.inputs {
		fake.Sources = append(fake.Sources, w.inputs[i].ULID)
		change.Replace = append(change.Replace, w.inputs[i].ULID)
	}
	for i := range w.inputs {
		in, err := input(t.Context(), w.bkt, m, &fake, w.inputs[i].ULID)
		require.NoError(t, err)
		job.Inputs = append(job.Inputs, *in)
	}
	job.Deletions = m.Deletions
	for _, d := range m.Deletions {
		change.Applied = append(change.Applied, d.ID)
	}
	res, err := merge.Run(t.Context(), merge.Config{Scratch: t.TempDir()}, w.bkt, tenant, job, nil)
	require.NoError(t, err)
	change.Add = []manifest.Block{res.Block}
	_, err = w.owner.Swap(t.Context(), tenant, change)
	require.NoError(t, err)
	w.block = w.manifest().Blocks[0]
	return w
}

func (w *mergedWorld) ulid() ulid.ULID {
	w.n++
	return blockgen.ULID(w.now.UnixMilli(), 1000*w.n)
}

func (w *mergedWorld) manifest() *manifest.Manifest {
	m, err := w.owner.Refresh(w.t.Context(), tenant)
	require.NoError(w.t, err)
	return m
}

// request is one for the block, with what it was made of.
func (w *mergedWorld) request() Request {
	origins, err := FindOrigins(w.t.Context(), w.bkt, w.manifest(), &w.block, w.now.UnixMilli())
	require.NoError(w.t, err)
	return Request{
		Tenant: tenant, Damaged: w.block, Origins: origins, Writer: manifest.CompactorWriter + "test", ULID: w.ulid(), Now: w.now,
	}
}

func (w *mergedWorld) key(id ulid.ULID, name string) string { return block.Key(tenant, id, name) }

// keys are those of all objects.
func (w *mergedWorld) keys() (keys []string) {
	require.NoError(w.t, w.bkt.List(w.t.Context(), "", true, func(o bucket.Object) error {
		keys = append(keys, o.Key)
		return nil
	}))
	return keys
}

func (w *mergedWorld) get(id ulid.ULID, name string) []byte {
	r, err := w.bkt.Get(w.t.Context(), w.key(id, name))
	require.NoError(w.t, err)
	data, err := io.ReadAll(r)
	require.NoError(w.t, err)
	require.NoError(w.t, r.Close())
	return data
}

func (w *mergedWorld) flip(id ulid.ULID, name string, at int) {
	data := flipped(w.get(id, name), at)
	require.NoError(w.t, w.bkt.Put(w.t.Context(), w.key(id, name), newReader(data), int64(len(data))))
}

func (w *mergedWorld) deleteBlock(id ulid.ULID) {
	require.NoError(w.t, block.Delete(w.t.Context(), w.bkt, tenant, id))
}

// commit swaps the result in and returns the one listed block.
func (w *mergedWorld) commit(res *Result) (*manifest.Manifest, manifest.Block) {
	require.NoError(w.t, Commit(w.t.Context(), Config{Keep: DefaultKeep}, w.bkt, w.owner, res))
	m := w.manifest()
	require.Len(w.t, m.Blocks, 1)
	b := m.Blocks[0]
	require.Equal(w.t, res.Block.ULID, b.ULID)
	require.Equal(w.t, b.ULID.String(), res.Report.NewBlock)
	require.Equal(w.t, w.block.Sources, b.Sources)
	require.Equal(w.t, []int64{w.block.MinTime, w.block.MaxTime, int64(w.block.Level)}, []int64{b.MinTime, b.MaxTime, int64(b.Level)})
	require.Equal(w.t, w.block.Deleted, b.Deleted)
	return m, b
}

// TestRestoredFromItsInputs: what was merged gives back what cannot be read of the block made of it, to the byte.
func TestRestoredFromItsInputs(t *testing.T) {
	for name, damage := range map[string]func(w *mergedWorld){
		"a chunk": func(w *mergedWorld) { w.flip(w.block.ULID, block.SegmentName(1), segmentHeader+5) },
		"all chunks": func(w *mergedWorld) {
			require.NoError(w.t, w.bkt.Delete(w.t.Context(), w.key(w.block.ULID, block.SegmentName(1))))
		},
		"index and sidecar": func(w *mergedWorld) {
			require.NoError(w.t, w.bkt.Delete(w.t.Context(), w.key(w.block.ULID, block.IndexName), w.key(w.block.ULID, block.SidecarName)))
		},
		"everything": func(w *mergedWorld) { w.deleteBlock(w.block.ULID) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newMerged(t)
			whole := w.get(w.block.ULID, block.SegmentName(1))
			damage(w)
			r := w.request()
			require.Len(t, r.Origins.Inputs, 2)
			res, err := Run(t.Context(), Config{Scratch: t.TempDir()}, w.bkt, r)
			require.NoError(t, err)
			require.True(t, res.Report.Lossless, "%+v", res.Report)
			require.Positive(t, res.Report.Restored)
			require.Len(t, res.Report.RestoredFrom, 2)
			m, b := w.commit(res)
			require.Empty(t, m.Lost)
			require.Equal(t, whole, w.get(b.ULID, block.SegmentName(1)))
			require.Equal(t, w.block.Samples, b.Samples)
		})
	}
}

// TestRestoredFromOneInput: one of two is left. With what is readable of the block it gives all but what the other alone had.
func TestRestoredFromOneInput(t *testing.T) {
	w := newMerged(t)
	w.deleteBlock(w.inputs[1].ULID)
	data := w.get(w.block.ULID, block.SegmentName(1))
	half := data[:len(data)/2]
	require.NoError(t, w.bkt.Put(t.Context(), w.key(w.block.ULID, block.SegmentName(1)), newReader(half), int64(len(half))))

	r := w.request()
	require.Len(t, r.Origins.Inputs, 1)
	alone := r
	alone.Origins, alone.ULID = Origins{}, w.ulid()
	without, err := Run(t.Context(), Config{Scratch: t.TempDir()}, w.bkt, alone)
	require.NoError(t, err)
	res, err := Run(t.Context(), Config{Scratch: t.TempDir()}, w.bkt, r)
	require.NoError(t, err)
	require.False(t, res.Report.Lossless)
	require.Less(t, res.Report.Lost.Samples, without.Report.Lost.Samples)
	require.Equal(t, w.block.Samples, res.Block.Samples+res.Report.Lost.Samples)
	require.Equal(t, without.Block.Samples+res.Report.Restored, res.Block.Samples)
	require.Equal(t, without.Report.Ranges, res.Report.Ranges, "queries over these times go on to warn")
	require.LessOrEqual(t, res.Report.Lost.Samples, uint64(4*30), "the other's own series at most")
	m, _ := w.commit(res)
	require.NotEmpty(t, m.Lost)
}

// TestNothingThere: a block that is gone is given up by people, and by nobody else.
func TestNothingThere(t *testing.T) {
	w := newMerged(t)
	w.deleteBlock(w.inputs[1].ULID)
	w.deleteBlock(w.block.ULID)
	before := w.keys()
	_, err := Run(t.Context(), Config{Scratch: t.TempDir()}, w.bkt, w.request())
	require.ErrorIs(t, err, ErrNothingThere)
	require.Equal(t, before, w.keys(), "nothing is put for nothing")

	r := w.request()
	r.Dry = true
	res, err := Run(t.Context(), Config{Scratch: t.TempDir()}, w.bkt, r)
	require.NoError(t, err, "what would be lost is shown")
	require.Equal(t, w.block.Samples, res.Report.Lost.Samples)
	require.Equal(t, []string{w.inputs[0].ULID.String()}, res.Report.RestoredFrom)

	r = w.request()
	r.AcceptLoss = true
	res, err = Run(t.Context(), Config{Scratch: t.TempDir()}, w.bkt, r)
	require.NoError(t, err)
	require.Equal(t, w.inputs[0].Samples, res.Block.Samples)
	require.Equal(t, w.block.Samples-w.inputs[0].Samples, res.Report.Lost.Samples)
	m, b := w.commit(res)
	require.Equal(t, []manifest.LostRange{{MinTime: b.MinTime, MaxTime: b.MaxTime, Reason: m.Lost[0].Reason}}, m.Lost)

	w.deleteBlock(w.inputs[0].ULID)
	w.deleteBlock(b.ULID)
	w.block = b
	_, err = Run(t.Context(), Config{Scratch: t.TempDir()}, w.bkt, w.request())
	require.ErrorIs(t, err, ErrNothingThere)
	r = w.request()
	r.AcceptLoss = true
	res, err = Run(t.Context(), Config{Scratch: t.TempDir()}, w.bkt, r)
	require.NoError(t, err)
	require.True(t, res.Empty)
	require.NoError(t, Commit(t.Context(), Config{Keep: DefaultKeep}, w.bkt, w.owner, res))
	require.Empty(t, w.manifest().Blocks)
}

// TestAMergeThatFailsGivesNothingUp: what the block was made of goes once nobody misses it, so that a merge which cannot be
// made, here for want of memory, is no reason to do with less.
func TestAMergeThatFailsGivesNothingUp(t *testing.T) {
	w := newMerged(t)
	w.deleteBlock(w.block.ULID)
	cfg := Config{Scratch: t.TempDir(), MaxMemoryBytes: 2000}
	_, err := Run(t.Context(), cfg, w.bkt, w.request())
	var large *merge.TooLarge
	require.ErrorAs(t, err, &large)
	require.NotErrorIs(t, err, ErrNothingThere)
	require.NotEqual(t, errkind.Unavailable, errkind.Of(err))

	r := w.request()
	r.AcceptLoss = true
	res, err := Run(t.Context(), cfg, w.bkt, r)
	require.NoError(t, err)
	require.True(t, res.Empty, "people may")
}

// TestDamagedInputsAreLeftOut: one input is damaged as well. It gives nothing, and stops nothing.
func TestDamagedInputsAreLeftOut(t *testing.T) {
	w := newMerged(t)
	w.flip(w.inputs[0].ULID, block.SegmentName(1), segmentHeader+5)
	w.deleteBlock(w.block.ULID)
	r := w.request()
	require.Len(t, r.Origins.Inputs, 2, "a listing does not show it")
	_, err := Run(t.Context(), Config{Scratch: t.TempDir()}, w.bkt, r)
	require.ErrorIs(t, err, ErrNothingThere)
	r = w.request()
	r.AcceptLoss = true
	res, err := Run(t.Context(), Config{Scratch: t.TempDir()}, w.bkt, r)
	require.NoError(t, err)
	require.Equal(t, []string{w.inputs[1].ULID.String()}, res.Report.RestoredFrom)
	require.Equal(t, w.inputs[1].Samples, res.Block.Samples)
	w.commit(res)
}

// TestDeletedSamplesAreNotRestored, neither those that the manifest knows of nor those that it may have forgotten.
func TestDeletedSamplesAreNotRestored(t *testing.T) {
	w := newMerged(t, `up{i="03"}`, `up{i="nobody"}`)
	require.EqualValues(t, 2, w.block.Deleted)
	whole := w.get(w.block.ULID, block.SegmentName(1))
	w.deleteBlock(w.block.ULID)
	res, err := Run(t.Context(), Config{Scratch: t.TempDir()}, w.bkt, w.request())
	require.NoError(t, err)
	require.True(t, res.Report.Lossless)
	_, b := w.commit(res)
	require.Equal(t, whole, w.get(b.ULID, block.SegmentName(1)))

	// A later deletion is for the new block as it was for the old one.
	w = newMerged(t)
	d, err := w.owner.Delete(t.Context(), tenant, manifest.Deletion{
		Selectors: []string{`up{i="03"}`}, MinTime: 0, MaxTime: w.now.UnixMilli(), CreatedAt: w.now.UnixMilli(),
	})
	require.NoError(t, err)
	w.deleteBlock(w.block.ULID)
	res, err = Run(t.Context(), Config{Scratch: t.TempDir()}, w.bkt, w.request())
	require.NoError(t, err)
	m, b := w.commit(res)
	require.Equal(t, []ulid.ULID{b.ULID}, m.Pending(d.ID))

	w = newMerged(t, `up{i="03"}`)
	w.now = w.now.Add(manifest.RememberDeletions + time.Hour)
	require.Len(t, w.request().Origins.Inputs, 2)
	require.NoError(t, w.owner.ForgetDeletions(t.Context(), tenant, 1))
	require.Empty(t, w.request().Origins.Inputs)
}
