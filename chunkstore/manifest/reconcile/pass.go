package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
)

const (
	// planAttempts is how often a pass thinks again when somebody changed the manifest meanwhile.
	planAttempts = 3

	// deletionsPerPass bounds how long one tenant keeps the others waiting.
	deletionsPerPass = 1000
)

// pass is one comparison of a tenant's folder with its manifest.
type pass struct {
	*Reconciler

	tenant string
	// now is not after the present, by the store's clock and by ours.
	now  time.Time
	seen *sighting // what the last pass knew
}

// run compares, changes the manifest, and cleans up. It returns the manifest in force afterwards.
func (p *pass) run(ctx context.Context) (*situation, *plan, error) {
	s, wanted, err := p.settle(ctx)
	if err != nil || s.listing.isBlock {
		return s, wanted, err
	}
	// Each of these is repeated by the next pass, and none is worth losing the others.
	err = errors.Join(
		p.annotate(ctx, s, wanted.noCompact),
		p.mark(ctx, wanted.unmarked),
		p.deleteRemoved(ctx, wanted.obsolete),
		p.deleteOrphans(ctx, wanted.orphans),
	)
	return s, wanted, err
}

// settle brings the manifest in step with what is in the bucket.
func (p *pass) settle(ctx context.Context) (*situation, *plan, error) {
	for attempt := 1; ; attempt++ {
		s, err := p.look(ctx)
		if err != nil || s.listing.isBlock {
			return s, &plan{}, err
		}
		wanted, err := p.think(ctx, s)
		if err != nil || !wanted.changes() {
			return s, wanted, err
		}
		if err := p.confirmGone(ctx, &wanted.change); err != nil {
			return nil, nil, err
		}
		_, err = p.owner.Swap(ctx, p.tenant, wanted.change)
		if errors.Is(err, manifest.ErrConflict) && attempt < planAttempts {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		p.report(wanted)
		s.manifest, err = p.owner.Current(ctx, p.tenant)
		return s, wanted, err
	}
}

// look gathers what there is. The listing comes first: a block that the manifest lists afterwards was complete before.
func (p *pass) look(ctx context.Context) (*situation, error) {
	l, err := list(ctx, p.bkt, p.tenant)
	if err != nil {
		return nil, err
	}
	s := &situation{listing: l, now: p.now, deleteDelay: p.cfg.DeleteDelay}
	if l.isBlock {
		return s, nil
	}
	if s.manifest, err = p.owner.Refresh(ctx, p.tenant); err != nil {
		return nil, err
	}
	s.candidates, err = p.judgeUnknown(ctx, s)
	return s, err
}

// judgeUnknown judges the folders that the manifest neither lists nor remembers, those anew that have changed.
func (p *pass) judgeUnknown(ctx context.Context, s *situation) (map[ulid.ULID]*candidate, error) {
	unknown := &listing{folders: map[ulid.ULID]*folder{}}
	known := map[ulid.ULID]struct{}{}
	for i := range s.manifest.Blocks {
		known[s.manifest.Blocks[i].ULID] = struct{}{}
	}
	for _, r := range s.manifest.Removed {
		known[r.ULID] = struct{}{}
	}
	candidates := map[ulid.ULID]*candidate{}
	for id, f := range s.listing.folders {
		if _, ok := known[id]; ok {
			continue
		}
		if c := p.seen.recall(id, f); c != nil {
			candidates[id] = c
			continue
		}
		unknown.folders[id] = f
	}
	judged, err := judgeAll(ctx, p.bkt, p.tenant, unknown)
	if err != nil {
		return nil, err
	}
	maps.Copy(candidates, judged)
	p.seen.remember(s.listing, candidates)
	return candidates, nil
}

// think makes a plan. Blocks that the listing misses are asked for by name, and when some are gone, it thinks again.
func (p *pass) think(ctx context.Context, s *situation) (*plan, error) {
	wanted := makePlan(s)
	if len(wanted.suspects) == 0 {
		p.seen.rememberGone(nil, p.now)
		return wanted, nil
	}
	s.gone = map[ulid.ULID]struct{}{}
	damaged := map[ulid.ULID]string{}
	for _, id := range wanted.suspects {
		err := block.Verify(ctx, p.bkt, p.tenant, id)
		switch {
		case errors.Is(err, block.ErrNoMeta):
			s.gone[id] = struct{}{}
			damaged[id] = err.Error()
		case errors.Is(err, block.ErrIncomplete), errkind.Of(err) == errkind.Corrupt:
			damaged[id] = err.Error()
		case err != nil:
			return nil, err
		}
	}
	p.seen.rememberGone(s.gone, p.now)
	if len(s.gone) > 0 {
		s.goneSince = p.seen.gone
		wanted = makePlan(s)
	}
	for _, id := range wanted.change.Replace {
		delete(damaged, id)
	}
	wanted.damaged = damaged
	return wanted, nil
}

// confirmGone takes blocks out of what is to be forgotten whose meta.json is there after all.
func (p *pass) confirmGone(ctx context.Context, c *manifest.Change) error {
	var forget []ulid.ULID
	for _, id := range c.Forget {
		_, err := block.FetchMeta(ctx, p.bkt, p.tenant, id)
		switch {
		case errors.Is(err, block.ErrNoMeta):
			forget = append(forget, id)
		case err != nil && errkind.Of(err) != errkind.Corrupt:
			return err
		}
	}
	c.Forget = forget
	for _, id := range forget {
		// Without its block the marks would stay for ever.
		err := p.bkt.Delete(ctx, globalMarkKey(p.tenant, id, deletionMarkName), globalMarkKey(p.tenant, id, noCompactMarkName))
		if err != nil {
			return fmt.Errorf("delete marks of block %s: %w", id, unavailable(err))
		}
	}
	return nil
}

// report says what changed.
func (p *pass) report(wanted *plan) {
	for i := range wanted.change.Add {
		b := &wanted.change.Add[i]
		writer := "peer"
		if b.Writer != "" {
			writer = "own"
		}
		p.metrics.adopted.WithLabelValues(writer).Inc()
		p.log.Info("block adopted", "tenant", p.tenant, "block", b.ULID, "writer", b.Writer, "level", b.Level,
			"mint", b.MinTime, "maxt", b.MaxTime, "bytes", b.SizeBytes)
	}
	for how, ids := range map[string][]ulid.ULID{"replaced": wanted.change.Replace, "unlisted": wanted.change.Unlist} {
		for _, id := range ids {
			p.metrics.marked.Inc()
			p.log.Info("block left the manifest for a peer's mark or because its objects are gone",
				"tenant", p.tenant, "block", id, "how", how)
		}
	}
}

// annotate takes peers' marks against compaction in.
func (p *pass) annotate(ctx context.Context, s *situation, ids []ulid.ULID) error {
	var notes []manifest.Annotation
	for _, id := range ids {
		reason, err := noCompactReason(ctx, p.bkt, id, s.listing.folders[id])
		if err != nil {
			return err
		}
		notes = append(notes, manifest.Annotation{ULID: id, NoCompact: &reason})
		p.metrics.marked.Inc()
		p.log.Info("block is not compacted any more", "tenant", p.tenant, "block", id, "reason", reason)
	}
	return p.owner.Annotate(ctx, p.tenant, notes...)
}

// mark tells peers which blocks are about to go.
func (p *pass) mark(ctx context.Context, removed []manifest.RemovedBlock) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(metaFetches)
	for _, r := range removed {
		g.Go(func() error {
			err := markDeleted(ctx, p.bkt, p.tenant, r)
			if err != nil {
				p.metrics.peerFailures.Inc()
			}
			return err
		})
	}
	return g.Wait()
}

// deleteRemoved deletes the objects of blocks that left the manifest, unless the newest version says otherwise.
func (p *pass) deleteRemoved(ctx context.Context, ids []ulid.ULID) error {
	return p.deleteBlocks(ctx, ids, deletedRemoved, func(m *manifest.Manifest, id ulid.ULID) (bool, error) {
		_, isListed := m.Find(id)
		remembered := slices.ContainsFunc(m.Removed, func(r manifest.RemovedBlock) bool { return r.ULID == id })
		return !isListed && remembered, nil
	})
}

// deleteOrphans deletes folders that no manifest has named, unless they have changed since they were listed.
func (p *pass) deleteOrphans(ctx context.Context, ids []ulid.ULID) error {
	return p.deleteBlocks(ctx, ids, deletedOrphan, func(m *manifest.Manifest, id ulid.ULID) (bool, error) {
		l, err := listFolder(ctx, p.bkt, p.tenant, id)
		if err != nil || l.folders[id] == nil {
			return false, err
		}
		c, err := judge(ctx, p.bkt, p.tenant, id, l.folders[id])
		if err != nil {
			return false, err
		}
		again := makePlan(&situation{
			manifest: m, listing: l, candidates: map[ulid.ULID]*candidate{id: c}, now: p.now, deleteDelay: p.cfg.DeleteDelay,
		})
		_, isListed := m.Find(id)
		return !isListed && slices.Contains(again.orphans, id), nil
	})
}

func (p *pass) deleteBlocks(
	ctx context.Context, ids []ulid.ULID, what string, may func(*manifest.Manifest, ulid.ULID) (bool, error),
) error {
	for i, id := range ids {
		if i == deletionsPerPass {
			return nil
		}
		m, err := p.owner.Refresh(ctx, p.tenant)
		if err != nil {
			return err
		}
		ok, err := may(m, id)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if err := block.Delete(ctx, p.bkt, p.tenant, id); err != nil {
			return err
		}
		p.metrics.deleted.WithLabelValues(what).Inc()
		p.log.Info("objects of block deleted", "tenant", p.tenant, "block", id, "why", what)
	}
	return nil
}
