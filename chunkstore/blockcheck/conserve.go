package blockcheck

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
)

// Uncovered is a block in the bucket that is in no manifest, and of whose samples some are in no block that is.
type Uncovered struct {
	Block ulid.ULID `json:"block"`
	// Removed is set when the manifest remembers that the block left: its samples should have stayed.
	Removed bool `json:"removed"`
	// Sources are those of the block's sources that no listed block has.
	Sources []ulid.ULID `json:"sources"`
	// Newest is when the block's youngest object was written, by the store's clock. A young block may be on its way into
	// the manifest.
	Newest time.Time `json:"newest"`
	// Fault is set instead of Sources when meta.json cannot be read, so that nobody knows.
	Fault string `json:"fault,omitempty"`
}

// Uncovered accounts for the samples of all blocks that lie in the bucket and are not listed, by the sources that their
// meta.json names: each has to be in a listed block or to be gone on purpose. It returns those of which that is not so, in
// the order of time. Blocks without meta.json, and those that Thanos has thinned out, hold nothing that counts. It costs
// a read of each unlisted block's meta.json. An error is one of the bucket.
func (inv *Inventory) Uncovered(ctx context.Context, bkt bucket.Bucket, tenantID string) ([]Uncovered, error) {
	held, dropped := inv.held()
	var found []Uncovered
	for _, id := range inv.Unlisted() {
		u := Uncovered{Block: id, Removed: inv.Removed(id), Newest: inv.Blocks[id].Newest}
		if _, gone := dropped[id]; gone {
			continue
		}
		m, err := block.FetchMeta(ctx, bkt, tenantID, id)
		switch {
		case errors.Is(err, block.ErrNoMeta):
			continue
		case errkind.Of(err) == errkind.Corrupt:
			u.Fault = err.Error()
			found = append(found, u)
			continue
		case err != nil:
			return nil, fmt.Errorf("account for block %s of tenant %s: %w", id, tenantID, err)
		case m.Thanos != nil && m.Thanos.Downsample.Resolution > 0:
			continue
		}
		b := m.ManifestBlock(0)
		for _, source := range b.Sources {
			if _, gone := dropped[source]; !gone && !isHeld(held[source], b.Shard) {
				u.Sources = append(u.Sources, source)
			}
		}
		if len(u.Sources) > 0 && !isHeld(held[id], b.Shard) {
			found = append(found, u)
		}
	}
	return found, nil
}

// held returns in blocks of which shards each source is, and which were to go with their samples.
func (inv *Inventory) held() (held map[ulid.ULID][]string, dropped map[ulid.ULID]struct{}) {
	held, dropped = map[ulid.ULID][]string{}, map[ulid.ULID]struct{}{}
	for i := range inv.Manifest.Blocks {
		b := &inv.Manifest.Blocks[i]
		for _, source := range b.Sources {
			held[source] = append(held[source], b.Shard)
		}
	}
	for _, r := range inv.Manifest.Removed {
		if r.Dropped {
			dropped[r.ULID] = struct{}{}
		}
	}
	return held, dropped
}

// isHeld reports whether a shard's part is in one of the shards' blocks; of the whole any part stands for all, since how
// many parts there are nobody says.
func isHeld(shards []string, shard string) bool {
	return len(shards) > 0 && (shard == "" || slices.Contains(shards, "") || slices.Contains(shards, shard))
}

// Twice returns the sources that more than one listed block of the same shard has, in order. That does no harm to queries,
// which show equal samples once, and costs space until the blocks are merged.
func Twice(m *manifest.Manifest) []ulid.ULID {
	type part struct {
		source ulid.ULID
		shard  string
	}
	seen, twice := map[part]struct{}{}, map[ulid.ULID]struct{}{}
	var found []ulid.ULID
	for i := range m.Blocks {
		for _, source := range m.Blocks[i].Sources {
			p := part{source, m.Blocks[i].Shard}
			if _, before := seen[p]; !before {
				seen[p] = struct{}{}
				continue
			}
			if _, known := twice[source]; !known {
				twice[source] = struct{}{}
				found = append(found, source)
			}
		}
	}
	slices.SortFunc(found, ulid.ULID.Compare)
	return found
}
