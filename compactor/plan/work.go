package plan

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/duramendb/duramen/chunkstore/manifest"
)

// Late data is merged into what was merged before by these rules. Each merge writes all of it again, so that the parts are
// compared: one that has grown by a quarter is worth it at once, as then all merges together cost at most five times what
// they bring in.
const (
	lateMuch     = 4   // one part in so many: at once
	lateSome     = 100 // one part in so many: once a day
	lateOverlaps = 5   // more blocks than that at one time: a query pays for each

	// lateWait is how old what was merged has to be for some late data, and how long little of it has to have been quiet.
	lateWait = dayLength
	// lateQuiet is how long nothing more of a day has come before what came late counts as all there is, lateLongest how long
	// that is waited for at most: old data that is sent slot after slot is written once, and not each time again. Where
	// nothing has been merged of the day, firstQuiet will do: should more follow, then little was written in vain.
	lateQuiet   = int64(2 * time.Hour / time.Millisecond)
	lateLongest = dayLength / 2
	firstQuiet  = int64(time.Minute / time.Millisecond)

	// lateForGood is how long after its end a day waits for more late data before it becomes one block.
	lateForGood = 7 * dayLength
)

// work is a job in the making.
type work struct {
	kind   Kind
	inputs []*manifest.Block
	reason string
	level  int   // at least
	since  int64 // since when it should have been done, as in Slot.Since

	deletions []manifest.Deletion // that concern the inputs; nil means that they are still to be found
}

// dayWork returns what a day needs that is over, nil for nothing.
func (p *planner) dayWork(g *group) *work {
	if len(g.blocks) < 2 {
		return nil
	}
	base := baseOf(g.blocks, isDay)
	if base == nil {
		usual := plus(g.span.maxt, (p.limits.OutOfOrderWindow + shipGrace).Milliseconds())
		all := p.arrived(g.blocks, usual, firstQuiet)
		if p.now < all {
			return overlaps(g.span, g.blocks)
		}
		return &work{
			kind: KindDay, inputs: g.blocks, level: 3, since: max(g.span.maxt, second(g.blocks), all),
			reason: fmt.Sprintf("the day is over and has %d blocks", len(g.blocks)),
		}
	}
	w := p.lateWork(g.span, g.blocks, base, true)
	if w != nil && slices.Contains(w.inputs, base) {
		w.level = 3
	}
	return w
}

// slotsWork returns what a complete slot needs, nil for nothing.
func (p *planner) slotsWork(slot span, blocks []*manifest.Block, over bool) *work {
	if len(blocks) < 2 {
		return nil
	}
	base := baseOf(blocks, isMerged)
	if base == nil {
		return &work{
			kind: KindSlot, inputs: blocks, since: max(slot.maxt, second(blocks)),
			reason: fmt.Sprintf("the slot is complete and has %d blocks", len(blocks)),
		}
	}
	return p.lateWork(slot, blocks, base, over)
}

// lateWork returns what is to be done about blocks that came after base, the largest block, had been made; nil for nothing
// yet. While the day is not over only much late data is, for the merge of the day takes the rest along.
func (p *planner) lateWork(s span, blocks []*manifest.Block, base *manifest.Block, over bool) *work {
	late := make([]*manifest.Block, 0, len(blocks)-1)
	for _, b := range blocks {
		if b != base {
			late = append(late, b)
		}
	}
	slices.SortStableFunc(late, func(a, b *manifest.Block) int { return cmp.Compare(a.AddedAt, b.AddedAt) })
	newest := late[len(late)-1].AddedAt
	arrived := int64(math.MinInt64)
	if over {
		if arrived = p.arrived(late, math.MinInt64, lateQuiet); p.now < arrived {
			return overlaps(s, late, base)
		}
	}
	all := func(since int64, reason string, args ...any) *work {
		return &work{
			kind: KindLate, inputs: blocks, since: max(s.maxt, since, arrived), reason: fmt.Sprintf(reason, args...),
		}
	}
	if since, much := reaches(late, base.Samples/lateMuch); much {
		return all(since, "late data are more than 1/%d of block %s", lateMuch, base.ULID)
	}
	if over {
		since, some := reaches(late, base.Samples/lateSome)
		if since = max(since, plus(base.AddedAt, lateWait)); some && p.now >= since {
			return all(since, "late data are more than 1/%d of block %s, which is a day old", lateSome, base.ULID)
		}
		since = max(plus(s.maxt, lateForGood), plus(max(newest, base.AddedAt), lateWait))
		if p.now >= since {
			return all(since, "no late data are expected any more")
		}
	}
	return overlaps(s, late, base)
}

// arrived returns when what has come after a time counts as all that comes, because it has been quiet since; that may be in
// the future, and is long ago when nothing has, or somebody says so. What a merge has made has not come from anywhere.
func (p *planner) arrived(blocks []*manifest.Block, after, quiet int64) int64 {
	first, newest := int64(math.MaxInt64), int64(math.MinInt64)
	for _, b := range blocks {
		if b.AddedAt > after && !b.FromCompactor() {
			first, newest = min(first, b.AddedAt), max(newest, b.AddedAt)
		}
	}
	if p.limits.Settled || newest == math.MinInt64 || newest > plus(p.now, quiet) { // or a clock was wrong
		return math.MinInt64
	}
	return min(plus(newest, quiet), plus(first, lateLongest))
}

// overlaps returns work on late blocks for the sake of queries, which pay for each block at one time; nil for none. base,
// when there is one, stays as it is.
func overlaps(s span, late []*manifest.Block, base ...*manifest.Block) *work {
	late = slices.SortedFunc(slices.Values(late), compareBlocks)
	all := slices.SortedFunc(slices.Values(slices.Concat(base, late)), compareBlocks)
	if len(late) < 2 || overlapping(all) <= lateOverlaps {
		return nil
	}
	newest := late[0].AddedAt
	for _, b := range late {
		newest = max(newest, b.AddedAt)
	}
	return &work{
		kind: KindLate, inputs: late, level: 2, since: max(s.maxt, newest),
		reason: fmt.Sprintf("more than %d blocks overlap; those that came late are merged with one another", lateOverlaps),
	}
}

// reaches returns when the samples of the blocks, which are sorted by that, became more than limit.
func reaches(late []*manifest.Block, limit uint64) (addedAt int64, _ bool) {
	sum := uint64(0)
	for _, b := range late {
		if sum += b.Samples; sum > limit {
			return b.AddedAt, true
		}
	}
	return 0, false
}

// baseOf returns the largest block of a kind, nil when there is none.
func baseOf(blocks []*manifest.Block, kind func(*manifest.Block) bool) *manifest.Block {
	var base *manifest.Block
	for _, b := range blocks {
		if kind(b) && (base == nil || b.Samples > base.Samples) {
			base = b
		}
	}
	return base
}

// isMerged reports whether a block was made of others.
func isMerged(b *manifest.Block) bool { return b.Level > 1 }

// isDay reports whether a block was made of more than a slot, or of all that a day had.
func isDay(b *manifest.Block) bool {
	slot := aligned(b.MinTime, slotLength)
	return !slot.holds(b.MinTime, b.MaxTime) || b.Level > 2 && b.FromCompactor()
}

// second returns when the second of the blocks was listed: before that there was nothing to merge.
func second(blocks []*manifest.Block) int64 {
	first, next := blocks[0].AddedAt, blocks[1].AddedAt
	first, next = min(first, next), max(first, next)
	for _, b := range blocks[2:] {
		first, next = min(first, b.AddedAt), min(next, max(first, b.AddedAt))
	}
	return next
}

// overlapping returns the highest number of blocks at one time.
func overlapping(blocks []*manifest.Block) int {
	most := 0
	ends := make([]int64, 0, len(blocks))
	for _, b := range blocks { // sorted by their beginning
		ends = slices.DeleteFunc(ends, func(end int64) bool { return end <= b.MinTime })
		ends = append(ends, b.MaxTime)
		most = max(most, len(ends))
	}
	return most
}
