package salvage

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/blockcheck"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/samplemerge"
)

// segmentBytes bounds a chunk file of the new block.
const segmentBytes = 64 << 20

// output is the new block on the local disk, in a folder that its name is of.
type output struct {
	ctx    context.Context //nolint:containedctx // lives as long as the salvage that writes
	dir    string
	dry    bool
	chunks *chunks.Writer
	index  *index.Writer
	ref    storage.SeriesRef
	stats  tsdb.BlockStats
}

func newOutput(ctx context.Context, dir string, dry bool) *output {
	return &output{ctx: ctx, dir: dir, dry: dry}
}

// begin takes the strings of all series that may come.
func (o *output) begin(symbols map[string]struct{}) (err error) {
	if o.dry {
		return nil
	}
	if err := os.MkdirAll(o.dir, 0o777); err != nil {
		return unavailable(err)
	}
	o.chunks, err = chunks.NewWriter(filepath.Join(o.dir, "chunks"), chunks.WithSegmentSize(segmentBytes))
	if err != nil {
		return unavailable(err)
	}
	if o.index, err = index.NewWriter(o.ctx, filepath.Join(o.dir, block.IndexName)); err != nil {
		return unavailable(err)
	}
	for _, s := range slices.Sorted(maps.Keys(symbols)) {
		if err := o.index.AddSymbol(s); err != nil {
			return unavailable(err)
		}
	}
	return nil
}

// add writes a series. Chunks that overlap one another become some that do not.
func (o *output) add(lset labels.Labels, chks []chunks.Meta) (err error) {
	slices.SortStableFunc(chks, func(a, b chunks.Meta) int {
		switch {
		case a.MinTime < b.MinTime:
			return -1
		case a.MinTime > b.MinTime:
			return 1
		default:
			return 0
		}
	})
	for i := range chks {
		if i > 0 && chks[i].MinTime <= chks[i-1].MaxTime {
			if chks, err = disentangled(lset, chks); err != nil {
				return err
			}
			break
		}
	}
	o.stats.NumSeries++
	for _, c := range chks {
		n := uint64(c.Chunk.NumSamples())
		o.stats.NumChunks++
		o.stats.NumSamples += n
		switch c.Chunk.Encoding() {
		case chunkenc.EncXOR, chunkenc.EncXOR2:
			o.stats.NumFloatSamples += n
		default:
			o.stats.NumHistogramSamples += n
		}
	}
	if o.dry {
		return nil
	}
	if err := o.chunks.WriteChunks(chks...); err != nil {
		return unavailable(err)
	}
	o.ref++
	return unavailable(o.index.AddSeries(o.ref, lset, chks...))
}

// disentangled merges chunks of which some overlap.
func disentangled(lset labels.Labels, chks []chunks.Meta) (out []chunks.Meta, err error) {
	sources := make([]storage.ChunkSeries, len(chks))
	for i, c := range chks {
		sources[i] = &storage.ChunkSeriesEntry{
			Lset:            lset,
			ChunkIteratorFn: func(chunks.Iterator) chunks.Iterator { return storage.NewListChunkSeriesIterator(c) },
		}
	}
	it := samplemerge.ChunkSeries(sources...).Iterator(nil)
	for it.Next() {
		out = append(out, it.At())
	}
	return out, it.Err()
}

// finish closes the files.
func (o *output) finish() error {
	var err error
	if o.chunks != nil {
		err = o.chunks.Close()
	}
	if o.index != nil {
		err = errors.Join(err, o.index.Close())
	}
	o.chunks, o.index = nil, nil
	return unavailable(err)
}

// abandon closes what is still open. The folder is the caller's to remove.
func (o *output) abandon() {
	_ = o.finish() // half an index closes with an error
}

// write makes a block of the output and sends it. meta is that of the damaged block, nil when it cannot be used.
func (j *job) write(ctx context.Context, out *output, meta *block.Meta) (manifest.Block, error) {
	if err := out.finish(); err != nil {
		return manifest.Block{}, err
	}
	d := &j.Damaged
	m := meta // with what other programs have noted in it
	if m == nil {
		var err error
		stock := tsdb.BlockMeta{ULID: j.ULID, MinTime: d.MinTime, MaxTime: d.MaxTime}
		if m, err = block.NewMeta(block.Description{Stock: stock, Labels: d.Labels, Shard: d.Shard}); err != nil {
			return manifest.Block{}, err
		}
	}
	external := maps.Clone(d.Labels)
	if m.Thanos != nil {
		external = maps.Clone(m.Thanos.Labels)
	}
	m.BlockMeta = tsdb.BlockMeta{ULID: j.ULID, MinTime: d.MinTime, MaxTime: d.MaxTime, Version: 1, Stats: out.stats}
	m.Compaction.Level, m.Compaction.Sources = d.Level, d.Sources
	m.Compaction.Parents = []tsdb.BlockDesc{{ULID: d.ULID, MinTime: d.MinTime, MaxTime: d.MaxTime}}
	if d.OutOfOrder {
		m.Compaction.SetOutOfOrder()
	}
	m.Duramen, m.Thanos = nil, nil
	if j.Dry {
		return m.ManifestBlock(0), nil
	}
	data, err := m.Marshal()
	if err != nil {
		return manifest.Block{}, err
	}
	if err := os.WriteFile(filepath.Join(out.dir, block.MetaName), data, 0o666); err != nil {
		return manifest.Block{}, unavailable(err)
	}
	b, err := block.UploadAs(ctx, j.bkt, j.Tenant, out.dir, block.Options{Writer: j.Writer, Labels: external})
	if err != nil {
		return manifest.Block{}, err
	}
	b.Labels, b.Shard, b.NoCompact = d.Labels, d.Shard, d.NoCompact
	return b, j.verify(ctx, b)
}

// verify reads the new block back.
func (j *job) verify(ctx context.Context, b manifest.Block) error {
	found, _, err := blockcheck.Gather(ctx, blockcheck.InBucket(j.bkt, j.Tenant, b.ULID), b.ULID, 1)
	if err != nil {
		return unavailable(err)
	}
	if len(found) > 0 {
		return errkind.New(errkind.Internal, "new block %s is not whole: %v", b.ULID, found[0])
	}
	if b.Series != j.read.Series || b.Chunks != j.read.Chunks || b.Samples != j.read.Samples {
		// Chunks that overlapped were merged; more than there was cannot come of it.
		if b.Series != j.read.Series || b.Samples > j.read.Samples {
			return fmt.Errorf("new block %s has %d series and %d samples of %d and %d that were read",
				b.ULID, b.Series, b.Samples, j.read.Series, j.read.Samples)
		}
	}
	return nil
}
