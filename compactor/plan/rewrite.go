package plan

import (
	"fmt"
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/manifest"
)

// rewrites plans to work deletions into blocks that no merge takes. Queries hide what is deleted at once, so that there is
// no hurry: several deletions go into one rewrite, and a block of a slot that is still open is merged soon in any case.
func (p *planner) rewrites() {
	if len(p.manifest.Deletions) == 0 {
		return
	}
	taken := map[ulid.ULID]struct{}{}
	for i := range p.plan.Jobs {
		for _, id := range p.plan.Jobs[i].Blocks {
			taken[id] = struct{}{}
		}
	}
	for i := range p.manifest.Blocks {
		b := &p.manifest.Blocks[i]
		_, merged := taken[b.ULID]
		_, excluded := p.limits.Excluded[b.ULID]
		if merged || excluded || b.NoCompact != "" || p.expires(b.MaxTime) {
			continue
		}
		deletions := p.deletions([]*manifest.Block{b})
		if len(deletions) == 0 || !p.due(b, deletions) {
			continue
		}
		j := p.job(&work{
			kind: KindRewrite, inputs: []*manifest.Block{b}, level: b.Level, deletions: deletions,
			reason: "deleted samples are to be taken out: " + named(deletions),
		})
		if why, refused := p.limits.Refused[j.ID]; refused {
			p.skip(SkipRefused, fmt.Sprintf("job %s: %s", j.ID, why), true, b)
			continue
		}
		p.plan.Jobs = append(p.plan.Jobs, *j)
	}
}

// named names deletions for people.
func named(deletions []manifest.Deletion) string {
	text := fmt.Sprintf("deletion %d of %s", deletions[0].ID, date(deletions[0].CreatedAt))
	if n := len(deletions) - 1; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
}

// due reports whether a block is to be written anew for deletions.
func (p *planner) due(b *manifest.Block, deletions []manifest.Deletion) bool {
	delay := p.limits.DeletionDelay.Milliseconds()
	if delay <= 0 || slices.ContainsFunc(deletions, func(d manifest.Deletion) bool { return d.Urgent }) {
		return true
	}
	if slot := aligned(b.MinTime, slotLength); slot.holds(b.MinTime, b.MaxTime) && !p.complete(slot, 0) {
		return false
	}
	return slices.ContainsFunc(deletions, func(d manifest.Deletion) bool { return plus(d.CreatedAt, delay) <= p.now })
}

// deletions are those that a job works into its inputs, by ID. The output then has all that there are: what does not
// concern an input was not meant for it, and does not become so by the merge.
func (p *planner) deletions(inputs []*manifest.Block) (all []manifest.Deletion) {
	if len(p.manifest.Deletions) == 0 {
		return nil
	}
	concern := make([]bool, len(p.manifest.Deletions))
	n := 0
	for _, b := range inputs {
		for i := p.manifest.FirstUnseen(b); i < len(concern); i++ {
			if !concern[i] && p.manifest.Deletions[i].Concerns(b) {
				concern[i] = true
				n++
			}
		}
	}
	if n > 0 {
		all = make([]manifest.Deletion, 0, n)
	}
	for i, yes := range concern {
		if yes {
			all = append(all, p.manifest.Deletions[i])
		}
	}
	return all
}
