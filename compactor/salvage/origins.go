package salvage

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/compactor/merge"
	"github.com/duramendb/duramen/internal/errkind"
)

// Origins are blocks that a block was made of.
type Origins struct {
	// Inputs name the deletions that were worked into the block.
	Inputs    []merge.Input
	Deletions []manifest.Deletion
}

// FindOrigins returns the blocks that b was made of and that left the manifest for it, as far as they are still in the
// bucket, with the deletions that were worked into b. They lie there for two hours after the swap, and for as long as objects
// of b are missing. What a listing shows of them is believed; whoever reads them has to be ready for damage.
//
// There are none when a deletion may have been forgotten that b knows: what it meant must not come back. now is in
// milliseconds since the Unix epoch.
func FindOrigins(
	ctx context.Context, bkt bucket.Bucket, m *manifest.Manifest, b *manifest.Block, now int64,
) (found Origins, _ error) {
	if forgotten(m, b, now) {
		return found, nil
	}
	for _, r := range m.Removed {
		if r.Dropped || r.ULID == b.ULID || r.RemovedAt != b.AddedAt && !slices.Contains(b.Sources, r.ULID) {
			continue
		}
		in, err := input(ctx, bkt, m, b, r.ULID)
		if err != nil {
			return Origins{}, fmt.Errorf("look for block %s, of which %s was made: %w", r.ULID, b.ULID, err)
		}
		if in != nil {
			found.Inputs = append(found.Inputs, *in)
		}
	}
	found.Deletions = m.Deletions
	return found, nil
}

// deletions returns those that the inputs name.
func (o *Origins) deletions(inputs []merge.Input) []manifest.Deletion {
	var named []manifest.Deletion
	for i := range o.Deletions {
		d := &o.Deletions[i]
		if slices.ContainsFunc(inputs, func(in merge.Input) bool { return slices.Contains(in.Deletions, d.ID) }) {
			named = append(named, *d)
		}
	}
	return named
}

// forgotten reports whether samples in the range of b may have been deleted of which the manifest knows nothing any more. A
// deletion is remembered for RememberDeletions and concerns nothing younger than itself.
func forgotten(m *manifest.Manifest, b *manifest.Block, now int64) bool {
	if b.MinTime >= now-manifest.RememberDeletions.Milliseconds() {
		return false
	}
	known := uint64(0)
	for i := range m.Deletions {
		if m.Deletions[i].ID <= b.Deleted {
			known++
		}
	}
	return known < b.Deleted
}

// input returns nil when the block is not one that b was made of, or not there.
func input(
	ctx context.Context, bkt bucket.Bucket, m *manifest.Manifest, b *manifest.Block, id ulid.ULID,
) (*merge.Input, error) {
	err := block.Verify(ctx, bkt, m.Tenant, id)
	if errors.Is(err, block.ErrNoMeta) || errors.Is(err, block.ErrIncomplete) || errkind.Of(err) == errkind.Corrupt {
		return nil, nil //nolint:nilnil // it is of no use
	}
	if err != nil {
		return nil, unavailable(err)
	}
	meta, err := block.FetchMeta(ctx, bkt, m.Tenant, id)
	if err != nil {
		return nil, unavailable(err)
	}
	entry := meta.ManifestBlock(0)
	if entry.Shard != b.Shard || !maps.Equal(entry.Labels, b.Labels) || entry.MinTime < b.MinTime || b.MaxTime < entry.MaxTime {
		return nil, nil //nolint:nilnil // as above
	}
	if slices.ContainsFunc(entry.Sources, func(s ulid.ULID) bool { return !slices.Contains(b.Sources, s) }) {
		return nil, nil //nolint:nilnil // as above
	}
	in := &merge.Input{Block: entry}
	for _, d := range m.DeletionsOf(&entry) {
		if d.ID <= b.Deleted { // the others still concern b, and will concern what takes its place
			in.Deletions = append(in.Deletions, d.ID)
		}
	}
	return in, nil
}

// holdAll reports whether the inputs have all of the sources.
func holdAll(inputs []merge.Input, sources []ulid.ULID) bool {
	held := map[ulid.ULID]struct{}{}
	for i := range inputs {
		for _, s := range inputs[i].Block.Sources {
			held[s] = struct{}{}
		}
	}
	return !slices.ContainsFunc(sources, func(s ulid.ULID) bool {
		_, ok := held[s]
		return !ok
	})
}
