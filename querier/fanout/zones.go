package fanout

import (
	"slices"
	"strings"

	"github.com/duramendb/duramen/ring"
)

// candidates is the order in which zones are asked, and those that cannot be.
type candidates struct {
	zones []ring.Zone
	// need is how many must answer in full; above len(zones) there is no quorum.
	need int
	// missing says why each other zone was not asked.
	missing []missing
}

// missing is a zone that does not answer in full, and why.
type missing struct {
	zone string
	why  string
}

func (m missing) String() string { return "zone " + m.zone + ": " + m.why }

// choice is what decides the order of zones.
type choice struct {
	// first are names of zones that answered before, or of the own one, in their order.
	first []string
	// turn rotates the others, so that each gets its share.
	turn uint64
	// suspect weighs the members that were away or slow lately: zones with less come first.
	suspect func(ring.Zone) int
}

// choose orders the zones of a ring for a query that begins at mint. It is pure.
//
// A zone that lost samples above mint with a disk counts as missing, even though its ingesters answer: an acknowledged
// sample of then is in a quorum of the others, or it is in the bucket.
func choose(r *ring.Ring, mint int64, by choice) candidates {
	zones, mayMiss := r.ReadZones(), r.MayMiss()
	c := candidates{need: len(zones) - mayMiss}
	if mayMiss < 0 {
		c.need = len(zones) + 1 // zones of which nobody has heard hold what these do not
	}
	for _, z := range zones {
		if z.CompleteFrom > mint {
			c.missing = append(c.missing, missing{z.Name, "lost a disk with samples before " + instant(z.CompleteFrom) +
				", of which the bucket may not have all"})
			continue
		}
		c.zones = append(c.zones, z)
	}
	var named, others []ring.Zone
	for _, z := range c.zones {
		if slices.Contains(by.first, z.Name) {
			named = append(named, z)
		} else {
			others = append(others, z)
		}
	}
	slices.SortFunc(named, func(a, b ring.Zone) int { return slices.Index(by.first, a.Name) - slices.Index(by.first, b.Name) })
	if n := uint64(len(others)); n > 0 {
		others = append(others[by.turn%n:len(others):len(others)], others[:by.turn%n]...)
	}
	c.zones = append(named, others...)
	slices.SortStableFunc(c.zones, func(a, b ring.Zone) int { return by.suspect(a) - by.suspect(b) })
	return c
}

// noQuorum explains that too few zones have answered.
func noQuorum(r *ring.Ring, c candidates, failed []missing) error {
	all := append(slices.Clone(c.missing), failed...)
	known := len(c.zones) + len(c.missing)
	of := max(known, r.RF())
	away := len(all) + of - known // zones of which nobody has heard are missing, too
	slices.SortStableFunc(all, func(a, b missing) int { return strings.Compare(a.zone, b.zone) })
	if known < of {
		all = append(all, missing{"unknown", "the ring has ingesters in " + count(len(r.ReadZones()), "zone") +
			" with a replication factor of " + count(r.RF(), "")})
	}
	return &quorumError{of: of, away: away, mayMiss: max(0, r.Quorum()-1), missing: all}
}
