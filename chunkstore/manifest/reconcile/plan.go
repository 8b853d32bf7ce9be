package reconcile

import (
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/manifest"
)

const (
	// settleTime is how long what has no sure end has to be unchanged: a block whose meta.json lists no objects, because
	// it may still be copied, and a mark, because a listing is not of one moment and may miss what the marked block was
	// made into.
	settleTime = 10 * time.Minute

	// unreplacedWait is how long a marked block of a peer stays whose samples are in no other block, as when the peer
	// deletes by age. Peers keep the objects of a marked block for twelve hours at least.
	unreplacedWait = time.Hour

	// orphanAge is how old the youngest object of a folder is that is taken for an upload that was given up, or for the
	// output of a swap that was lost. An ingester that cannot upload tries again every few minutes, and a compactor writes
	// one file after the other.
	orphanAge = 24 * time.Hour

	// peerDeleteWait is how long the objects of a block that a peer has marked are left to the peer. It is the longest of
	// the peers' own defaults.
	peerDeleteWait = 48 * time.Hour

	// markLead is how long before its objects a block's mark is there, for peers to see it. It is longer than any query.
	markLead = time.Hour
)

// Reasons to leave a block alone that is in the bucket and not in the manifest, as in the label of the metric. Verdicts
// but verdictWhole are reasons as well.
const (
	leftCovered    = "covered"     // its samples are in listed blocks, or were dropped, alone or with their tenant
	leftMarked     = "marked"      // a peer has marked it, or its tenant, for deletion
	leftSettling   = "settling"    // it may still be copied
	leftLostOutput = "lost_output" // of a compactor of ours, whose swap was lost or is not done yet
	leftUncovered  = "uncovered_output"
	leftRemoved    = "removed" // it left the manifest and its objects are not deleted yet
	// leftKept left the manifest, and its objects stay: for people to look at, or because what took its place is not whole.
	leftKept = "kept"
)

var leftReasons = []string{
	string(verdictIncomplete), string(verdictDoubtful), string(verdictDownsampled),
	leftCovered, leftMarked, leftSettling, leftLostOutput, leftUncovered, leftRemoved, leftKept,
}

// situation is all that a plan is made of.
type situation struct {
	manifest   *manifest.Manifest
	listing    *listing
	candidates map[ulid.ULID]*candidate // of the folders that are neither listed nor removed
	// gone are listed blocks whose objects are not there, as asked one by one: a listing alone proves nothing.
	gone map[ulid.ULID]struct{}
	// goneSince is since when each of them was missed.
	goneSince map[ulid.ULID]time.Time
	// now is not after the present by the store's clock, nor by ours.
	now         time.Time
	deleteDelay time.Duration

	// next is when the first of what is too young for its plan is old enough, the zero time when nothing waits. The plan
	// sets it.
	next time.Time
}

// plan is what one pass wants to do.
type plan struct {
	change manifest.Change
	// noCompact are listed blocks that a peer has marked.
	noCompact []ulid.ULID
	// suspects are listed blocks of which the listing misses objects.
	suspects []ulid.ULID
	// unmarked are removed blocks whose objects are there, for which peers have no mark.
	unmarked []manifest.RemovedBlock
	// obsolete are removed blocks whose objects have to go, orphans folders that no manifest has ever named.
	obsolete, orphans []ulid.ULID
	left              map[string]int
	// named are left blocks that somebody should look at, and why; damaged are listed blocks that are not whole.
	named, damaged map[ulid.ULID]string
	// foreign are deletions of our blocks by somebody else.
	foreign map[ulid.ULID]foreignDeletion
}

// makePlan decides on everything. It asks nobody.
func makePlan(s *situation) *plan {
	p := &plan{left: map[string]int{}, named: map[ulid.ULID]string{}, foreign: map[ulid.ULID]foreignDeletion{}}
	leaving := p.inspectListed(s)
	p.exchange(s, leaving)
	p.sweep(s)
	p.sort()
	return p
}

// old reports whether a moment is so long ago, and notes when it will be.
func (s *situation) old(t time.Time, age time.Duration) bool {
	if s.now.Sub(t) >= age {
		return true
	}
	if at := t.Add(age); s.next.IsZero() || at.Before(s.next) {
		s.next = at
	}
	return false
}

// inspectListed looks at the folders of listed blocks and returns those that are marked for deletion since long enough.
func (p *plan) inspectListed(s *situation) map[ulid.ULID]time.Time {
	leaving := map[ulid.ULID]time.Time{}
	for i := range s.manifest.Blocks {
		b := &s.manifest.Blocks[i]
		f := s.listing.folders[b.ULID]
		if f == nil || f.misses(b) {
			p.suspects = append(p.suspects, b.ULID)
		}
		if f == nil {
			continue
		}
		if since, marked := f.markedSince(); marked && s.old(since, settleTime) {
			leaving[b.ULID] = since
		}
		if len(f.noCompact) > 0 && b.NoCompact == "" {
			p.noCompact = append(p.noCompact, b.ULID)
		}
	}
	return leaving
}

// misses reports whether objects of a listed block are not there, or smaller.
func (f *folder) misses(b *manifest.Block) bool {
	meta, ok := f.meta()
	segments, whole := f.segments()
	if !ok || !whole || segments == 0 && b.Chunks > 0 {
		return true
	}
	return meta.Size+f.dataBytes() < b.SizeBytes
}

// exchange decides on what enters and leaves the manifest.
func (p *plan) exchange(s *situation, leaving map[ulid.ULID]time.Time) {
	covered := newCoverage(s.manifest.Removed)
	for i := range s.manifest.Blocks {
		b := &s.manifest.Blocks[i]
		_, leaves := leaving[b.ULID]
		if _, gone := s.gone[b.ULID]; !leaves && !gone {
			covered.add(b)
		}
	}
	p.adopt(s, covered)
	for i := range s.manifest.Blocks {
		b := &s.manifest.Blocks[i]
		since, leaves := leaving[b.ULID]
		_, gone := s.gone[b.ULID]
		switch {
		case !leaves && !gone:
		case covered.replaced(b):
			p.change.Replace = append(p.change.Replace, b.ULID)
		case ours(b): // its samples are nowhere else, and it is nobody's to delete: it stays, whatever becomes of its objects
			p.noteForeign(s, b, since, gone)
		case leaves && s.old(since, unreplacedWait):
			p.change.Unlist = append(p.change.Unlist, b.ULID)
		}
	}
}

// adopt takes in what is whole and not covered, what holds most first, and adds it to what is covered.
func (p *plan) adopt(s *situation, covered *coverage) {
	var whole []manifest.Block
	for id, c := range s.candidates {
		f := s.listing.folders[id]
		if reason := eligible(s, f, c, covered); reason != "" {
			p.left[reason]++
			if reason == string(verdictDoubtful) || reason == leftUncovered {
				p.named[id] = c.reason
			}
			continue
		}
		whole = append(whole, c.block)
	}
	byReach(whole)
	for i := range whole {
		b := &whole[i]
		if covered.covers(b) {
			p.left[leftCovered]++
			continue
		}
		covered.add(b)
		p.change.Add = append(p.change.Add, *b)
	}
}

// eligible returns why a block may not be adopted, whatever else there is; empty when it may.
func eligible(s *situation, f *folder, c *candidate, covered *coverage) string {
	_, marked := f.markedSince()
	switch {
	case c.verdict == verdictWhole && s.manifest.Bygone(&c.block):
		return leftCovered
	case c.verdict == verdictWhole && c.block.FromCompactor() && covered.covers(&c.block):
		return leftLostOutput
	case c.verdict == verdictWhole && c.block.FromCompactor() && !marked:
		c.reason = "a compactor has made it, no swap has listed it, and it holds samples that no listed block has"
		return leftUncovered
	case c.verdict != verdictWhole:
		return string(c.verdict)
	case marked || s.listing.tenantMark:
		return leftMarked
	case !c.listed && !s.old(f.newest, settleTime):
		return leftSettling
	default:
		return ""
	}
}

// sweep decides on objects that nobody needs any more.
func (p *plan) sweep(s *situation) {
	needed := sourcesOf(s.candidates)
	for _, r := range s.manifest.Removed {
		p.sweepRemoved(s, r, s.listing.folders[r.ULID], needed)
	}
	live := newCoverage(s.manifest.Removed)
	for i := range s.manifest.Blocks {
		live.add(&s.manifest.Blocks[i])
	}
	for id, c := range s.candidates {
		f := s.listing.folders[id]
		bygone, age := c.verdict == verdictWhole && s.manifest.Bygone(&c.block), orphanAge
		if bygone { // whole, and of a tenant that was deleted: whoever put it late is told that nobody wants it
			age = settleTime
		}
		if len(f.files) == 0 || !s.old(f.newest, age) {
			continue
		}
		_, hasMeta := f.meta()
		lostOutput := c.verdict == verdictWhole && c.block.FromCompactor() && s.manifest.Version > 0 && live.covers(&c.block)
		if bygone || lostOutput || c.verdict == verdictIncomplete && !hasMeta {
			p.orphans = append(p.orphans, id)
		}
	}
}

// sourcesOf returns what the blocks are made of that lie in the bucket unlisted. As long as they do, it has to be
// remembered that their samples were dropped.
func sourcesOf(candidates map[ulid.ULID]*candidate) map[ulid.ULID]struct{} {
	sources := map[ulid.ULID]struct{}{}
	for _, c := range candidates {
		for _, source := range c.block.Sources {
			sources[source] = struct{}{}
		}
	}
	return sources
}

// sweepRemoved decides on one block that left the manifest. f is nil when nothing of it was listed.
func (p *plan) sweepRemoved(s *situation, r manifest.RemovedBlock, f *folder, needed map[ulid.ULID]struct{}) {
	if s.now.UnixMilli() < r.KeepUntil { // no mark either: a peer that reads it would delete the objects
		if f != nil && len(f.files) > 0 {
			p.left[leftKept]++
		}
		return
	}
	removed := time.UnixMilli(r.RemovedAt)
	if f == nil || len(f.files) == 0 && !f.ownFolder() {
		if _, keep := needed[r.ULID]; keep && r.Dropped {
			return
		}
		if s.old(removed, manifest.RememberRemoved) {
			p.change.Forget = append(p.change.Forget, r.ULID)
		}
		return
	}
	if p.lastCopy(s, r) {
		p.left[leftKept]++
		return
	}
	p.left[leftRemoved]++
	since, marked := f.markedSince()
	switch {
	case !marked:
		p.unmarked = append(p.unmarked, r)
	case since.Before(removed) && !s.old(since, peerDeleteWait): // the peer's mark, and the peer's to delete
	case s.old(removed, s.deleteDelay) && s.old(since, markLead):
		p.obsolete = append(p.obsolete, r.ULID)
	}
}

// lastCopy reports whether objects are missing of the block that took a removed one's place: of its samples the removed
// block may be all that there is.
func (p *plan) lastCopy(s *situation, r manifest.RemovedBlock) bool {
	if r.Dropped {
		return false
	}
	return slices.ContainsFunc(p.suspects, func(id ulid.ULID) bool {
		b, listed := s.manifest.Find(id)
		return listed && (b.AddedAt == r.RemovedAt || slices.Contains(b.Sources, r.ULID))
	})
}

// sort makes the plan the same for the same situation.
func (p *plan) sort() {
	for _, list := range [][]ulid.ULID{
		p.change.Replace, p.change.Unlist, p.change.Forget, p.noCompact, p.suspects, p.obsolete, p.orphans,
	} {
		slices.SortFunc(list, ulid.ULID.Compare)
	}
}

// pending reports whether the next pass has something to do, or to see, whenever it comes.
func (p *plan) pending() bool {
	return p.changes() || len(p.damaged)+len(p.noCompact)+len(p.unmarked)+len(p.obsolete)+len(p.orphans) > 0
}

// changes reports whether the manifest has to change.
func (p *plan) changes() bool {
	c := &p.change
	return len(c.Add)+len(c.Replace)+len(c.Unlist)+len(c.Forget) > 0
}
