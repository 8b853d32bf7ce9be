package fanout

import (
	"sync"
	"time"

	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/querier"
)

const (
	// disputeLasts is how long all zones are asked about a tenant of whom two zones held different values: what they hold
	// stays different, so that the next query would meet it again.
	disputeLasts = 5 * time.Minute
	// maxDisputes bounds the tenants that are remembered. Beyond it the one whose time is up first is forgotten.
	maxDisputes = 10_000
)

// disputes remembers of which tenants two zones have held different values for one time. Two cannot outvote one another,
// so that all zones are asked, and the value of most of them wins.
type disputes struct {
	mu       sync.Mutex
	byTenant map[string]time.Time // until when
}

func (d *disputes) note(tenantID string, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.byTenant == nil {
		d.byTenant = map[string]time.Time{}
	}
	if _, known := d.byTenant[tenantID]; !known && len(d.byTenant) >= maxDisputes {
		first := ""
		for id, until := range d.byTenant {
			if first == "" || until.Before(d.byTenant[first]) {
				first = id
			}
		}
		delete(d.byTenant, first)
	}
	d.byTenant[tenantID] = now.Add(disputeLasts)
}

func (d *disputes) open(tenantID string, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	until, ok := d.byTenant[tenantID]
	if ok && !now.Before(until) {
		delete(d.byTenant, tenantID)
		ok = false
	}
	return ok
}

// disputed ends a Select of which two zones hold different values while a third has not been asked. The query that is
// carried out anew asks all of them; when no further one answers then, the larger value wins as everywhere.
func (s *session) disputed(t int64) error {
	if s.every || len(s.zones) == len(s.ring.ReadZones()) {
		return nil
	}
	s.f.disputes.note(s.tenantID, s.f.now())
	s.f.metrics.disputes.Inc()
	return errkind.New(errkind.Unavailable, "%w: ingesters of zones %v hold different values at %s, and the other zones are "+
		"asked as well", querier.ErrAnew, s.zones, instant(t))
}
