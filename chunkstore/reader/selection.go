package reader

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
)

// selection is one Select of a session.
type selection struct {
	s          *session
	ctx        context.Context //nolint:containedctx // of the Select: iterators have no place for one
	cancel     context.CancelFunc
	mint, maxt int64
	matchers   []*labels.Matcher
	hints      storage.SelectHints
	limits     fetchLimits

	share   share
	pinned  atomic.Int64 // bytes of pages that stay in memory
	rereads atomic.Bool  // some pages do not stay
	kept    atomic.Int64 // bytes of what stays besides
	pinMost int64
	batch   int64 // bytes of pages that one block reads at a time

	recent  recentLabels      // of series that were given out last
	all     allLabels         // of series that had to be sorted
	blocks  []*blockSelection // of each block of the session
	started bool              // the first windows are on their way
}

// Select implements Session.
func (s *session) Select(
	ctx context.Context, hints *storage.SelectHints, matchers ...*labels.Matcher,
) ([]storage.ChunkSeriesSet, error) {
	if s.closed {
		return nil, ErrClosed
	}
	sel := &selection{
		s: s, mint: s.mint, maxt: s.maxt, matchers: matchers, limits: s.l.limitsOf(s.tenant),
		blocks: make([]*blockSelection, len(s.blocks)),
	}
	if hints != nil {
		sel.hints = *hints
		sel.mint, sel.maxt = max(s.mint, hints.Start), min(s.maxt, hints.End)
	}
	sel.ctx, sel.cancel = context.WithCancel(ctx)
	if err := sel.run(); err != nil {
		sel.cancel()
		sel.forget()
		s.giveBack(&sel.share)
		return nil, s.l.lateError(err)
	}
	s.selections = append(s.selections, sel)
	sets := make([]storage.ChunkSeriesSet, len(sel.blocks))
	for i, b := range sel.blocks {
		sets[i] = b.set()
	}
	return sets, nil
}

// run finds the series: in directories which pages can have some, in these which do.
func (sel *selection) run() error {
	s := sel.s
	err := s.eachBlock(sel.ctx, func(ctx context.Context, i int) error {
		return again(func() error { return sel.plan(ctx, i) }, nil)
	})
	if err != nil {
		return err
	}
	if err := sel.checkEstimate(); err != nil {
		return err
	}
	pages, chunks := sel.needs()
	sel.share.want = pages + chunks
	if err := s.reserve(sel.ctx, &sel.share); err != nil {
		return err
	}
	fits := sel.share.got >= sel.share.want
	sel.pinMost, sel.batch = pages, math.MaxInt64
	if !fits {
		sel.pinMost = min(pages, sel.share.got/2)
		parallel := min(len(s.blocks), s.l.cfg.ParallelBlocks)
		sel.batch = max((sel.share.got-sel.pinMost)/int64(2*parallel), 1)
	}
	err = s.eachBlock(sel.ctx, func(ctx context.Context, i int) error {
		return again(func() error { return sel.blocks[i].pick(ctx, fits) }, func() error {
			sel.blocks[i].undo()
			return sel.plan(ctx, i)
		})
	})
	if err != nil {
		return err
	}
	exact := sel.pinned.Load() + sel.kept.Load()
	for _, b := range sel.blocks {
		exact += b.cost
	}
	s.grow(&sel.share, exact)
	sel.split()
	return nil
}

// again calls fn, and once more when it met a sidecar that is damaged or not there any more: by then that is a suspect,
// and its directory comes from one that was checked or built anew. before, if any, is called in between.
func again(fn, before func() error) error {
	err := fn()
	if !errors.Is(err, ErrDamaged) && !errors.Is(err, errNoSidecar) {
		return err
	}
	if before != nil {
		if err := before(); err != nil {
			return err
		}
	}
	return fn()
}

// plan reads the directory of a block and says which pages can have series.
func (sel *selection) plan(ctx context.Context, i int) (err error) {
	s := sel.s
	b := &blockSelection{sel: sel, block: &s.blocks[i]}
	sel.blocks[i] = b
	b.pages = blockPages{l: s.l, tenant: s.tenant, id: b.block.ULID}
	if !b.block.Overlaps(sel.mint, sel.maxt) {
		return nil // the hints want a part of the query's range, as for a selector with an offset
	}
	b.external = externalLabels(b.block.Labels)
	var possible bool
	if b.matchers, possible = b.external.reduce(sel.matchers); !possible {
		return nil
	}
	if b.pages.dir, err = s.l.directory(ctx, s.tenant, *b.block); err != nil {
		return err
	}
	return b.findCandidates()
}

// needs returns the memory for all candidates' pages and their chunks, rather more than less.
func (sel *selection) needs() (pages, chunks int64) {
	for _, b := range sel.blocks {
		p, c := b.needs()
		pages, chunks = pages+p, chunks+c
	}
	return pages, chunks
}

// split says how large windows may be, and how many pages are read again at a time.
func (sel *selection) split() {
	left := max(sel.share.got-sel.pinned.Load()-sel.kept.Load(), 0)
	total, blocks := int64(0), int64(0)
	for _, b := range sel.blocks {
		if b.count > 0 {
			total, blocks = total+b.cost, blocks+1
		}
	}
	if blocks > 0 && sel.rereads.Load() { // each block's set holds some pages, and the windows that are made do
		sel.batch = max(left/2/(2*blocks), 1)
		left -= left / 2
	}
	for _, b := range sel.blocks {
		b.windows.size = math.MaxInt64
		if total > left {
			b.windows.size = max(left/blocks/2, 1) // two at a time: the one being read and the one ahead of it
		}
		b.countSelect(total > left)
	}
}

// start begins the first windows of all blocks, so that no block waits for another.
func (sel *selection) start() {
	if sel.started {
		return
	}
	sel.started = true
	gate := make(chan struct{}, sel.s.l.cfg.ParallelBlocks)
	for _, b := range sel.blocks {
		if b.count > 0 {
			b.windows.begin(gate)
		}
	}
}

// drop forgets everything that takes memory and can be read again.
func (sel *selection) drop() {
	sel.forget()
	sel.pinned.Store(0)
	sel.pinMost, sel.started = 0, false
	sel.rereads.Store(true)
	sel.split()
}

func (sel *selection) forget() {
	for _, b := range sel.blocks {
		if b != nil {
			b.windows.drop()
			b.unpin()
		}
	}
}

// nameOnly reports whether the matchers look at the metric's name alone, so that directories say all about them.
func nameOnly(matchers []*labels.Matcher) bool {
	return !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return m.Name != labels.MetricName })
}
