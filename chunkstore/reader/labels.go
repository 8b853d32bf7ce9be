package reader

import (
	"context"
	"maps"
	"math"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/duramendb/duramen/chunkstore/index"
)

// labelPageBytes is what a query for names or values holds of the pages of one block at a time: a page or two.
const labelPageBytes = 256 << 10

// LabelValues implements Session. Samples' times do not count, as in Prometheus: a value of a block that overlaps the
// range is in.
func (s *session) LabelValues(
	ctx context.Context, name string, hints *storage.LabelHints, matchers ...*labels.Matcher,
) ([]string, error) {
	return s.union(ctx, hints, matchers, func(ctx context.Context, q *labelQuery) error {
		if value, ok := q.external.value(name); ok {
			return q.ifAny(ctx, func() { q.found[value] = struct{}{} })
		}
		if !slices.ContainsFunc(q.matchers, func(m *labels.Matcher) bool { return m.Name != name }) {
			return q.valuesOf(name)
		}
		return q.eachPage(ctx, func(page *index.Page, at []int) bool {
			for _, i := range at {
				if value := page.Value(i, name); value != "" {
					q.found[value] = struct{}{}
				}
			}
			return true
		})
	})
}

// LabelNames implements Session. Samples' times do not count, as in LabelValues.
func (s *session) LabelNames(
	ctx context.Context, hints *storage.LabelHints, matchers ...*labels.Matcher,
) ([]string, error) {
	return s.union(ctx, hints, matchers, func(ctx context.Context, q *labelQuery) error {
		add := func(name string) { q.found[name] = struct{}{} }
		err := q.ifAny(ctx, func() {
			for _, l := range q.external {
				add(l.Name)
			}
		})
		if err != nil {
			return err
		}
		if len(q.matchers) == 0 {
			for _, name := range q.pages.dir.LabelNames() {
				add(name)
			}
			return nil
		}
		return q.eachPage(ctx, func(page *index.Page, at []int) bool {
			page.LabelNames(at, add)
			return true
		})
	})
}

// labelQuery is the part of a query for names or values that is one block's.
type labelQuery struct {
	s        *session
	external external
	matchers []*labels.Matcher // on the block's own labels
	pages    blockPages
	share    *share
	found    map[string]struct{}
}

// union asks each block and returns the distinct answers in order, at most as many as hints allow.
func (s *session) union(
	ctx context.Context, hints *storage.LabelHints, matchers []*labels.Matcher,
	ask func(context.Context, *labelQuery) error,
) ([]string, error) {
	if s.closed {
		return nil, ErrClosed
	}
	sh := &share{want: labelPageBytes * int64(min(len(s.blocks), s.l.cfg.ParallelBlocks))}
	if len(matchers) > 0 {
		if err := s.reserve(ctx, sh); err != nil {
			return nil, s.l.lateError(err)
		}
		defer s.giveBack(sh)
	}
	var mu sync.Mutex
	all := map[string]struct{}{}
	err := s.eachBlock(ctx, func(ctx context.Context, i int) error {
		q := &labelQuery{s: s, external: externalLabels(s.blocks[i].Labels), share: sh, found: map[string]struct{}{}}
		if err := again(func() error { return q.ask(ctx, i, matchers, ask) }, nil); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		maps.Copy(all, q.found)
		return nil
	})
	if err != nil {
		return nil, s.l.lateError(err)
	}
	out := slices.Sorted(maps.Keys(all))
	if hints != nil && hints.Limit > 0 && len(out) > hints.Limit {
		out = out[:hints.Limit]
	}
	return out, nil
}

func (q *labelQuery) ask(
	ctx context.Context, i int, matchers []*labels.Matcher, ask func(context.Context, *labelQuery) error,
) (err error) {
	b := q.s.blocks[i]
	var possible bool
	if q.matchers, possible = q.external.reduce(matchers); !possible {
		return nil
	}
	q.pages = blockPages{l: q.s.l, tenant: q.s.tenant, id: b.ULID}
	if q.pages.dir, err = q.s.l.directory(ctx, q.s.tenant, b); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = q.pages.explain(err)
		}
	}()
	defer recovered(&err)
	return ask(ctx, q)
}

// valuesOf adds the values of a label that all matchers, which look at no other, match.
func (q *labelQuery) valuesOf(name string) error {
	values, err := q.pages.dir.LabelValues(q.s.l.dec, name)
	q.pages.measureDirectory()
	if err != nil {
		return err
	}
values:
	for _, value := range values {
		for _, m := range q.matchers {
			if !m.Matches(value) {
				continue values
			}
		}
		q.found[value] = struct{}{}
	}
	return nil
}

// ifAny calls fn when the block has a series that matches.
func (q *labelQuery) ifAny(ctx context.Context, fn func()) error {
	if len(q.external) == 0 {
		return nil
	}
	if len(q.matchers) == 0 {
		if q.pages.dir.Series > 0 {
			fn()
		}
		return nil
	}
	return q.eachPage(ctx, func(*index.Page, []int) bool {
		fn()
		return false
	})
}

// eachPage calls fn for each page with series that match and their positions, until it returns false.
func (q *labelQuery) eachPage(ctx context.Context, fn func(page *index.Page, at []int) bool) error {
	rest, err := q.pages.dir.Candidates(q.s.l.dec, math.MinInt64, math.MaxInt64, q.matchers...)
	q.pages.measureDirectory()
	if err != nil {
		return err
	}
	most := q.share.got / int64(min(len(q.s.blocks), q.s.l.cfg.ParallelBlocks))
	var at []int
	for len(rest) > 0 {
		n := q.pages.batch(rest, most)
		numbers := rest[:n]
		rest = rest[n:]
		pages, _ := q.pages.cached(numbers)
		if err := q.pages.fill(ctx, numbers, pages); err != nil {
			return err
		}
		for _, page := range pages {
			q.s.l.metrics.pages.Inc()
			if at = page.Select(at[:0], q.matchers); len(at) > 0 && !fn(page, at) {
				return nil
			}
		}
	}
	return nil
}
