package reader

import (
	"container/list"
	"context"
	"fmt"
	"sync"
)

// indexCache keeps indexes within a budget of bytes, least recently used ones leaving first. An index in use never
// leaves, so that the budget counts all of them; it leaves when its last handle is closed and the budget is exceeded.
type indexCache struct {
	budget  int64
	metrics *metrics

	mu      sync.Mutex
	entries map[string]*indexEntry
	unused  *list.List // of *indexEntry without handles, least recently used first
	loading map[string]chan struct{}
	bytes   int64
}

type indexEntry struct {
	key     string
	index   *blockIndex
	handles int
	unused  *list.Element // nil while in use
	// discarded: nobody finds it any more, and it leaves with its last handle.
	discarded bool
}

func newIndexCache(budget int64, m *metrics) *indexCache {
	return &indexCache{
		budget: budget, metrics: m,
		entries: map[string]*indexEntry{}, unused: list.New(), loading: map[string]chan struct{}{},
	}
}

// acquire returns the index named key, calling load when it is not in memory. Concurrent callers for one key wait for
// one load; when it fails the next of them tries with its own context, so that a query that was cancelled fails no
// other. The caller calls release exactly once when it is done.
func (c *indexCache) acquire(
	ctx context.Context, key string, load func(context.Context) (*blockIndex, error),
) (ix *blockIndex, release func(), err error) {
	for {
		c.mu.Lock()
		if e, ok := c.entries[key]; ok {
			c.metrics.indexRequests.WithLabelValues("hit").Inc()
			ix, release = e.index, c.hold(e)
			c.mu.Unlock()
			return ix, release, nil
		}
		wait, ok := c.loading[key]
		if !ok {
			break
		}
		c.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("wait for %s, which another query reads: %w", key, ctx.Err())
		}
	}
	done := make(chan struct{})
	c.loading[key] = done
	c.mu.Unlock()
	c.metrics.indexRequests.WithLabelValues("miss").Inc()

	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.loading, key)
		close(done)
		if err == nil {
			e := &indexEntry{key: key, index: ix}
			c.entries[key] = e
			c.add(ix.bytes)
			release = c.hold(e)
			c.trim()
		}
	}()
	ix, err = load(ctx)
	return ix, nil, err
}

// hold counts one more handle of e and returns what gives it back. The lock is held.
func (c *indexCache) hold(e *indexEntry) (release func()) {
	e.handles++
	if e.unused != nil {
		c.unused.Remove(e.unused)
		e.unused = nil
	}
	return sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if e.handles--; e.handles > 0 {
			return
		}
		if e.discarded {
			c.add(-e.index.bytes)
			return
		}
		e.unused = c.unused.PushBack(e)
		c.trim()
	})
}

// discard makes the next acquire of key load the index again. The caller holds ix, which turned out to be damaged.
func (c *indexCache) discard(key string, ix *blockIndex) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.entries[key]; ok && e.index == ix {
		e.discarded = true
		delete(c.entries, key)
	}
}

// trim drops unused indexes until the budget is kept. The lock is held.
func (c *indexCache) trim() {
	for c.bytes > c.budget && c.unused.Len() > 0 {
		c.drop(c.unused.Front())
	}
}

// purge drops all unused indexes.
func (c *indexCache) purge() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.unused.Len() > 0 {
		c.drop(c.unused.Front())
	}
}

func (c *indexCache) drop(el *list.Element) {
	e := c.unused.Remove(el).(*indexEntry)
	delete(c.entries, e.key)
	c.add(-e.index.bytes)
}

func (c *indexCache) add(n int64) {
	c.bytes += n
	c.metrics.indexBytes.Set(float64(c.bytes))
}
