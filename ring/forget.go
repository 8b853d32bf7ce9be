package ring

import (
	"fmt"
	"time"
)

// futureTolerance is how far ahead of its arrival a sample's timestamp may be, at most.
const futureTolerance = 30 * time.Minute

// Forget decides whether a member that does not answer may be forgotten without an operator's word: when it is proven
// that all acknowledged samples that it held are in the bucket. The tombstone ends its epoch; reasons say, for a page,
// what is missing of the proof, and are empty exactly when it holds.
//
// The proof: an acknowledged sample is in a quorum of zones, so in another zone too. What arrived before the last
// heartbeat was not older than that by more than the out-of-order window, nor newer by more than the future tolerance.
// When all ingesters of all other zones, none of which lost a disk or is away itself, have shipped past that, it is in
// the bucket.
func (r *Ring) Forget(id string, now time.Time) (t Tombstone, reasons []string) {
	m, ok := r.Get(id)
	if !ok {
		return Tombstone{}, []string{fmt.Sprintf("there is no member %q", id)}
	}
	t = Tombstone{
		ID: m.ID, Epoch: m.Epoch, At: now.UnixMilli(), Zone: zoneOf(r.cfg, &m),
		Floor: m.Heartbeat + (r.cfg.HeartbeatTimeout + futureTolerance).Milliseconds(),
	}
	switch {
	case m.State == Left:
		return t, []string{"it left by itself, with everything in the bucket; its entry is kept for its floor"}
	case r.Alive(m, now):
		return t, []string{"it is alive"}
	case !m.Has(RoleIngester):
		return t, nil
	}
	return t, r.unproven(&m, now)
}

// margin is how far beyond a moment ingesters have to have shipped, to have shipped what they had accepted by then.
func (r *Ring) margin() time.Duration { return max(r.cfg.OutOfOrderWindow, futureTolerance) }

// unproven says what is missing of the proof for an ingester that is away.
func (r *Ring) unproven(m *Member, now time.Time) (reasons []string) {
	if r.Quorum() < 2 {
		return []string{"there is one copy of each series, so nothing proves that the bucket has its samples"}
	}
	if m.LostBefore > 0 && !r.lossCleared(m) {
		reasons = append(reasons, "it had lost a disk before, and the other zones have not shipped what was on it")
	}
	if !m.HoldsData() {
		return reasons
	}
	zone, others := zoneOf(r.cfg, m), map[string]bool{}
	need := m.Heartbeat + (r.cfg.HeartbeatTimeout + r.margin()).Milliseconds()
	for i := range r.layout.ingesters {
		other := &r.layout.ingesters[i]
		name := zoneOf(r.cfg, other)
		if name == zone || !other.HoldsData() && other.LostBefore == 0 {
			continue
		}
		if reason := r.noWitness(other, m.Heartbeat, need, now); reason != "" {
			reasons = append(reasons, reason)
		}
		if other.Registered <= m.Heartbeat {
			others[name] = true
		}
	}
	if have, want := len(others), r.RF()-1; have < want {
		reasons = append(reasons, fmt.Sprintf(
			"%d other zones with ingesters of that time are known, and its samples may be in any of %d", have, want))
	}
	return reasons
}

// noWitness says why another zone's ingester does not prove that what it held at a time is in the bucket; "" when it
// does, or was not there then.
func (r *Ring) noWitness(other *Member, then, need int64, now time.Time) string {
	zone := zoneOf(r.cfg, other)
	switch {
	case other.LostBefore > 0 && !r.lossCleared(other):
		return fmt.Sprintf("%s in zone %s has lost a disk", other.ID, zone)
	case !r.Alive(*other, now):
		return fmt.Sprintf("%s in zone %s is away too", other.ID, zone)
	case other.Registered <= then && other.ShippedUpTo < need:
		return fmt.Sprintf("%s in zone %s has shipped what is before %s, and %s is needed",
			other.ID, zone, stamp(other.ShippedUpTo), stamp(need))
	default:
		return ""
	}
}

// stamp is a time for people.
func stamp(ms int64) string {
	if ms <= 0 {
		return "the beginning"
	}
	return time.UnixMilli(ms).UTC().Format(time.RFC3339)
}
