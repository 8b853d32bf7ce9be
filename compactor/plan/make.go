package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/manifest"
)

// Make plans for a tenant. It reads m and keeps nothing that the caller may not share; the order of m.Blocks does not
// matter. It costs about a microsecond per block (BenchmarkMake).
func Make(m *manifest.Manifest, now time.Time, l Limits) *Plan {
	p := &planner{
		manifest: m, now: now.UnixMilli(), limits: l, skips: map[skipKey]*Skip{},
		plan: &Plan{
			Tenant: m.Tenant, Version: m.Version, Now: now.UnixMilli(), Blocks: len(m.Blocks),
			Jobs: []Job{}, Slots: []Slot{}, Skips: []Skip{},
		},
	}
	if d := m.Doomed; d != nil && d.FinishedAt == 0 && len(m.Blocks) > 0 {
		p.doomed()
	} else {
		for _, g := range p.group() {
			p.day(g)
		}
		p.rewrites()
		p.yieldToForeign()
	}
	p.finish()
	return p.plan
}

// planner is one call of Make.
type planner struct {
	manifest *manifest.Manifest
	now      int64
	limits   Limits
	plan     *Plan
	skips    map[skipKey]*Skip
}

// group is what one job may take at most: blocks of one day, of equal labels and shard.
type group struct {
	span   span
	blocks []*manifest.Block // sorted as in a manifest
}

// groupKey tells the groups of a day apart.
type groupKey struct {
	labels, shard string
}

// group sorts the blocks into groups, ordered by day, and leaves aside those that are in none.
func (p *planner) group() []*group {
	blocks := make([]*manifest.Block, len(p.manifest.Blocks))
	for i := range p.manifest.Blocks {
		blocks[i] = &p.manifest.Blocks[i]
	}
	if !slices.IsSortedFunc(blocks, compareBlocks) { // those of a manifest that was read are
		slices.SortFunc(blocks, compareBlocks)
	}
	groups := map[groupKey]*group{} // of one day
	var ordered []*group
	var current span
	for _, b := range blocks {
		day := aligned(b.MinTime, dayLength)
		if p.aside(b, day) {
			continue
		}
		if day != current {
			current = day
			clear(groups)
		}
		key := groupKey{labelsKey(b.Labels), b.Shard}
		g, ok := groups[key]
		if !ok {
			g = &group{span: day}
			groups[key] = g
			ordered = append(ordered, g)
		}
		g.blocks = append(g.blocks, b)
	}
	p.plan.Slots = slices.Grow(p.plan.Slots, len(ordered))
	return ordered
}

// aside notes a block that no merge may take, and why.
func (p *planner) aside(b *manifest.Block, day span) bool {
	why, excluded := p.limits.Excluded[b.ULID]
	switch {
	case b.NoCompact != "":
		detail := "marked against compaction: " + b.NoCompact + "; they stay as they are until no-compact-mark.json is deleted"
		if len(p.manifest.DeletionsOf(b)) > 0 {
			detail += ", and so do deleted samples in them, which queries do not show"
		}
		p.skip(SkipNoCompact, detail, false, b)
	case excluded:
		p.skip(SkipExcluded, why, true, b)
		slot := aligned(b.MinTime, slotLength)
		p.slot(span{slot.mint, max(slot.maxt, b.MaxTime)}, StateHeld, max(slot.maxt, b.MaxTime, b.AddedAt), b)
	case p.expires(max(day.maxt, b.MaxTime)):
		p.skip(SkipExpiring, fmt.Sprintf("retention of %v removes them soon", p.limits.Retention), false, b)
	case !day.holds(b.MinTime, b.MaxTime):
		p.skip(SkipSpansDays, "written by another program for more than one day; they stay as they are", false, b)
	default:
		return false
	}
	return true
}

// doomed leaves all blocks of a tenant that is to be deleted alone.
func (p *planner) doomed() {
	all := make([]*manifest.Block, len(p.manifest.Blocks))
	for i := range p.manifest.Blocks {
		all[i] = &p.manifest.Blocks[i]
	}
	slices.SortFunc(all, compareBlocks)
	p.skip(SkipTenantDeletion, "the tenant is to be deleted; its blocks stay as they are for as long as that can be taken back",
		false, all...)
}

// expires reports whether retention removes what ends at maxt so soon that work on it would be wasted: within a day, or a
// quarter of a retention that is short.
func (p *planner) expires(maxt int64) bool {
	retention := p.limits.Retention.Milliseconds()
	return retention > 0 && maxt <= p.now-retention+min(dayLength, retention/4)
}

// day plans for a group.
func (p *planner) day(g *group) {
	if !p.complete(g.span, p.limits.OutOfOrderWindow) {
		p.slots(g, false)
		return
	}
	w := p.dayWork(g)
	if w == nil {
		p.slot(g.span, StateDone, 0, g.blocks...)
		return
	}
	if len(w.inputs) <= p.limits.maxInputs() {
		j := p.job(w)
		if reason, why := p.refuses(j); reason != "" {
			p.slots(g, true)
			p.skip(reason, why, true, w.inputs...)
			p.slot(g.span, StateHeld, w.since, g.blocks...)
			return
		}
		p.add(j, g.span, w.since, g.blocks)
		return
	}
	if !p.forceSlots(g, w.since) {
		w.inputs = w.inputs[:p.limits.maxInputs()]
		w.reason += ", the first of more"
		p.slotWork(w, g.span, g.blocks)
	}
}

// slots plans for each slot of a group alone. over says that no more samples are on their way in the usual course.
func (p *planner) slots(g *group, over bool) {
	for slot, blocks := range bySlot(g.blocks) {
		if !p.complete(slot, 0) {
			p.slot(slot, StateOpen, 0, blocks...)
		} else if w := p.slotsWork(slot, blocks, over); w != nil {
			p.slotWork(w, slot, blocks)
		} else if !over {
			p.slot(slot, StateDone, 0, blocks...)
		}
	}
}

// slotWork adds the job, or says why not.
func (p *planner) slotWork(w *work, slot span, blocks []*manifest.Block) {
	w.inputs = w.inputs[:min(len(w.inputs), p.limits.maxInputs())]
	j := p.job(w)
	if reason, why := p.refuses(j); reason != "" {
		p.skip(reason, why, true, w.inputs...)
		p.slot(slot, StateHeld, w.since, blocks...)
		return
	}
	p.add(j, slot, w.since, blocks)
}

// forceSlots merges each slot of more than one block, for a day that has too many blocks for one job. It reports whether
// there are such slots that can be merged.
func (p *planner) forceSlots(g *group, since int64) bool {
	before := len(p.plan.Jobs)
	for slot, blocks := range bySlot(g.blocks) {
		if len(blocks) > 1 {
			p.slotWork(&work{
				kind: KindSlot, inputs: blocks, since: since,
				reason: fmt.Sprintf("the day has %d blocks, too many for one job; slots first", len(g.blocks)),
			}, slot, blocks)
		}
	}
	return len(p.plan.Jobs) > before
}

// add notes a job that is to be run.
func (p *planner) add(j *Job, s span, since int64, blocks []*manifest.Block) {
	p.plan.Jobs = append(p.plan.Jobs, *j)
	p.slot(s, StateReady, since, blocks...)
}

func (p *planner) slot(s span, state State, since int64, blocks ...*manifest.Block) {
	entry := Slot{
		MinTime: s.mint, MaxTime: s.maxt, Labels: blocks[0].Labels, Shard: blocks[0].Shard, State: state,
		Blocks: len(blocks), Since: since,
	}
	for _, b := range blocks {
		entry.Samples += b.Samples
		entry.Bytes += b.SizeBytes
	}
	p.plan.Slots = append(p.plan.Slots, entry)
}

// finish sorts everything and sums up.
func (p *planner) finish() {
	merge := func(j *Job) int {
		if j.Kind == KindRewrite {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(p.plan.Jobs, func(a, b Job) int {
		return cmp.Or(merge(&a)-merge(&b), cmp.Compare(a.MinTime, b.MinTime), a.Blocks[0].Compare(b.Blocks[0]))
	})
	slices.SortStableFunc(p.plan.Slots, func(a, b Slot) int {
		return cmp.Or(cmp.Compare(a.MinTime, b.MinTime), cmp.Compare(b.MaxTime, a.MaxTime))
	})
	for _, s := range p.plan.Slots {
		if s.Since != 0 && (p.plan.OldestUncompacted == 0 || s.Since < p.plan.OldestUncompacted) {
			p.plan.OldestUncompacted = s.Since
		}
	}
	for _, s := range p.skips {
		p.plan.Skips = append(p.plan.Skips, *s)
	}
	slices.SortFunc(p.plan.Skips, func(a, b Skip) int {
		return cmp.Or(
			slices.Index(Reasons(), a.Reason)-slices.Index(Reasons(), b.Reason),
			cmp.Compare(a.MinTime, b.MinTime), a.Blocks[0].Compare(b.Blocks[0]), cmp.Compare(a.Detail, b.Detail),
		)
	})
}

// skipKey is by what skips are put together.
type skipKey struct {
	reason Reason
	detail string
}

// skip notes blocks that are left alone, together with others of equal reason and detail.
func (p *planner) skip(reason Reason, detail string, blocking bool, blocks ...*manifest.Block) {
	key := skipKey{reason, detail}
	s, ok := p.skips[key]
	if !ok {
		s = &Skip{Reason: reason, Detail: detail, Blocking: blocking, MinTime: blocks[0].MinTime, MaxTime: blocks[0].MaxTime}
		p.skips[key] = s
	}
	for _, b := range blocks {
		s.Blocks = append(s.Blocks, b.ULID)
		s.MinTime, s.MaxTime = min(s.MinTime, b.MinTime), max(s.MaxTime, b.MaxTime)
	}
}

// bySlot yields the slots in which blocks lie as a whole, in the order of time.
func bySlot(blocks []*manifest.Block) func(yield func(span, []*manifest.Block) bool) {
	return func(yield func(span, []*manifest.Block) bool) {
		var current span
		var in []*manifest.Block
		for _, b := range blocks {
			slot := aligned(b.MinTime, slotLength)
			if !slot.holds(b.MinTime, b.MaxTime) {
				continue
			}
			if len(in) > 0 && slot != current {
				if !yield(current, in) {
					return
				}
				in = nil
			}
			current, in = slot, append(in, b)
		}
		if len(in) > 0 {
			yield(current, in)
		}
	}
}

func compareBlocks(a, b *manifest.Block) int {
	return cmp.Or(cmp.Compare(a.MinTime, b.MinTime), a.ULID.Compare(b.ULID))
}

// labelsKey is equal for equal labels.
func labelsKey(labels map[string]string) string {
	if len(labels) == 0 {
		return ""
	}
	pairs := make([]string, 0, len(labels))
	for name, value := range labels {
		pairs = append(pairs, fmt.Sprintf("%q=%q", name, value))
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}

func ids(blocks []*manifest.Block) []ulid.ULID {
	all := make([]ulid.ULID, len(blocks))
	for i, b := range blocks {
		all[i] = b.ULID
	}
	return all
}
