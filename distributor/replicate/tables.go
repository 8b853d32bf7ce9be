package replicate

import (
	"sync"
	"sync/atomic"
)

// maxShrinks bounds the work that one push does for the budget; the next one goes on.
const maxShrinks = 8

// tables holds the table of each tenant and bounds them together: over budget, the tenant with the largest gives up the
// series that it did not see for longest, so that no tenant can evict a smaller one's.
type tables struct {
	budget int64
	bytes  atomic.Int64
	swept  atomic.Uint32

	mu   sync.RWMutex
	byID map[string]*table
}

// get returns the table of a tenant, created when there is none, and drops idle ones once a minute. A push that holds one
// meanwhile finishes on it.
func (t *tables) get(id string, rf int, minute uint32) *table {
	if last := t.swept.Load(); last != minute && t.swept.CompareAndSwap(last, minute) {
		t.dropIdle(minute)
	}
	t.mu.RLock()
	tab := t.byID[id]
	t.mu.RUnlock()
	if tab == nil {
		tab = t.add(id, rf, minute)
	}
	if tab.seen.Load() != minute {
		tab.seen.Store(minute)
	}
	return tab
}

func (t *tables) add(id string, rf int, minute uint32) *table {
	t.mu.Lock()
	defer t.mu.Unlock()
	if tab := t.byID[id]; tab != nil {
		return tab
	}
	tab := newTable(id, rf, &t.bytes)
	tab.seen.Store(minute)
	t.byID[id] = tab
	return tab
}

func (t *tables) dropIdle(minute uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, tab := range t.byID {
		if int32(minute-tab.seen.Load()) > unseenMinutes {
			delete(t.byID, id)
			tab.close()
		}
	}
}

// keepBudget shrinks the largest tables until all fit, and returns how many series went.
func (t *tables) keepBudget(minute uint32) (evicted int) {
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

func (t *tables) largest() (largest *table) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	most := int64(0)
	for _, tab := range t.byID {
		if _, n := tab.size(); n > most {
			largest, most = tab, n
		}
	}
	return largest
}

func (t *tables) series() (n int) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, tab := range t.byID {
		series, _ := tab.size()
		n += series
	}
	return n
}
