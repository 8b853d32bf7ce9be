package salvage

import (
	"context"
	"errors"
	"path/filepath"
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/compactor/merge"
	"github.com/duramendb/duramen/internal/errkind"
)

// ErrNothingThere means that nothing of a listed block is in the bucket and that no other block gives back all of it. It is
// of kind NotFound. Bring the objects back, or call again with AcceptLoss.
var ErrNothingThere = errkind.New(errkind.NotFound, "neither index nor chunks are in the bucket")

// restore makes the new block of what is readable of the damaged one and of what it was made of. It returns false when that
// cannot be used, and nothing is changed then.
// gone says that nothing of the damaged block is there.
func (j *job) restore(ctx context.Context, written manifest.Block, gone bool) (_ manifest.Block, ok bool, err error) {
	inputs, readable := slices.Clone(j.Origins.Inputs), !written.ULID.IsZero()
	var res *merge.Result
	// Those that were merged into the damaged block give exactly what it had. Otherwise what is left of both.
	for whole := holdAll(inputs, j.Damaged.Sources); len(inputs) > 0; {
		if !whole && gone && !j.AcceptLoss {
			return manifest.Block{}, false, nil // a part would be put for nothing, again and again
		}
		all := inputs
		if !whole && readable {
			all = append(slices.Clip(inputs), merge.Input{Block: written})
		}
		res, err = j.merge(ctx, all)
		var damaged *merge.Damaged
		var missing *merge.Gone
		var bad ulid.ULID
		switch {
		case errors.As(err, &damaged):
			bad = damaged.ULID
		case errors.As(err, &missing):
			bad = missing.ULID
		case err != nil && errkind.Of(err) != errkind.Unavailable && ctx.Err() == nil && j.AcceptLoss:
			return manifest.Block{}, false, nil // too large, perhaps: what is readable is better than nothing
		case err != nil:
			// What it was made of is there and goes with this block: nobody gives it up because a merge fails.
			return manifest.Block{}, false, err
		case whole && readable && !res.Empty && res.OutputSamples < j.counted.Samples:
			whole = false // something of it is in the damaged block alone
			continue
		case res.Empty || res.OutputSamples <= written.Samples:
			return manifest.Block{}, false, nil
		default:
			j.restored(all, res, whole)
			b := res.Block
			b.NoCompact = j.Damaged.NoCompact
			return b, true, nil
		}
		inputs = slices.DeleteFunc(inputs, func(in merge.Input) bool { return in.Block.ULID == bad })
		whole = holdAll(inputs, j.Damaged.Sources)
		if bad == written.ULID {
			return manifest.Block{}, false, nil
		}
	}
	return manifest.Block{}, false, nil
}

func (j *job) merge(ctx context.Context, inputs []merge.Input) (*merge.Result, error) {
	d := &j.Damaged
	// What is lost of a source is lost with this block, whichever input had it: no older block may bring a part of it back.
	inputs = slices.Clone(inputs)
	inputs[0].Block.Sources = d.Sources
	cfg := merge.Config{
		Scratch: filepath.Join(j.dir, "merge"), MinFreeBytes: j.cfg.MinFreeBytes, MaxSymbolBytes: j.cfg.maxMemory(),
	}
	id := j.ULID // an earlier try may have left objects under another
	j.merges++
	id[len(id)-1] += j.merges
	return merge.Run(ctx, cfg, j.bkt, j.Tenant, merge.Job{
		ULID: id, Writer: j.Writer, Level: d.Level, Inputs: inputs, Deletions: j.Origins.deletions(inputs),
		DeletedThrough: d.Deleted, Labels: d.Labels, Shard: d.Shard,
	}, nil)
}

// restored corrects the report. What is lost is within what could not be read of the damaged block.
func (j *job) restored(inputs []merge.Input, res *merge.Result, whole bool) {
	r := j.report
	r.Restored = res.OutputSamples - min(res.OutputSamples, r.Recovered.Samples)
	for _, in := range inputs {
		if in.Block.ULID != j.ULID {
			r.RestoredFrom = append(r.RestoredFrom, in.Block.ULID.String())
		}
	}
	b := &res.Block
	r.Recovered = Count{Series: b.Series, Chunks: b.Chunks, Samples: b.Samples}
	if b.Samples >= j.counted.Samples && (j.counted.Samples > 0 || whole) {
		r.Lost, r.Covered, r.CoveredBy, r.Ranges, r.LostSeries, r.Unnamed = Count{}, Count{}, nil, nil, nil, 0
		r.SamplesExact, r.Lossless = true, true
		return
	}
	r.Lost.Series -= min(r.Lost.Series, b.Series-min(b.Series, j.read.Series))
	if j.counted.Samples > 0 {
		// Of the chunks that other blocks hold some may have been restored as well.
		r.Lost.Samples, r.SamplesExact = j.counted.Samples-b.Samples, r.Covered == Count{}
		r.Lost.Samples -= min(r.Lost.Samples, r.Covered.Samples)
	}
}

// nothingThere reports whether neither index nor chunks nor sidecar of a block are in the bucket.
func (f *folder) nothingThere() bool {
	for name, size := range f.files {
		_, segment := block.ParseSegmentName(name)
		if size > 0 && (segment || name == block.IndexName || name == block.SidecarName) {
			return false
		}
	}
	return true
}
