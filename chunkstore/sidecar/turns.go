package sidecar

import (
	"container/list"
	"context"
	"sync"
)

// turns lets a number of builds go on at a time. Tenants that wait take turns, so that one with a year of blocks does not
// keep another's single one waiting behind all of them.
type turns struct {
	mu      sync.Mutex
	free    int
	waiting map[string]*list.List // of *waiter, by tenant, in the order in which they came; none is empty
	tenants *list.List            // of string: who waits, next one first
}

type waiter struct {
	ready chan struct{} // closed under the lock when it is the waiter's turn
}

func newTurns(n int) *turns {
	return &turns{free: n, waiting: map[string]*list.List{}, tenants: list.New()}
}

// wait returns when it is the caller's turn; done ends it. The error is that of ctx.
func (t *turns) wait(ctx context.Context, tenant string) (done func(), err error) {
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return t.next, nil
	}
	w := &waiter{make(chan struct{})}
	queue := t.waiting[tenant]
	if queue == nil {
		queue = list.New()
		t.waiting[tenant] = queue
		t.tenants.PushBack(tenant)
	}
	place := queue.PushBack(w)
	t.mu.Unlock()
	select {
	case <-w.ready:
		return t.next, nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-w.ready: // both at once: the turn is passed on
		t.pass()
	default:
		queue.Remove(place)
		if queue.Len() == 0 {
			t.forget(tenant)
		}
	}
	return nil, ctx.Err()
}

func (t *turns) next() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pass()
}

// pass gives a turn that has ended to the tenant that waits longest for one.
func (t *turns) pass() {
	first := t.tenants.Front()
	if first == nil {
		t.free++
		return
	}
	tenant := first.Value.(string) //nolint:forcetypeassert // the list holds nothing else
	queue := t.waiting[tenant]
	w := queue.Remove(queue.Front()).(*waiter) //nolint:forcetypeassert // the list holds nothing else
	if queue.Len() == 0 {
		t.forget(tenant)
	} else {
		t.tenants.MoveToBack(first)
	}
	close(w.ready)
}

func (t *turns) forget(tenant string) {
	delete(t.waiting, tenant)
	for e := t.tenants.Front(); e != nil; e = e.Next() {
		if e.Value == tenant {
			t.tenants.Remove(e)
			return
		}
	}
}
