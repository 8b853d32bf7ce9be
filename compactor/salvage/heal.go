package salvage

import (
	"bytes"
	"context"
	"maps"
	"slices"

	"github.com/prometheus/prometheus/tsdb"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
)

// heal writes meta.json again, of a block whose other objects are whole.
func (j *job) heal(ctx context.Context, f *folder) error {
	if j.Dry {
		return nil
	}
	return putMeta(ctx, j.bkt, j.Tenant, &j.Damaged, f.files)
}

// HealMeta writes the meta.json of a listed block again, when it is missing and the other objects have the size that the
// manifest knows. It reports whether it did; when not, the block is whole, or needs Run.
func HealMeta(ctx context.Context, bkt bucket.Bucket, tenant string, b manifest.Block) (bool, error) {
	f, err := openFolder(ctx, bkt, tenant, b.ULID, "", false)
	if err != nil {
		return false, err
	}
	if _, there := f.files[block.MetaName]; there {
		return false, nil
	}
	data := f.dataBytes()
	segments := 0
	for n := range f.segments() {
		if f.segmentSize(uint32(n)) == 0 {
			return false, nil
		}
		segments++
	}
	// The manifest knows the size of all objects but the sidecar, meta.json included, which has some hundred bytes.
	missing := b.SizeBytes - data
	if f.files[block.IndexName] == 0 || segments == 0 && b.Chunks > 0 || missing <= 0 || missing > maxMetaGuess+sourceBytes*int64(len(b.Sources)) {
		return false, nil
	}
	return true, putMeta(ctx, bkt, tenant, &b, f.files)
}

const (
	// maxMetaGuess is the most that a meta.json takes that lists no more than a few objects; sourceBytes is what a source
	// adds, named as a source and as a parent.
	maxMetaGuess = 8 << 10
	sourceBytes  = 256
)

// dataBytes returns the size of index and chunks.
func (f *folder) dataBytes() (sum int64) {
	for name, size := range f.files {
		if _, segment := block.ParseSegmentName(name); segment || name == block.IndexName {
			sum += size
		}
	}
	return sum
}

// putMeta writes the meta.json of a listed block, by what the manifest says of it and by what lies in its folder.
func putMeta(ctx context.Context, bkt bucket.Bucket, tenant string, b *manifest.Block, sizes map[string]int64) error {
	d := block.Description{
		Stock:  tsdb.BlockMeta{ULID: b.ULID, MinTime: b.MinTime, MaxTime: b.MaxTime},
		Writer: b.Writer, Labels: b.Labels, Shard: b.Shard,
	}
	d.Stock.Stats = tsdb.BlockStats{NumSeries: b.Series, NumSamples: b.Samples, NumChunks: b.Chunks}
	d.Stock.Compaction.Level, d.Stock.Compaction.Sources = b.Level, b.Sources
	if b.OutOfOrder {
		d.Stock.Compaction.SetOutOfOrder()
	}
	for _, name := range slices.Sorted(maps.Keys(sizes)) {
		if _, segment := block.ParseSegmentName(name); segment || name == block.IndexName {
			d.Files = append(d.Files, block.File{Name: name, SizeBytes: sizes[name]})
		}
	}
	m, err := block.NewMeta(d)
	if err != nil {
		return err
	}
	if b.Writer == "" {
		m.Duramen = nil
	}
	data, err := m.Marshal()
	if err != nil {
		return err
	}
	// Of the size that the manifest expects, where that is possible: space at the end changes nothing in JSON.
	total := int64(len(data))
	for _, f := range m.Thanos.Files {
		total += f.SizeBytes
	}
	if short := b.SizeBytes - total; short > 0 && short < maxMetaGuess+sourceBytes*int64(len(b.Sources)) {
		data = append(data, bytes.Repeat([]byte("\n"), int(short))...)
	}
	key := block.Key(tenant, b.ULID, block.MetaName)
	if err := bkt.Put(ctx, key, bytes.NewReader(data), int64(len(data))); err != nil {
		return unavailable(err)
	}
	back, err := block.FetchMeta(ctx, bkt, tenant, b.ULID)
	if err != nil {
		return err
	}
	if own := back.ManifestBlock(int64(len(data))); own.Samples != b.Samples || own.Shard != b.Shard {
		return errkind.New(errkind.Unavailable, "meta.json of block %s is not what was written", b.ULID)
	}
	return nil
}
