package manifest

import (
	"slices"
	"sort"

	"github.com/oklog/ulid/v2"
)

// Find returns the block with the given ULID, or false.
func (m *Manifest) Find(id ulid.ULID) (*Block, bool) {
	for i := range m.Blocks {
		if m.Blocks[i].ULID == id {
			return &m.Blocks[i], true
		}
	}
	return nil, false
}

// Knows reports whether m lists the block, covers it by another one, or remembers that it was removed.
func (m *Manifest) Knows(id ulid.ULID) bool {
	_, known := m.standing(id)
	return known
}

// Overlapping returns the blocks that can hold samples with mint ≤ t ≤ maxt, both inclusive, in milliseconds since the
// Unix epoch, in the order of the manifest. The slice is the caller's.
func (m *Manifest) Overlapping(mint, maxt int64) []Block {
	begun := sort.Search(len(m.Blocks), func(i int) bool { return m.Blocks[i].MinTime > maxt })
	var found []Block
	for i := range m.Blocks[:begun] {
		if b := &m.Blocks[i]; b.Overlaps(mint, maxt) {
			found = append(found, *b)
		}
	}
	return found
}

// standing says what m knows of a block: listed, covered by another one, or removed. known is false when it is new.
func (m *Manifest) standing(id ulid.ULID) (answer Added, known bool) {
	if b, ok := m.Find(id); ok {
		return Added{Version: b.AddedVersion}, true
	}
	for i := range m.Blocks {
		// A shard holds a part of its sources only.
		if m.Blocks[i].Shard == "" && slices.Contains(m.Blocks[i].Sources, id) {
			return Added{Version: m.Blocks[i].AddedVersion, Covered: true}, true
		}
	}
	for i := range m.Removed {
		if m.Removed[i].ULID == id {
			return Added{Version: m.Version, Covered: true}, true
		}
	}
	return Added{}, false
}
