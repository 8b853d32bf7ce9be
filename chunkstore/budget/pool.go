package budget

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/duramendb/duramen/internal/errkind"
)

// reserveShare is the part of the pool, one in so many, that only tenants who hold nothing may use: reservations last as
// long as queries, and one tenant's long ones would keep another's small one waiting for as long.
const reserveShare = 8

// rounds is how many turns of its tenant the largest reservation takes to be paid for.
const rounds = 8

// PoolConfig holds the bounds of a Pool.
type PoolConfig struct {
	// Bytes is the most that is reserved at once.
	Bytes int64
	// QueryBytes is the most that one reservation may be; it is at most Bytes.
	QueryBytes int64
	// MaxWait is how long a reservation waits; 0 means until its context ends.
	MaxWait time.Duration
}

// Pool hands out reservations of memory up to a hard cap. Who finds it full waits. Tenants take turns by deficit round
// robin: a turn is worth a fixed number of bytes, what is not spent is kept for the next, and within a tenant who came
// first is served first. So a tenant with many waiters delays another's first one by a turn, and as the one whose turn
// it is keeps it until there is room, small reservations do not starve a large one. A part of the pool is only for tenants
// who hold nothing, and they do not wait for one who does.
//
// One reservation must not be held while waiting for another: two such queries could wait for each other.
// Safe for concurrent use; it runs no goroutine.
type Pool struct {
	cfg     PoolConfig
	quantum int64
	reserve int64 // bytes for tenants who hold nothing
	metrics *poolMetrics

	mu      sync.Mutex
	used    int64
	holders map[string]int    // reservations of tenants that have some
	queues  map[string]*queue // of tenants with waiters
	turns   []*queue          // the same, in order of their turns; the first has its turn
	paid    bool              // the first has got the bytes of its turn
	waiting int
}

// queue is the waiters of one tenant.
type queue struct {
	tenant  string
	deficit int64
	waiters []*waiter
}

type waiter struct {
	n       int64
	granted chan struct{} // closed under the lock when the bytes are the waiter's
}

// NewPool returns an empty pool. A QueryBytes of 0 or above Bytes means Bytes.
func NewPool(cfg PoolConfig, reg prometheus.Registerer) *Pool {
	if cfg.QueryBytes <= 0 || cfg.QueryBytes > cfg.Bytes {
		cfg.QueryBytes = cfg.Bytes
	}
	p := &Pool{
		cfg: cfg, quantum: max(cfg.QueryBytes/rounds, 1), metrics: newPoolMetrics(reg), queues: map[string]*queue{},
		holders: map[string]int{}, reserve: min(cfg.Bytes/reserveShare, cfg.Bytes-cfg.QueryBytes),
	}
	p.metrics.limit.Set(float64(cfg.Bytes))
	return p
}

// QueryBytes is the most that one reservation may be.
func (p *Pool) QueryBytes() int64 { return p.cfg.QueryBytes }

// Acquire reserves n bytes and returns what gives them back; calling that again does nothing. It waits while others hold
// the memory. It fails with kind Unprocessable when n is more than one query may hold, with kind Limited after the
// longest wait, and with the context's error when ctx ends. n ≤ 0 reserves nothing.
func (p *Pool) Acquire(ctx context.Context, tenant string, n int64) (release func(), err error) {
	if n <= 0 {
		return func() {}, nil
	}
	if n > p.cfg.QueryBytes {
		p.metrics.refusedSize.Inc()
		return nil, errkind.New(errkind.Unprocessable, "the query needs %d bytes of chunk buffers at once, and the limit of "+
			"one query is %d (chunkstore.memory.query_share): ask for fewer series or a shorter range", n, p.cfg.QueryBytes)
	}
	if err := ctx.Err(); err != nil {
		return nil, p.gaveUp(n, err)
	}
	w := p.enqueue(tenant, n)
	if w != nil {
		if err := p.wait(ctx, tenant, w); err != nil {
			return nil, err
		}
	}
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.end(tenant, n)
	}), nil
}

// room is how much may be in use after one more reservation of a tenant. The lock is held.
func (p *Pool) room(tenant string) int64 {
	if p.holders[tenant] == 0 {
		return p.cfg.Bytes
	}
	return p.cfg.Bytes - p.reserve
}

// begin and end count a reservation of a tenant. The lock is held.
func (p *Pool) begin(tenant string, n int64) {
	p.holders[tenant]++
	p.use(n)
}

func (p *Pool) end(tenant string, n int64) {
	if p.holders[tenant]--; p.holders[tenant] == 0 {
		delete(p.holders, tenant)
	}
	p.use(-n)
	p.grant()
}

// TryAcquire is Acquire for who holds a reservation already: it never waits, and takes nothing from those who do. more
// counts as a part of what the query holds, which its holder keeps below QueryBytes.
func (p *Pool) TryAcquire(more int64) (release func(), ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if more > p.cfg.QueryBytes || p.waiting > 0 || p.used+more > p.cfg.Bytes-p.reserve {
		return nil, false
	}
	if more <= 0 {
		return func() {}, true
	}
	p.use(more)
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.use(-more)
		p.grant()
	}), true
}

// enqueue reserves n bytes at once, or returns the waiter that stands for them.
func (p *Pool) enqueue(tenant string, n int64) *waiter {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting == 0 && p.used+n <= p.room(tenant) {
		p.begin(tenant, n)
		return nil
	}
	q := p.queues[tenant]
	if q == nil {
		q = &queue{tenant: tenant}
		p.queues[tenant] = q
		p.turns = append(p.turns, q)
	}
	w := &waiter{n: n, granted: make(chan struct{})}
	q.waiters = append(q.waiters, w)
	p.count(1)
	p.grant()
	return w
}

// wait returns nil once w has its bytes. Otherwise w has left the queue and holds nothing.
func (p *Pool) wait(ctx context.Context, tenant string, w *waiter) error {
	var expired <-chan time.Time
	start := time.Now()
	if p.cfg.MaxWait > 0 {
		timer := time.NewTimer(p.cfg.MaxWait)
		defer timer.Stop()
		expired = timer.C
	}
	defer func() { p.metrics.waitSeconds.Observe(time.Since(start).Seconds()) }()
	select {
	case <-w.granted:
		return nil
	case <-ctx.Done():
		p.leave(tenant, w)
		p.metrics.refusedGone.Inc()
		return p.gaveUp(w.n, ctx.Err())
	case <-expired:
		p.leave(tenant, w)
		p.metrics.refusedTime.Inc()
		return &errkind.Error{
			Kind: errkind.Limited, RetryAfter: p.cfg.MaxWait,
			Err: fmt.Errorf("waited %s (chunkstore.memory.max_wait) for %d bytes of chunk buffers, of which there are %d: "+
				"other queries hold them", p.cfg.MaxWait, w.n, p.cfg.Bytes),
		}
	}
}

// gaveUp explains that a query's context ended before it got n bytes.
func (p *Pool) gaveUp(n int64, err error) error {
	return fmt.Errorf("wait for %d bytes of chunk buffers, of which there are %d (chunkstore.memory.*) and other queries hold "+
		"them: %w", n, p.cfg.Bytes, err)
}

// leave takes w out of its queue, or gives its bytes back when they came at the same moment.
func (p *Pool) leave(tenant string, w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-w.granted:
		p.end(tenant, w.n)
		return
	default:
	}
	q := p.queues[tenant]
	for i, other := range q.waiters {
		if other == w {
			q.waiters = append(q.waiters[:i], q.waiters[i+1:]...)
			break
		}
	}
	p.count(-1)
	if len(q.waiters) == 0 {
		p.remove(q)
	}
	p.grant()
}

// grant gives bytes to waiters in the order of turns until the next one has to wait for room. The lock is held.
func (p *Pool) grant() {
	for len(p.turns) > 0 {
		q := p.turns[0]
		if !p.paid {
			q.deficit += p.quantum
			p.paid = true
		}
		for len(q.waiters) > 0 && q.waiters[0].n <= q.deficit {
			w := q.waiters[0]
			if p.used+w.n > p.room(q.tenant) {
				if p.holders[q.tenant] > 0 {
					p.grantReserve()
				}
				return // its turn goes on when there is room
			}
			p.grantFirst(q)
		}
		if len(q.waiters) == 0 {
			p.remove(q)
			continue
		}
		p.turns = append(p.turns[1:], q)
		p.paid = false
	}
}

// grantFirst gives the first waiter of a tenant its bytes. The lock is held.
func (p *Pool) grantFirst(q *queue) {
	w := q.waiters[0]
	q.waiters[0] = nil
	q.waiters = q.waiters[1:]
	q.deficit -= w.n
	p.begin(q.tenant, w.n)
	p.count(-1)
	close(w.granted)
}

// grantReserve lets tenants who hold nothing pass the one whose turn it is, which does. The lock is held.
func (p *Pool) grantReserve() {
	for _, q := range slices.Clone(p.turns[1:]) {
		if p.holders[q.tenant] > 0 || p.used+q.waiters[0].n > p.cfg.Bytes {
			continue
		}
		if p.grantFirst(q); len(q.waiters) == 0 {
			p.remove(q)
		}
	}
}

// remove takes a tenant without waiters out of the turns; what it has not spent is gone. The lock is held.
func (p *Pool) remove(q *queue) {
	delete(p.queues, q.tenant)
	for i, other := range p.turns {
		if other == q {
			if i == 0 {
				p.paid = false
			}
			p.turns = append(p.turns[:i], p.turns[i+1:]...)
			return
		}
	}
}

func (p *Pool) use(n int64) {
	p.used += n
	p.metrics.used.Set(float64(p.used))
}

func (p *Pool) count(n int) {
	p.waiting += n
	p.metrics.waiting.Set(float64(p.waiting))
}
