package compactor

import (
	"context"
	"errors"
	"slices"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/tombstone"
	"github.com/duramendb/duramen/compactor/merge"
)

// workIn adds to each input the deletions that concern it and returns their IDs, sorted: the output has then been through
// every deletion that the manifest knows.
func workIn(m *manifest.Manifest, inputs []merge.Input) (applied []uint64, _ error) {
	parsed := map[uint64]merge.Deletion{}
	for i := range inputs {
		for _, d := range m.DeletionsOf(&inputs[i].Block) {
			p, known := parsed[d.ID]
			if !known {
				matchers, err := tombstone.Matchers(&d)
				if err != nil {
					return nil, err
				}
				p = merge.Deletion{Matchers: matchers, MinTime: d.MinTime, MaxTime: d.MaxTime}
				parsed[d.ID] = p
				applied = append(applied, d.ID)
			}
			inputs[i].Deletions = append(inputs[i].Deletions, p)
		}
	}
	slices.Sort(applied)
	return applied, nil
}

// forget takes deletions out of the manifest that are worked into all blocks and old enough.
func (c *Compactor) forget(ctx context.Context, m *manifest.Manifest) (*manifest.Manifest, error) {
	oldest := c.now().Add(-manifest.RememberDeletions).UnixMilli()
	var done []uint64
	for _, d := range m.Deletions {
		if d.CreatedAt < oldest && len(m.Pending(d.ID)) == 0 {
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
