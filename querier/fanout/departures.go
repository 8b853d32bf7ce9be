package fanout

import (
	"sync"

	"github.com/duramendb/duramen/ring"
)

// departures counts the times that ingesters ceased to have what only the bucket has since, each once: they left, were
// forgotten, or a disk that was lost matters no more. They are told by their entries in the ring, which say so for longer
// than it matters. Safe for concurrent use.
type departures struct {
	mu   sync.Mutex
	n    uint64
	seen map[departed]bool
}

// departed is one such time: an instance comes back, and may leave again.
type departed struct {
	id    string
	floor int64
}

// count returns how many have left as r has it, or more.
func (d *departures) count(r *ring.Ring) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := map[departed]bool{}
	for _, e := range r.All() {
		floor := r.FloorOf(&e)
		if floor == 0 {
			continue
		}
		who := departed{e.ID(), floor}
		now[who] = true
		if !d.seen[who] {
			d.n++
		}
	}
	d.seen = now
	return d.n
}
