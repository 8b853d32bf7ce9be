package reader

import (
	"sync"

	"github.com/prometheus/prometheus/model/labels"
)

// recentLabels gives the series of several blocks that have equal labels one copy of them. A merge takes equal series of
// all blocks one after another, so what was given out last is enough to know. It is for one goroutine.
type recentLabels struct{ slots [256]labels.Labels }

// share returns lset, or its equal that is known already. The memory of lset stays the caller's.
func (r *recentLabels) share(hash uint64, lset labels.Labels) labels.Labels {
	slot := &r.slots[hash%uint64(len(r.slots))]
	if !labels.Equal(*slot, lset) {
		*slot = lset.Copy()
	}
	return *slot
}

// allLabels does the same for series that come in any order. It is safe for concurrent use.
type allLabels struct {
	mu    sync.Mutex
	known map[uint64]labels.Labels
}

// share returns lset, or its equal that is known already; isNew when lset was not. Hash is of labels that lset follows
// from. The memory of lset is retained.
func (a *allLabels) share(hash uint64, lset labels.Labels) (shared labels.Labels, isNew bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if known, ok := a.known[hash]; ok && labels.Equal(known, lset) {
		return known, false
	}
	if a.known == nil {
		a.known = map[uint64]labels.Labels{}
	}
	a.known[hash] = lset
	return lset, true
}
