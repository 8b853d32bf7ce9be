package manifest

import (
	"cmp"
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/internal/errkind"
)

// edit is one wish for the next version.
type edit interface {
	// apply works the wish into the draft. A wish that is fulfilled already changes nothing, which is how it can be
	// repeated; one that cannot be fulfilled is an error, and changes nothing either.
	apply(d *draft) (Added, error)
}

// draft is a version in the making.
type draft struct {
	base, next *Manifest
	at         int64 // in milliseconds since the Unix epoch
	changed    bool

	added, replaced, dropped int // blocks, for the metrics
}

// draft begins the version behind m.
func (m *Manifest) draft(at int64, swapID string) *draft {
	return &draft{base: m, at: at, next: &Manifest{
		Tenant:  m.Tenant,
		Version: m.Version + 1,
		SwapID:  swapID,
		Blocks:  slices.Clone(m.Blocks),
		Removed: slices.Clip(m.Removed), // so that appending copies
		Lost:    slices.Clip(m.Lost),

		Deletions:    slices.Clip(m.Deletions),
		NextDeletion: m.NextDeletion,
		Doomed:       m.Doomed, // never written to: an edit puts another one in its place
	}}
}

// applyAll works all edits in, in their order, and returns what became of each.
func (d *draft) applyAll(edits []edit) []result {
	results := make([]result, len(edits))
	for i, e := range edits {
		results[i].added, results[i].err = e.apply(d)
	}
	return results
}

// finished returns the new version, or the base when there is nothing new.
func (d *draft) finished() *Manifest {
	if !d.changed {
		return d.base
	}
	slices.SortFunc(d.next.Blocks, compareBlocks)
	return d.next
}

// version returns the first version that has all that was worked in so far.
func (d *draft) version() uint64 {
	if d.changed {
		return d.next.Version
	}
	return d.base.Version
}

// list appends a block.
func (d *draft) list(b Block) {
	b.AddedAt, b.AddedVersion = d.at, d.next.Version
	d.next.Blocks = append(d.next.Blocks, b)
	d.changed = true
	d.added++
}

// addition lists a block unless it is known, be it as listed, covered or removed.
type addition struct{ block Block }

func (e addition) apply(d *draft) (Added, error) {
	answer, known := d.next.standing(e.block.ULID)
	if !known && d.next.Bygone(&e.block) {
		return Added{Version: d.version(), Covered: true}, nil
	}
	if !known {
		d.list(e.block)
		return Added{Version: d.next.Version}, nil
	}
	return Added{Version: min(answer.Version, d.version()), Covered: answer.Covered}, nil
}

// compareBlocks is the order of Manifest.Blocks.
func compareBlocks(a, b Block) int {
	return cmp.Or(cmp.Compare(a.MinTime, b.MinTime), a.ULID.Compare(b.ULID))
}

// prepared returns the block as it may be listed, its sources being its own.
func (b Block) prepared() (Block, error) {
	if err := b.validate(); err != nil {
		return Block{}, err
	}
	b.Sources = slices.Clone(b.Sources)
	if len(b.Sources) == 0 {
		b.Sources = []ulid.ULID{b.ULID}
	}
	if len(b.Labels) == 0 {
		b.Labels = nil
	}
	return b, nil
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
	case b.IndexBytes < 0 || b.IndexBytes > b.SizeBytes:
		return errkind.New(errkind.Invalid, "block %s: index of %d bytes in a block of %d bytes",
			b.ULID, b.IndexBytes, b.SizeBytes)
	}
	if _, unnamed := b.Labels[""]; unnamed {
		return errkind.New(errkind.Invalid, "block %s: external label without a name", b.ULID)
	}
	return validateSidecar(b.ULID, b.SidecarBytes, b.DirectoryBytes)
}

func validateSidecar(id ulid.ULID, sidecar, directory int64) error {
	if directory < 0 || directory > sidecar || (directory == 0) != (sidecar == 0) {
		return errkind.New(errkind.Invalid, "block %s: directory of %d bytes in a sidecar of %d bytes", id, directory, sidecar)
	}
	return nil
}
