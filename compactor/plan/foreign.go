package plan

import (
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/manifest"
)

// foreignQuiet is how old the youngest block of a peer's compactor has to be for ours to work. Peers look for work every
// few minutes to an hour, and a tenant has some every two hours.
const foreignQuiet = 24 * time.Hour

// yieldToForeign gives up all jobs when a peer's compactor works on the tenant's blocks. Two that do not know of each other
// would merge the same blocks twice, and delete what the other counts on.
func (p *planner) yieldToForeign() {
	deleted := p.skipDeleted()
	b := p.foreign()
	if b == nil && !deleted {
		return
	}
	if b != nil {
		p.skipMerged(b)
	}
	p.plan.Jobs = []Job{}
	for i := range p.plan.Slots {
		if p.plan.Slots[i].State == StateReady {
			p.plan.Slots[i].State = StateHeld
		}
	}
}

// skipDeleted names the listed blocks that somebody else deletes, and reports whether there are any.
func (p *planner) skipDeleted() (found bool) {
	for i := range p.manifest.Blocks {
		b := &p.manifest.Blocks[i]
		what, deleted := p.limits.Foreign[b.ULID]
		if !deleted {
			continue
		}
		found = true
		p.skip(SkipForeignCompactor, "another program deletes what is listed and in no other block: "+what+"; nothing is compacted "+
			"here meanwhile: stop that program, then delete its mark or bring the block back. 24h later this one goes on", true, b)
		slot := aligned(b.MinTime, slotLength)
		p.slot(span{slot.mint, max(slot.maxt, b.MaxTime)}, StateHeld, max(slot.maxt, b.MaxTime, b.AddedAt), b)
	}
	return found
}

// skipMerged names a block that the compactor of a peer has made.
func (p *planner) skipMerged(b *manifest.Block) {
	again := ulid.Time(b.ULID.Time()).Add(foreignQuiet).UTC()
	p.skip(SkipForeignCompactor, fmt.Sprintf("another program's compactor wrote block %s at %s; nothing is compacted here "+
		"meanwhile: stop it, and this one goes on at %s", b.ULID, ulid.Time(b.ULID.Time()).UTC().Format(time.RFC3339),
		again.Format(time.RFC3339)), true, b)
}

// foreign returns the youngest block that a peer's compactor has made of blocks that we know, or after ours has begun to
// work, nil when there is none of late. A compacted block that somebody brought along from elsewhere is no such block.
func (p *planner) foreign() *manifest.Block {
	var youngest *manifest.Block
	for i := range p.manifest.Blocks {
		b := &p.manifest.Blocks[i]
		if b.Level > 1 && b.Writer == "" && p.recent(b) && (youngest == nil || b.ULID.Compare(youngest.ULID) > 0) {
			youngest = b
		}
	}
	if youngest == nil {
		return nil
	}
	known := map[ulid.ULID]struct{}{}
	for _, r := range p.manifest.Removed {
		known[r.ULID] = struct{}{}
	}
	for i := range p.manifest.Blocks {
		b := &p.manifest.Blocks[i]
		if b.FromCompactor() && b.ULID.Time() < youngest.ULID.Time() {
			return youngest
		}
		if b.Writer != "" {
			for _, source := range b.Sources {
				known[source] = struct{}{}
			}
		}
	}
	var found *manifest.Block
	for i := range p.manifest.Blocks {
		b := &p.manifest.Blocks[i]
		if b.Level <= 1 || b.Writer != "" || !p.recent(b) || found != nil && b.ULID.Compare(found.ULID) < 0 {
			continue
		}
		for _, source := range b.Sources {
			if _, ours := known[source]; ours {
				found = b
				break
			}
		}
	}
	return found
}

// recent reports whether a block was made of late. One that comes from a far future has a ULID that says nothing.
func (p *planner) recent(b *manifest.Block) bool {
	at, quiet := int64(b.ULID.Time()), foreignQuiet.Milliseconds()
	return at > p.now-quiet && at < p.now+quiet
}
