package manifest

import (
	"context"
	"slices"
	"sync"
)

// request is one edit on its way.
type request struct {
	edit edit
	done chan result // has room for the one result
}

// result is what became of an edit.
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

// submit has the edit worked into the next version and waits for it. Edits that arrive while a version is being written
// go into the next one together.
func (o *Owner) submit(ctx context.Context, tenantID string, e edit) (Added, error) {
	c, err := o.use(tenantID)
	if err != nil {
		return Added{}, err
	}
	defer o.release(c)

	r := &request{edit: e, done: make(chan result, 1)}
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
	edits := make([]edit, len(batch))
	for i := range batch {
		edits[i] = batch[i].edit
	}
	results, entries, err := o.swap(ctx, c, edits)
	if err != nil && ctx.Err() != nil {
		// It is only this caller who gives up. The others wait for the turn, and one of them leads next.
		c.queue.push(slices.DeleteFunc(batch, func(other *request) bool { return other == r })...)
		return Added{}, err
	}
	for i, served := range batch {
		res := result{err: err}
		if err == nil {
			res = results[i]
		}
		served.done <- res
	}
	o.prune(ctx, c.tenant, entries)
	res := <-r.done
	return res.added, res.err
}
