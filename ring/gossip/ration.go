package gossip

import (
	"sync"
	"time"
)

// rationInterval is how often one kind of line is logged at most.
const rationInterval = time.Minute

// ration lets a kind of line through once in a while.
type ration struct {
	now  func() time.Time
	mtx  sync.Mutex
	last map[string]time.Time
}

func newRation(now func() time.Time) *ration { return &ration{now: now, last: map[string]time.Time{}} }

func (r *ration) allow(kind string) bool {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	now := r.now()
	if last, ok := r.last[kind]; ok && now.Sub(last) < rationInterval {
		return false
	}
	r.last[kind] = now
	return true
}
