package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// entryOverhead is what an entry takes besides its value: the entry, its place in the map and the memory of a key that
// left, measured with keys of two words.
const entryOverhead = 256

// protectedShare is the part of the budget, in percent, for values that were asked for again. The rest is for values
// that have to prove themselves, so that one large scan pushes out other scans only.
const protectedShare = 80

// Memory keeps values within a budget of bytes. Values that were asked for only once leave first, then the least
// recently used; the keys of those that left are remembered for a while, and one that comes back counts as asked for
// again. Values are shared: nobody changes one. Safe for concurrent use; it runs no goroutine.
type Memory[K comparable, V any] struct {
	name    string
	budget  int64
	size    func(V) int64
	metrics *memoryMetrics

	mu      sync.Mutex
	entries map[K]*entry[K, V]
	loads   map[K]*load[V]
	// once and again hold all entries, those asked for once and those asked for again; most recently used first.
	once, again list[K, V]
	// left and leftBefore are keys of values that were evicted. When left has half as many as there are entries it
	// becomes leftBefore.
	left, leftBefore map[K]struct{}
}

// load is a value on its way. Its fields are set before done is closed.
type load[V any] struct {
	done  chan struct{}
	value V
	err   error
	// abandoned: whoever loaded it went away, which says nothing about the value.
	abandoned bool
}

// errNoAnswer is what waiters get when a loader panics.
var errNoAnswer = errors.New("the load ended without an answer")

// NewMemory returns an empty cache of at most budget bytes by size, which says how many bytes of heap a value keeps
// alive; a small constant for each entry is added. The name tells caches apart in metrics. With a budget of 0 nothing is
// kept, and concurrent loads are still shared.
func NewMemory[K comparable, V any](
	name string, budget int64, size func(V) int64, reg prometheus.Registerer,
) *Memory[K, V] {
	m := &Memory[K, V]{
		name: name, budget: budget, size: size, metrics: newMemoryMetrics(name, reg),
		entries: map[K]*entry[K, V]{}, loads: map[K]*load[V]{}, left: map[K]struct{}{},
	}
	m.once.init()
	m.again.init()
	m.metrics.limit.Set(float64(budget))
	return m
}

// Get returns the value of key, calling load when it is not in memory. Callers that come meanwhile wait for that load
// and share its value or its error, which is not kept; when the caller whose load it is goes away, the next one loads
// with its own context. A caller whose ctx ends leaves at once. A value larger than the budget is returned and not kept.
//
// Hot: a hit takes one lock and allocates nothing.
func (m *Memory[K, V]) Get(ctx context.Context, key K, load func(context.Context) (V, error)) (V, error) {
	for {
		v, l, own := m.find(key)
		switch {
		case l == nil:
			return v, nil
		case own:
			return m.load(ctx, key, l, load)
		}
		select {
		case <-l.done:
		case <-ctx.Done():
			var none V
			return none, fmt.Errorf("wait for %s that another query reads: %w", m.name, ctx.Err())
		}
		if !l.abandoned {
			return l.value, l.err
		}
		if err := ctx.Err(); err != nil {
			var none V
			return none, err
		}
	}
}

// Peek returns the value of key when it is in memory, which counts as asking for it. It waits for nothing.
func (m *Memory[K, V]) Peek(key K) (v V, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries[key]
	if !ok {
		return v, false
	}
	m.metrics.hits.Inc()
	m.touch(e)
	return e.value, true
}

// Discard makes the next Get of key load again: its value turned out to be bad. A load that runs is not kept.
func (m *Memory[K, V]) Discard(key K) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.loads, key)
	if e, ok := m.entries[key]; ok {
		m.drop(e)
	}
}

// Measure asks for the size of key's value again, which has grown in use, and makes room for it.
func (m *Memory[K, V]) Measure(key K) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries[key]
	if !ok {
		return
	}
	n := m.size(e.value) + entryOverhead
	if n == e.bytes {
		return
	}
	l := e.list
	l.remove(e)
	e.bytes = n
	l.push(e)
	m.trim(0)
	m.count()
}

// Bytes returns what the cache holds, as its gauge does.
func (m *Memory[K, V]) Bytes() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.once.bytes + m.again.bytes
}

// Purge drops all values.
func (m *Memory[K, V]) Purge() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.entries {
		m.drop(e)
	}
	m.left, m.leftBefore = map[K]struct{}{}, nil
}

// find returns the value of key, or its load and whether that is the caller's to do.
func (m *Memory[K, V]) find(key K) (v V, l *load[V], own bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.entries[key]; ok {
		m.metrics.hits.Inc()
		m.touch(e)
		return e.value, nil, false
	}
	m.metrics.misses.Inc()
	if l, ok := m.loads[key]; ok {
		return v, l, false
	}
	l = &load[V]{done: make(chan struct{}), err: errNoAnswer}
	m.loads[key] = l
	return v, l, true
}

// load calls fn for l and tells those who wait.
func (m *Memory[K, V]) load(ctx context.Context, key K, l *load[V], fn func(context.Context) (V, error)) (V, error) {
	defer func() {
		l.abandoned = l.err != nil && ctx.Err() != nil
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.loads[key] == l {
			delete(m.loads, key)
			if l.err == nil {
				m.add(key, l.value)
			}
		}
		close(l.done)
	}()
	l.value, l.err = fn(ctx)
	return l.value, l.err
}

// add keeps v, making room for it. The lock is held and key is not there.
func (m *Memory[K, V]) add(key K, v V) {
	n := m.size(v) + entryOverhead
	if n > m.budget {
		m.metrics.passed.Inc()
		return
	}
	m.trim(n)
	e := &entry[K, V]{key: key, value: v, bytes: n}
	m.entries[key] = e
	m.once.push(e)
	if m.wasHere(key) {
		m.touch(e)
	}
	m.count()
}

// trim evicts until n more bytes, at most the budget, fit. The lock is held.
func (m *Memory[K, V]) trim(n int64) {
	for m.once.bytes+m.again.bytes+n > m.budget {
		victim := m.once.last()
		if victim == nil {
			victim = m.again.last()
		}
		m.remember(victim.key)
		m.drop(victim)
		m.metrics.evicted.Inc()
	}
}

// remember notes the key of a value that has to leave. The lock is held.
func (m *Memory[K, V]) remember(key K) {
	if len(m.left) >= max(len(m.entries)/2, 1) {
		m.leftBefore, m.left = m.left, map[K]struct{}{}
	}
	m.left[key] = struct{}{}
}

// wasHere reports whether the value of key left not long ago, and forgets that. The lock is held.
func (m *Memory[K, V]) wasHere(key K) bool {
	_, recently := m.left[key]
	_, before := m.leftBefore[key]
	delete(m.left, key)
	delete(m.leftBefore, key)
	return recently || before
}

// touch notes that e was asked for again. The lock is held.
func (m *Memory[K, V]) touch(e *entry[K, V]) {
	e.list.remove(e)
	m.again.push(e)
	for limit := m.budget / 100 * protectedShare; m.again.bytes > limit; {
		oldest := m.again.last()
		if oldest == e {
			return // larger than the share by itself
		}
		m.again.remove(oldest)
		m.once.push(oldest)
	}
}

func (m *Memory[K, V]) drop(e *entry[K, V]) {
	e.list.remove(e)
	delete(m.entries, e.key)
	m.count()
}

func (m *Memory[K, V]) count() {
	m.metrics.used.Set(float64(m.once.bytes + m.again.bytes))
	m.metrics.entries.Set(float64(len(m.entries)))
}
