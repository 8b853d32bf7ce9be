package compactor

import (
	"context"
	"errors"
	"slices"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/compactor/merge"
)

// workIn names with each input the deletions that concern it and returns their IDs, sorted: the output has then been
// through every deletion that the manifest knows.
func workIn(m *manifest.Manifest, job *merge.Job) (applied []uint64) {
	known := map[uint64]struct{}{}
	for i := range job.Inputs {
		in := &job.Inputs[i]
		for _, d := range m.DeletionsOf(&in.Block) {
			if _, twice := known[d.ID]; !twice {
				known[d.ID] = struct{}{}
				job.Deletions = append(job.Deletions, d)
				applied = append(applied, d.ID)
			}
			in.Deletions = append(in.Deletions, d.ID)
		}
	}
	slices.Sort(applied)
	return applied
}

// pending tells of each deletion of a manifest whether it still concerns some block. It passes once over the blocks,
// however many deletions they have been through.
func pending(m *manifest.Manifest) []bool {
	concerns := make([]bool, len(m.Deletions))
	for left, i := len(concerns), 0; left > 0 && i < len(m.Blocks); i++ {
		b := &m.Blocks[i]
		for n := m.FirstUnseen(b); n < len(concerns); n++ {
			if !concerns[n] && m.Deletions[n].Concerns(b) {
				concerns[n] = true
				left--
			}
		}
	}
	return concerns
}

// forget takes deletions out of the manifest that are worked into all blocks and old enough.
func (c *Compactor) forget(ctx context.Context, m *manifest.Manifest) (*manifest.Manifest, error) {
	oldest := c.now().Add(-manifest.RememberDeletions).UnixMilli()
	var done []uint64
	for i, concerns := range pending(m) {
		if d := &m.Deletions[i]; d.CreatedAt < oldest && !concerns {
			done = append(done, d.ID)
		}
	}
	if _, here := c.cluster.Owner(m.Tenant); len(done) == 0 || !here {
		return m, nil
	}
	err := c.manifests.ForgetDeletions(ctx, m.Tenant, done...)
	if err != nil && !errors.Is(err, manifest.ErrConflict) {
		return m, err
	}
	return c.known(m), nil
}
