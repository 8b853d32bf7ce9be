package gossip

import (
	"strconv"
	"strings"

	"github.com/duramendb/duramen/ring"
)

// maxOrdinal is the largest number in an instance ID that is taken for an ordinal.
const maxOrdinal = 1<<16 - 1

// place is how an instance comes to its ordinal: a number in its settings or at the end of its ID, or else one that it
// claims, once. Members that are no ingesters need none.
type place struct {
	zone     string
	needed   bool
	ordinal  int // ring.NoOrdinal: to be claimed
	claiming bool
}

func newPlace(self Self) place {
	p := place{zone: self.Zone, ordinal: ring.NoOrdinal}
	for _, role := range self.Roles {
		p.needed = p.needed || role == ring.RoleIngester
	}
	if !p.needed {
		return p
	}
	if p.ordinal = self.Ordinal; p.ordinal < 0 {
		p.ordinal = suffix(self.ID)
	}
	p.claiming = p.ordinal < 0
	return p
}

// GivenOrdinal is the ordinal that settings and ID give an ingester, or ring.NoOrdinal for one that has to claim its own.
func (s Self) GivenOrdinal() int { return newPlace(s).ordinal }

// suffix is the number behind the last dash of an ID, or ring.NoOrdinal: 3 of "ingester-zone-a-3".
func suffix(id string) int {
	i := strings.LastIndexByte(id, '-')
	if i < 0 {
		return ring.NoOrdinal
	}
	n, err := strconv.ParseUint(id[i+1:], 10, 32)
	if err != nil || n > maxOrdinal {
		return ring.NoOrdinal
	}
	return int(n)
}

// start is the ordinal to begin with: the one that was claimed in an earlier life counts in its zone only.
func (p *place) start(id *identity) int {
	if p.claiming && id.Claimed != nil && id.ClaimedZone == p.zone {
		p.ordinal = *id.Claimed
	}
	return p.ordinal
}

// lowestFree is the ordinal to claim.
func lowestFree(r *ring.Ring, zone, self string) int {
	for ordinal := 0; ; ordinal++ {
		if owner, taken := r.OrdinalOwner(zone, ordinal); !taken || owner.ID == self {
			return ordinal
		}
	}
}
