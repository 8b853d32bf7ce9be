package manifest

import (
	"cmp"
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/internal/errkind"
)

// withBlocks returns the version behind m that lists the given blocks as well, and the answer to each of them. Blocks
// that m knows already, be it as listed, covered or removed, change nothing; when all are known, m itself is returned.
// addedAt is in milliseconds since the Unix epoch.
func (m *Manifest) withBlocks(blocks []Block, addedAt int64, swapID string) (*Manifest, []Added) {
	next := &Manifest{
		Tenant:  m.Tenant,
		Version: m.Version + 1,
		SwapID:  swapID,
		Blocks:  slices.Clone(m.Blocks),
		Removed: m.Removed,
		Lost:    m.Lost,
	}
	answers, changed := make([]Added, len(blocks)), false
	for i, b := range blocks {
		// Asked of next, for one batch may hold a block twice.
		if answer, known := next.standing(b.ULID); known {
			if answer.Version == next.Version && !changed {
				answer.Version = m.Version // a removal is remembered by m already
			}
			answers[i] = answer
			continue
		}
		b.AddedAt, b.AddedVersion = addedAt, next.Version
		next.Blocks = append(next.Blocks, b)
		answers[i], changed = Added{Version: next.Version}, true
	}
	if !changed {
		return m, answers
	}
	slices.SortFunc(next.Blocks, compareBlocks)
	return next, answers
}

// compareBlocks is the order of Manifest.Blocks.
func compareBlocks(a, b Block) int {
	return cmp.Or(cmp.Compare(a.MinTime, b.MinTime), a.ULID.Compare(b.ULID))
}

// validate says whether the block may stand in a manifest.
func (b *Block) validate() error {
	switch {
	case b.ULID == ulid.ULID{}:
		return errkind.New(errkind.Invalid, "block has no ULID")
	case b.MinTime > b.MaxTime:
		return errkind.New(errkind.Invalid, "block %s: min time %d is above max time %d", b.ULID, b.MinTime, b.MaxTime)
	case b.Level < 1:
		return errkind.New(errkind.Invalid, "block %s: level is %d; it counts from 1", b.ULID, b.Level)
	case b.SizeBytes < 0:
		return errkind.New(errkind.Invalid, "block %s: size is %d bytes", b.ULID, b.SizeBytes)
	case b.DirectoryBytes < 0 || b.DirectoryBytes > b.SidecarBytes || (b.DirectoryBytes == 0) != (b.SidecarBytes == 0):
		return errkind.New(errkind.Invalid, "block %s: directory of %d bytes in a sidecar of %d bytes",
			b.ULID, b.DirectoryBytes, b.SidecarBytes)
	}
	if _, unnamed := b.Labels[""]; unnamed {
		return errkind.New(errkind.Invalid, "block %s: external label without a name", b.ULID)
	}
	return nil
}
