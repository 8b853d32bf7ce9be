package reconcile

import (
	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/manifest"
)

// coverage says in which shards of which blocks the samples of each source are.
type coverage struct {
	shards  map[ulid.ULID]map[string]struct{}
	dropped map[ulid.ULID]struct{} // sources whose samples are gone on purpose
}

func newCoverage(removed []manifest.RemovedBlock) *coverage {
	c := &coverage{shards: map[ulid.ULID]map[string]struct{}{}, dropped: map[ulid.ULID]struct{}{}}
	for _, r := range removed {
		if r.Dropped {
			c.dropped[r.ULID] = struct{}{}
		}
	}
	return c
}

func (c *coverage) add(b *manifest.Block) {
	for _, source := range b.Sources {
		if c.shards[source] == nil {
			c.shards[source] = map[string]struct{}{}
		}
		c.shards[source][b.Shard] = struct{}{}
	}
}

// holds reports whether the shard's part of a source is in one of the blocks.
func (c *coverage) holds(source ulid.ULID, shard string) bool {
	in := c.shards[source]
	if _, whole := in[""]; whole {
		return true
	}
	_, ok := in[shard]
	return ok
}

// holdsPart is as holds, and takes any shard for a part of the whole: how many there are nobody says.
func (c *coverage) holdsPart(source ulid.ULID, shard string) bool {
	return c.holds(source, shard) || shard == "" && len(c.shards[source]) > 0
}

// covers reports whether all samples of b are in the blocks, or gone on purpose.
func (c *coverage) covers(b *manifest.Block) bool {
	if c.holds(b.ULID, b.Shard) {
		return true // something was made of it
	}
	for _, source := range b.Sources {
		if _, gone := c.dropped[source]; !gone && !c.holds(source, b.Shard) {
			return false
		}
	}
	return true
}

// replaced reports whether the samples of a block that is marked for deletion are in the blocks, as far as can be told.
func (c *coverage) replaced(b *manifest.Block) bool {
	for _, source := range b.Sources {
		if !c.holdsPart(source, b.Shard) {
			return false
		}
	}
	return true
}
