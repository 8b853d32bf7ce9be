package distributor

import (
	"sync"
	"sync/atomic"
)

// maxShrinks bounds the work that one request does for the budget; the next one goes on.
const maxShrinks = 8

// tenants holds what the distributor keeps per tenant and bounds the series caches together: over budget, the tenant
// with the largest cache gives up its oldest entries, so that no tenant can evict a smaller one's.
type tenants struct {
	budget  int64
	bytes   atomic.Int64 // of all caches
	swept   atomic.Uint32
	metrics func() *metrics

	mu   sync.RWMutex
	byID map[string]*tenantState
}

// tenantState is one tenant's series cache, rate and counters. It is dropped when the tenant sent nothing for half an
// hour; a request that holds it meanwhile finishes on it.
type tenantState struct {
	id    string
	cache *cache
	rate  rateBucket
	tenantMetrics
	seen atomic.Uint32
}

// get returns the state of a tenant, created when there is none, and drops idle ones once a minute.
func (t *tenants) get(id string, minute uint32) *tenantState {
	if last := t.swept.Load(); last != minute && t.swept.CompareAndSwap(last, minute) {
		t.dropIdle(minute)
	}
	t.mu.RLock()
	s := t.byID[id]
	t.mu.RUnlock()
	if s == nil {
		s = t.add(id, minute)
	}
	if s.seen.Load() != minute {
		s.seen.Store(minute)
	}
	return s
}

func (t *tenants) add(id string, minute uint32) *tenantState {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.byID[id]; s != nil {
		return s
	}
	s := &tenantState{id: id, cache: newCache(&t.bytes), tenantMetrics: t.metrics().forTenant(id)}
	s.seen.Store(minute)
	t.byID[id] = s
	return s
}

func (t *tenants) dropIdle(minute uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, s := range t.byID {
		if minute-s.seen.Load() > unseenMinutes {
			delete(t.byID, id)
			s.cache.close()
			t.metrics().forget(id)
		}
	}
}

// keepBudget shrinks the largest caches until all fit.
func (t *tenants) keepBudget(minute uint32) (evicted int) {
	for range maxShrinks {
		if t.bytes.Load() <= t.budget {
			break
		}
		largest := t.largest()
		if largest == nil {
			break
		}
		evicted += largest.shrink(minute)
	}
	return evicted
}

func (t *tenants) largest() (c *cache) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	most := int64(0)
	for _, s := range t.byID {
		if _, n := s.cache.size(); n > most {
			c, most = s.cache, n
		}
	}
	return c
}

func (t *tenants) count() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.byID)
}

func (t *tenants) entries() (n int) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, s := range t.byID {
		e, _ := s.cache.size()
		n += e
	}
	return n
}
