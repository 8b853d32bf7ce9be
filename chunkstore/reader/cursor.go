package reader

import (
	"context"
	"sort"

	"github.com/duramendb/duramen/chunkstore/index"
)

// cursor goes through the picked pages of a block. Pages that are not kept in memory it reads again, some at a time.
type cursor struct {
	b *blockSelection
	// loaded are the pages from the one at number from in b.picked.
	from   int
	loaded []*index.Page
}

// find returns the position in picked of the page with a series.
func (c *cursor) find(ordinal int) int {
	picked := c.b.picked
	return sort.Search(len(picked), func(i int) bool { return picked[i].first > ordinal }) - 1
}

// page returns a picked page.
func (c *cursor) page(ctx context.Context, at int) (*index.Page, error) {
	b := c.b
	if page := b.picked[at].page; page != nil {
		return page, nil
	}
	if at < c.from || at >= c.from+len(c.loaded) {
		if err := c.load(ctx, at); err != nil {
			return nil, b.pages.explain(err)
		}
	}
	return c.loaded[at-c.from], nil
}

// load reads a batch of pages.
func (c *cursor) load(ctx context.Context, at int) error {
	b := c.b
	c.loaded = nil
	var numbers []int
	for _, p := range b.picked[at:] {
		numbers = append(numbers, p.number)
	}
	numbers = numbers[:b.pages.batch(numbers, b.sel.batch)]
	pages, _ := b.pages.cached(numbers)
	if err := b.pages.fill(ctx, numbers, pages); err != nil {
		return err
	}
	c.from, c.loaded = at, pages
	return nil
}
