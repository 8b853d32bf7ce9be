package fanout

import (
	"sync"

	"github.com/duramendb/duramen/ring"
)

// departures counts the ingesters that have left for good, each once. They are told by their entries in the ring, which
// stay there for longer than their departure matters. Safe for concurrent use.
type departures struct {
	mu   sync.Mutex
	n    uint64
	seen map[departed]bool
}

// departed is one that left: an instance comes back with a higher epoch, and may leave again.
type departed struct {
	id    string
	epoch uint64
}

// count returns how many have left as r has it, or more.
func (d *departures) count(r *ring.Ring) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := map[departed]bool{}
	for _, e := range r.All() {
		if e.Forgotten == nil && !(e.Member.State == ring.Left && e.Member.Has(ring.RoleIngester)) {
			continue
		}
		who := departed{e.ID(), e.Epoch()}
		now[who] = true
		if !d.seen[who] {
			d.n++
		}
	}
	d.seen = now
	return d.n
}
