package gateway

import (
	"math"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/oklog/ulid/v2"
)

// loadFactor bounds the blocks of one session at one member to this many times the mean. Without a bound one member has
// half as many again as the mean of a month's thirty blocks, and the query waits for it; at 1.25 a tenth of the blocks
// are not at their first choice, where their bytes are cached.
const loadFactor = 1.25

// preference returns the members, as indexes, in the order in which they are asked for a block: rendezvous hashing, so
// that a member that comes or goes changes the first choice of its own share of the blocks only.
func preference(members []Member, block ulid.ULID) []int {
	scores := make([]uint64, len(members))
	order := make([]int, len(members))
	for i, m := range members {
		scores[i], order[i] = score(m, block), i
	}
	slices.SortFunc(order, func(a, b int) int {
		switch {
		case scores[a] > scores[b]:
			return -1
		case scores[a] < scores[b]:
			return 1
		default:
			return a - b
		}
	})
	return order
}

func score(m Member, block ulid.ULID) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.WriteString(m.ID) // never fails
	_, _ = d.Write(block[:])
	return d.Sum64()
}

// spread gives each block a member: the first in its preference that has room. It depends on nothing but its arguments.
func spread(members []Member, blocks []ulid.ULID) []int {
	room := int(math.Ceil(loadFactor * float64(len(blocks)) / float64(len(members))))
	load := make([]int, len(members))
	chosen := make([]int, len(blocks))
	for i, b := range blocks {
		for _, m := range preference(members, b) {
			if load[m] < room {
				load[m]++
				chosen[i] = m
				break
			}
		}
	}
	return chosen
}
