package manifest

import (
	"github.com/oklog/ulid/v2"
)

// knowledge answers by ULID what standing answers for one, without a walk each time.
type knowledge struct {
	places   map[ulid.ULID]int // in Blocks
	holdings holdings
	removed  map[ulid.ULID]bool // true: dropped
}

func (m *Manifest) known() *knowledge {
	k := &knowledge{places: m.places(), holdings: newHoldings(), removed: make(map[ulid.ULID]bool, len(m.Removed))}
	for i := range m.Blocks {
		k.holdings.add(&m.Blocks[i])
	}
	for i := range m.Removed {
		k.removed[m.Removed[i].ULID] = m.Removed[i].Dropped
	}
	return k
}

// places returns where in Blocks each block is.
func (m *Manifest) places() map[ulid.ULID]int {
	places := make(map[ulid.ULID]int, len(m.Blocks))
	for i := range m.Blocks {
		places[m.Blocks[i].ULID] = i
	}
	return places
}

// knows is as Manifest.Knows.
func (k *knowledge) knows(id ulid.ULID) bool {
	if _, listed := k.places[id]; listed || k.holdings.has(id, "") {
		return true
	}
	_, removed := k.removed[id]
	return removed
}

// holdings are which sources are in which shards of some blocks.
type holdings map[ulid.ULID][]string

func newHoldings() holdings { return holdings{} }

func (h holdings) add(b *Block) {
	for _, source := range b.Sources {
		h[source] = append(h[source], b.Shard)
	}
}

// has reports whether the shard's part of the source is in one block.
func (h holdings) has(source ulid.ULID, shard string) bool {
	for _, s := range h[source] {
		if s == "" || s == shard {
			return true
		}
	}
	return false
}

// hasPart is as has, and takes any shard for a part of the whole: how many there are nobody says.
func (h holdings) hasPart(source ulid.ULID, shard string) bool {
	return h.has(source, shard) || shard == "" && len(h[source]) > 0
}
