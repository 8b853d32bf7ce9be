package manifest

import (
	"cmp"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/internal/errkind"
)

// IngesterWriter begins the Writer of each block that an ingester of ours has made.
const IngesterWriter = "ingester/"

// Deletion names samples that are to be hidden from queries at once and taken out of the blocks later: those of series
// that match a selector, with MinTime ≤ t ≤ MaxTime, that were there when it was asked for. What somebody puts into the
// bucket later is not meant, but what ingesters ship is: they keep what they have until they ship it.
type Deletion struct {
	// ID counts from 1 in each tenant and is never given out twice.
	ID uint64 `json:"id"`
	// Selectors are PromQL series selectors. A series is meant when it matches one of them.
	Selectors []string `json:"selectors"`
	// MinTime and MaxTime are both inclusive, in milliseconds since the Unix epoch. MaxTime is CreatedAt at most.
	MinTime int64 `json:"min_time"`
	MaxTime int64 `json:"max_time"`
	// CreatedAt is in milliseconds since the Unix epoch.
	CreatedAt int64 `json:"created_at"`
	// Urgent asks for it to be worked into the blocks without the usual delay.
	Urgent bool `json:"urgent,omitempty"`
}

// Concerns reports whether the block can hold samples that d means, as far as the manifest knows. Which series it has is
// not looked at. A block of ours does unless d is worked in; one of somebody else's when a part of it is as old as d.
func (d *Deletion) Concerns(b *Block) bool {
	return d.ID > b.Deleted && b.Overlaps(d.MinTime, d.MaxTime) &&
		(b.FromIngester() || b.FromCompactor() || b.madeBy(d.CreatedAt))
}

// FromIngester reports whether an ingester of ours has made the block.
func (b *Block) FromIngester() bool { return strings.HasPrefix(b.Writer, IngesterWriter) }

// madeBy reports whether a part of the block was made at t, in milliseconds since the Unix epoch, or before it.
func (b *Block) madeBy(t int64) bool {
	for _, source := range b.Sources {
		if int64(source.Time()) <= t { //nolint:gosec // a ULID's time has 48 bits
			return true
		}
	}
	return len(b.Sources) == 0 && int64(b.ULID.Time()) <= t //nolint:gosec // as above
}

// DeletionsOf returns the deletions that the block can hold samples of, by ID. The slice is the caller's.
func (m *Manifest) DeletionsOf(b *Block) []Deletion {
	var found []Deletion
	for i := m.FirstUnseen(b); i < len(m.Deletions); i++ {
		if m.Deletions[i].Concerns(b) {
			found = append(found, m.Deletions[i])
		}
	}
	return found
}

// FirstUnseen returns the place in Deletions of the first that is not worked into the block; none before it concerns it.
func (m *Manifest) FirstUnseen(b *Block) int {
	i, worked := slices.BinarySearchFunc(m.Deletions, b.Deleted, func(d Deletion, id uint64) int { return cmp.Compare(d.ID, id) })
	if worked {
		i++
	}
	return i
}

// DeletionsIn returns the deletions of times that touch mint ≤ t ≤ maxt, both inclusive, by ID. They are those that
// concern samples which are in no block yet. The slice is the caller's.
func (m *Manifest) DeletionsIn(mint, maxt int64) []Deletion {
	var found []Deletion
	for _, d := range m.Deletions {
		if d.MinTime <= maxt && mint <= d.MaxTime {
			found = append(found, d)
		}
	}
	return found
}

// Pending returns the listed blocks that a deletion still concerns, in the order of the manifest. There are none when it
// is done, or unknown.
func (m *Manifest) Pending(id uint64) []ulid.ULID {
	d, ok := m.findDeletion(id)
	if !ok {
		return nil
	}
	var blocks []ulid.ULID
	for i := range m.Blocks {
		if d.Concerns(&m.Blocks[i]) {
			blocks = append(blocks, m.Blocks[i].ULID)
		}
	}
	return blocks
}

func (m *Manifest) findDeletion(id uint64) (*Deletion, bool) {
	i, ok := slices.BinarySearchFunc(m.Deletions, id, func(d Deletion, id uint64) int { return cmp.Compare(d.ID, id) })
	if !ok {
		return nil, false
	}
	return &m.Deletions[i], true
}

// validate says whether d may stand in a manifest, its ID apart. Whether the selectors are selectors is not looked at.
func (d *Deletion) validate() error {
	switch {
	case len(d.Selectors) == 0 || slices.Contains(d.Selectors, ""):
		return errkind.New(errkind.Invalid, "deletion %d has no selector", d.ID)
	case d.MinTime > d.MaxTime:
		return errkind.New(errkind.Invalid, "deletion %d: min time %d is above max time %d", d.ID, d.MinTime, d.MaxTime)
	case d.MaxTime > d.CreatedAt:
		return errkind.New(errkind.Invalid, "deletion %d: max time %d is above the time of creation %d",
			d.ID, d.MaxTime, d.CreatedAt)
	default:
		return nil
	}
}
