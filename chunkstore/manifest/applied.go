package manifest

import (
	"slices"
)

// checkDeletions makes sure that a compactor's outputs show to queries what its inputs show, and nothing else, and that
// no deletion is worked in that was cancelled.
func (e *exchange) checkDeletions(m *Manifest, inputs []Block) error {
	for _, id := range e.Applied {
		if _, there := m.findDeletion(id); !there {
			return conflict("deletion %d, which it has worked in, is not in the manifest any more", id)
		}
	}
	for i := range e.Add {
		b := e.Add[i]
		if b.Deleted > 0 && b.Deleted >= m.NextDeletion {
			return conflict("deletion %d, which block %s has worked in, is not in the manifest yet", b.Deleted, b.ULID)
		}
		if !b.FromCompactor() {
			continue
		}
		b.Deleted = m.deletedThrough(&b, inputs)
		for j := range m.Deletions {
			if err := e.checkDeletion(&m.Deletions[j], &b, inputs); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *exchange) checkDeletion(d *Deletion, output *Block, inputs []Block) error {
	applied, concerned := slices.Contains(e.Applied, d.ID), d.Concerns(output)
	for i := range inputs {
		input := &inputs[i]
		if !input.Overlaps(max(d.MinTime, output.MinTime), min(d.MaxTime, output.MaxTime-1)) {
			continue
		}
		switch before := d.Concerns(input); {
		case before && !concerned && !applied:
			return conflict("deletion %d, which concerns block %s, would not concern output %s", d.ID, input.ULID, output.ULID)
		case !before && concerned && input.Deleted < d.ID:
			return conflict("deletion %d, which does not concern block %s, would concern output %s", d.ID, input.ULID, output.ULID)
		}
	}
	return nil
}

// deletedThrough returns Deleted of a block that is to be listed: that which its maker has set or, for an output of a
// compactor, more, as long as the deletions that follow concern none of its inputs. Their samples were not meant, and
// in a block of ours they would be.
func (m *Manifest) deletedThrough(output *Block, inputs []Block) uint64 {
	through := output.Deleted
	if !output.FromCompactor() || m.NextDeletion == 0 {
		return through
	}
	for i := range m.Deletions {
		d := &m.Deletions[i]
		if d.ID <= through {
			continue
		}
		if slices.ContainsFunc(inputs, func(b Block) bool { return d.Concerns(&b) }) {
			return d.ID - 1
		}
	}
	return m.NextDeletion - 1
}
