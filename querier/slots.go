package querier

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/tracing"
)

// retryQueued is what a client is told to wait that found its tenant's queue full.
const retryQueued = 5 * time.Second

// slots bounds how many queries run at the same time, and lets those that wait run in a fair order: the next slot is for
// the tenant that has the fewest running, among equals for the one that was served longest ago, and within a tenant for the
// query that came first. So a tenant that sends a hundred queries delays another's by the rest of one, not by all of them.
//
// Queries that need the store get three of four slots at most, so that a store that hangs does not stop those over recent
// samples. And from eight slots on one tenant gets seven of eight at most, of either kind, so that another need not wait
// even for the first of its queries to end. Safe for concurrent use.
type slots struct {
	what    string // that waits, for errors
	most    [2]int // in all, and of those that need the store
	limits  Limits
	metrics slotMetrics

	mu      sync.Mutex
	running [2]int // in all, and of those that need the store
	tenants map[string]*tenantSlots
	came    uint64 // queries so far
	served  uint64 // slots given so far
}

type slotMetrics struct {
	running, waiting prometheus.Gauge
	waitSeconds      prometheus.Observer
	refused          prometheus.Counter
}

// tenantSlots is a tenant that has queries running or waiting.
type tenantSlots struct {
	running [2]int // in all, and of those that need the store
	waiting [2]*list.List
	// served is twice the number of the slot that it got last. One without any stands before whoever got the latest, and
	// behind all that waited by then, so that tenants who come and go starve nobody.
	served uint64
}

// ticket is one query that waits.
type ticket struct {
	number uint64
	slot   chan struct{} // closed when it is given
	given  bool          // guarded by slots.mu
}

// The kinds of slot.
const (
	recentSlot = iota
	storeSlot
)

// newSlots returns n slots for what the word names.
func newSlots(what string, n int, limits Limits, m slotMetrics) *slots {
	return &slots{what: what, most: [2]int{n, n - n/4}, limits: limits, metrics: m, tenants: map[string]*tenantSlots{}}
}

// take waits for a slot until ctx ends. A nil error obliges to call release, once. A tenant with too many that wait already
// gets an error of kind Limited; a wait that ends without a slot is Unavailable, or Canceled when the client went away.
func (s *slots) take(ctx context.Context, tenantID string, kind int) (release func(), err error) {
	mine, err := s.enter(tenantID, kind)
	if err != nil {
		return nil, err
	}
	release = func() { s.giveBack(tenantID, kind) }
	if mine == nil { // at once; a query that is late already learns so from what it does next
		s.metrics.waitSeconds.Observe(0)
		return release, nil
	}
	_, span := tracing.Start(ctx, "querier.wait_for_slot")
	defer span.End()
	start := time.Now()
	select {
	case <-mine.slot:
	case <-ctx.Done():
		if !s.withdraw(tenantID, kind, mine) {
			return nil, s.errNoSlot(ctx)
		}
	}
	s.metrics.waitSeconds.Observe(time.Since(start).Seconds())
	return release, nil
}

func (s *slots) errNoSlot(ctx context.Context) error {
	kind, text := errkind.Canceled, "canceled"
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		kind, text = errkind.Unavailable, "timed out"
	}
	return errkind.New(kind, "%s while waiting for other %s to end: %w", text, s.what, ctx.Err())
}

// enter queues a query and gives out what can be given. The ticket is nil when the query has its slot.
func (s *slots) enter(tenantID string, kind int) (*ticket, error) {
	most := s.limits.MaxQueuedQueries(tenantID)
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.of(tenantID)
	s.came++
	mine := &ticket{number: s.came, slot: make(chan struct{})}
	last := own.waiting[kind].PushBack(mine)
	s.metrics.waiting.Inc()
	s.give()
	switch n := own.queued(); {
	case mine.given:
		return nil, nil
	case most > 0 && n > most:
		own.waiting[kind].Remove(last)
		s.metrics.waiting.Dec()
		s.metrics.refused.Inc()
		return nil, &errkind.Error{Kind: errkind.Limited, RetryAfter: retryQueued, Err: fmt.Errorf(
			"tenant %s has %d %s waiting for their turn; the limit max_queued_queries is %d", tenantID, n-1, s.what, most)}
	default:
		return mine, nil
	}
}

// of returns the entry of a tenant, a new one if need be. The caller holds mu.
func (s *slots) of(tenantID string) *tenantSlots {
	own, ok := s.tenants[tenantID]
	if !ok {
		own = &tenantSlots{waiting: [2]*list.List{list.New(), list.New()}, served: max(1, 2*s.served) - 1}
		s.tenants[tenantID] = own
	}
	return own
}

// withdraw takes a query out of its queue. It reports whether the query had got its slot before.
func (s *slots) withdraw(tenantID string, kind int, mine *ticket) (given bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if mine.given {
		return true
	}
	queue := s.tenants[tenantID].waiting[kind]
	for e := queue.Front(); e != nil; e = e.Next() {
		if e.Value == any(mine) {
			queue.Remove(e)
			s.metrics.waiting.Dec()
			break
		}
	}
	s.forgetIdle(tenantID)
	return false
}

// giveBack ends the use of a slot and gives it to the next.
func (s *slots) giveBack(tenantID string, kind int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.tenants[tenantID]
	for k := recentSlot; k <= kind; k++ {
		s.running[k]--
		own.running[k]--
	}
	s.metrics.running.Dec()
	s.forgetIdle(tenantID)
	s.give()
}

// forgetIdle drops a tenant that has nothing here. The caller holds mu.
func (s *slots) forgetIdle(tenantID string) {
	if own := s.tenants[tenantID]; own.queued() == 0 && own.running[recentSlot] == 0 {
		delete(s.tenants, tenantID)
	}
}

// give gives slots until there is none left, or nobody who may have one. The caller holds mu.
func (s *slots) give() {
	for {
		own, kind := s.next()
		if own == nil {
			return
		}
		for k := recentSlot; k <= kind; k++ {
			s.running[k]++
			own.running[k]++
		}
		s.served++
		own.served = 2 * s.served
		first := own.waiting[kind].Front()
		t := ticketOf(first)
		own.waiting[kind].Remove(first)
		t.given = true
		close(t.slot)
		s.metrics.waiting.Dec()
		s.metrics.running.Inc()
	}
}

// next returns who gets the next slot, and of which kind; nil when nobody may have one. The caller holds mu.
func (s *slots) next() (best *tenantSlots, kind int) {
	var bestFirst *ticket
	for _, own := range s.tenants {
		k, first := s.firstOf(own)
		if first == nil || best != nil && !own.before(first, best, bestFirst) {
			continue
		}
		best, bestFirst, kind = own, first, k
	}
	return best, kind
}

// before reports whether a tenant gets a slot before another.
func (own *tenantSlots) before(first *ticket, other *tenantSlots, otherFirst *ticket) bool {
	switch {
	case own.running[recentSlot] != other.running[recentSlot]:
		return own.running[recentSlot] < other.running[recentSlot]
	case own.served != other.served:
		return own.served < other.served
	default:
		return first.number < otherFirst.number
	}
}

// firstOf returns the query of a tenant that came first of those that may run, and its kind; nil when there is none.
func (s *slots) firstOf(own *tenantSlots) (kind int, first *ticket) {
	for k := range own.waiting {
		front := own.waiting[k].Front()
		if front == nil || !s.free(own, k) {
			continue
		}
		if t := ticketOf(front); first == nil || t.number < first.number {
			kind, first = k, t
		}
	}
	return kind, first
}

// free reports whether a tenant may have one more slot of a kind. One of the store's takes one of all as well.
func (s *slots) free(own *tenantSlots, kind int) bool {
	for k := recentSlot; k <= kind; k++ {
		if s.running[k] >= s.most[k] || own.running[k] >= s.most[k]-s.most[k]/8 {
			return false
		}
	}
	return true
}

func (own *tenantSlots) queued() int {
	return own.waiting[recentSlot].Len() + own.waiting[storeSlot].Len()
}

func ticketOf(e *list.Element) *ticket { return e.Value.(*ticket) } //nolint:forcetypeassert // queues hold nothing else
