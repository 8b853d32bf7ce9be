package salvage

import (
	"cmp"
	"maps"
	"slices"

	"github.com/duramendb/duramen/chunkstore/manifest"
)

// maxNeighbours bounds the blocks in which lost chunks are looked for.
const maxNeighbours = 32

// Neighbours returns the listed blocks that may hold the same chunks as b: of the same external labels and the same part
// of the series, and of times that overlap, those that overlap most first.
func Neighbours(m *manifest.Manifest, b *manifest.Block) (others []manifest.Block) {
	for i := range m.Blocks {
		o := &m.Blocks[i]
		if o.ULID != b.ULID && o.Shard == b.Shard && maps.Equal(o.Labels, b.Labels) && shared(o, b) > 0 {
			others = append(others, *o)
		}
	}
	slices.SortStableFunc(others, func(x, y manifest.Block) int { return cmp.Compare(shared(&y, b), shared(&x, b)) })
	return others[:min(len(others), maxNeighbours)]
}

// shared is how many milliseconds both blocks have in common.
func shared(a, b *manifest.Block) int64 { return min(a.MaxTime, b.MaxTime) - max(a.MinTime, b.MinTime) }
