package ring

import (
	"math"
	"slices"
	"strings"
	"time"
)

// floorRetention is how long the floor of a member that left matters: longer than ingesters keep blocks, which is what
// a reader's cut between ingesters and bucket is made of.
const floorRetention = 13 * time.Hour

// Zone is what a reader has to ask of one zone.
type Zone struct {
	Name string
	// Members are all that may hold samples which are nowhere else, dead ones included. The zone has answered in full
	// when each of them has.
	Members []Member
	// CompleteFrom: a query that reaches below it does not get everything from this zone, even in full, because a disk
	// was lost. In milliseconds; math.MinInt64 is no such thing.
	CompleteFrom int64
}

// ReadZones returns the zones that hold what is not in the bucket, by name.
func (r *Ring) ReadZones() []Zone {
	var zones []Zone
	for i := range r.layout.ingesters {
		m := &r.layout.ingesters[i]
		lost := m.LostBefore > 0 && !r.lossCleared(m)
		if !m.HoldsData() && !lost {
			continue
		}
		name := zoneOf(r.cfg, m)
		if len(zones) == 0 || zones[len(zones)-1].Name != name {
			zones = append(zones, Zone{Name: name, CompleteFrom: math.MinInt64})
		}
		z := &zones[len(zones)-1]
		if m.HoldsData() {
			z.Members = append(z.Members, *m)
		}
		if lost {
			z.CompleteFrom = max(z.CompleteFrom, m.LostBefore)
		}
	}
	return r.withLossesOfLeft(zones)
}

// withLossesOfLeft adds what was lost by members that have left: what they had they brought to the bucket, and that was not
// everything. A loss matters for as long as the entry stays.
func (r *Ring) withLossesOfLeft(zones []Zone) []Zone {
	for i := range r.members {
		m := &r.members[i]
		if m.State != Left || !m.Has(RoleIngester) || m.LostBefore <= 0 || r.lossCleared(m) {
			continue
		}
		name := zoneOf(r.cfg, m)
		at, ok := slices.BinarySearchFunc(zones, name, func(z Zone, name string) int { return strings.Compare(z.Name, name) })
		if !ok {
			zones = slices.Insert(zones, at, Zone{Name: name, CompleteFrom: math.MinInt64})
		}
		zones[at].CompleteFrom = max(zones[at].CompleteFrom, m.LostBefore)
	}
	return zones
}

// MayMiss is the number of ReadZones that need not answer. Below 0 the ring knows of too few zones for any answer:
// others may exist that hold what these have not.
//
// An acknowledged sample is in a quorum of zones, so one fewer can be missing. Zones that this process has not heard of
// count as missing.
func (r *Ring) MayMiss() int {
	return r.Quorum() - 1 - max(0, r.RF()-len(r.ReadZones()))
}

// lossCleared reports whether a lost disk is of no importance any more: everything acknowledged before the loss has
// another copy in one of the other zones, and all that these had until then is in the bucket. The out-of-order window on
// top is for what arrived late.
//
// Another zone that has lost a disk as well proves nothing: what was on both is gone. Then it takes an operator's word.
func (r *Ring) lossCleared(lost *Member) bool {
	if r.Quorum() < 2 {
		return false
	}
	zone, others := zoneOf(r.cfg, lost), map[string]bool{}
	need := lost.LostBefore + r.margin().Milliseconds()
	for i := range r.members {
		m := &r.members[i]
		name := zoneOf(r.cfg, m)
		if name == zone || !m.Has(RoleIngester) {
			continue
		}
		if m.LostBefore > 0 || m.HoldsData() && m.ShippedUpTo < need {
			return false
		}
		if m.HoldsData() {
			others[name] = true
		}
	}
	return len(others) >= r.RF()-1
}

// LossCleared reports whether the member's LostBefore has become irrelevant, so that the member can take it back.
// Readers do not wait for that.
func (r *Ring) LossCleared(m Member) bool { return m.LostBefore > 0 && r.lossCleared(&m) }

// Floor is the highest FloorOf the ingesters within the last 13 hours: below it the bucket answers. It is math.MinInt64
// when there is none.
func (r *Ring) Floor(now time.Time) int64 {
	floor, since := int64(math.MinInt64), now.Add(-floorRetention).UnixMilli()
	for i := range r.entries {
		if of := r.FloorOf(&r.entries[i]); of != 0 {
			floor = maxSince(floor, of, since)
		}
	}
	return floor
}

// FloorOf is the time, in milliseconds, below which the bucket alone has what an ingester held and holds no more: because
// it left or was forgotten, even though it may be back meanwhile, or because it lost a disk and the other zones have
// shipped what was on it. 0 is none.
func (r *Ring) FloorOf(e *Entry) int64 {
	m := &e.Member
	switch {
	case e.Forgotten != nil:
		return e.Forgotten.Floor
	case !m.Has(RoleIngester):
		return 0
	case m.LostBefore > m.Floor && r.lossCleared(m):
		return m.LostBefore
	default:
		return m.Floor
	}
}

func maxSince(floor, candidate, since int64) int64 {
	if candidate < since {
		return floor
	}
	return max(floor, candidate)
}

// ReadZone returns the zone of a name out of ReadZones.
func ReadZone(zones []Zone, name string) (Zone, bool) {
	i := slices.IndexFunc(zones, func(z Zone) bool { return z.Name == name })
	if i < 0 {
		return Zone{}, false
	}
	return zones[i], true
}
