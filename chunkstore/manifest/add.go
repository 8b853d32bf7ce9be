package manifest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/oklog/ulid/v2"
)

// request is one call of Add on its way.
type request struct {
	block Block
	done  chan result // has room for the one result
}

type result struct {
	added Added
	err   error
}

// queue holds the requests of one tenant that wait for a swap.
type queue struct {
	mu      sync.Mutex
	waiting []*request
}

func (q *queue) push(rs ...*request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, rs...)
}

func (q *queue) takeAll() []*request {
	q.mu.Lock()
	defer q.mu.Unlock()
	taken := q.waiting
	q.waiting = nil
	return taken
}

// withdraw takes r back, unless a swap has taken it.
func (q *queue) withdraw(r *request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = slices.DeleteFunc(q.waiting, func(w *request) bool { return w == r })
}

// Add announces a block that is completely in the bucket. On return it is listed, AddedAt and AddedVersion being set by
// the owner, or covered, as the answer says. Announcing a block again gives the same answer. Calls that arrive while a
// version is being written go into the next one together.
//
// After an error the block may or may not be listed: call Add again. Errors are as for Current; an entry that cannot be
// right is of kind Invalid.
func (o *Owner) Add(ctx context.Context, tenantID string, b Block) (Added, error) {
	added, err := o.add(ctx, tenantID, b)
	if err != nil {
		return Added{}, fmt.Errorf("add block %s to manifest of tenant %s: %w", b.ULID, tenantID, err)
	}
	return added, nil
}

func (o *Owner) add(ctx context.Context, tenantID string, b Block) (Added, error) {
	if err := b.validate(); err != nil {
		return Added{}, err
	}
	if len(b.Sources) == 0 {
		b.Sources = []ulid.ULID{b.ULID}
	}
	b.Sources = slices.Clone(b.Sources)
	c, err := o.use(tenantID)
	if err != nil {
		return Added{}, err
	}
	defer o.release(c)

	r := &request{block: b, done: make(chan result, 1)}
	c.queue.push(r)
	select {
	case res := <-r.done:
		return res.added, res.err
	case c.turn <- struct{}{}:
		defer c.unlock()
		return o.lead(ctx, c, r)
	case <-ctx.Done():
		c.queue.withdraw(r)
		return Added{}, ctx.Err()
	}
}

// lead writes one version for all who wait, unless an earlier leader has served r already. The caller has the turn.
func (o *Owner) lead(ctx context.Context, c *catalog, r *request) (Added, error) {
	select {
	case res := <-r.done:
		return res.added, res.err
	default:
	}
	batch := c.queue.takeAll()
	blocks := make([]Block, len(batch))
	for i := range batch {
		blocks[i] = batch[i].block
	}
	answers, entries, err := o.swap(ctx, c, blocks)
	if err != nil && ctx.Err() != nil {
		// It is only this caller who gives up. The others wait for the turn, and one of them leads next.
		c.queue.push(slices.DeleteFunc(batch, func(other *request) bool { return other == r })...)
		return Added{}, err
	}
	for i, served := range batch {
		res := result{err: err}
		if err == nil {
			res.added = answers[i]
		}
		served.done <- res
	}
	o.prune(ctx, c.tenant, entries)
	res := <-r.done
	return res.added, res.err
}
