package ring

import (
	"fmt"
	"time"
)

// futureTolerance is how far ahead of its arrival a sample's timestamp may be, at most.
const futureTolerance = 30 * time.Minute

// Forget decides whether an ingester that does not answer may be forgotten without an operator's word: when it is
// proven that everything acknowledged that it held is in the bucket. The tombstone ends its epoch; reasons say, for a
// page, what is missing of the proof, and are empty exactly when it holds.
func (r *Ring) Forget(id string, now time.Time) (t Tombstone, reasons []string) {
	m, ok := r.Get(id)
	if !ok {
		return Tombstone{}, []string{fmt.Sprintf("there is no member %q", id)}
	}
	t = Tombstone{
		ID: m.ID, Epoch: m.Epoch, At: now.UnixMilli(), Zone: zoneOf(r.cfg, &m),
		Floor: m.Heartbeat + (r.cfg.HeartbeatTimeout + futureTolerance).Milliseconds(),
	}
	if r.Alive(m, now) {
		reasons = append(reasons, "it is alive")
	}
	return t, append(reasons, r.unproven(&m, now)...)
}

func (r *Ring) unproven(m *Member, now time.Time) (reasons []string) {
	return []string{"not implemented"}
}
