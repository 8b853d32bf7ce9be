package ring

import (
	"cmp"
	"slices"
)

// scoreSeed is the first number above 0 with which no ingester's share of a zone is more than 10 % from the mean, for
// all counts of ingesters up to 128 that are numbered without gaps: of random scores one in some hundreds is as even.
// TestSharesAreEven checks it.
const scoreSeed = 443

// placeHash is the part of a score that depends on the number of a place.
func placeHash(number int) uint64 {
	return mix(scoreSeed + uint64(number)*0x9e3779b97f4a7c15) //nolint:gosec // not negative
}

// partitionHash is the part that depends on the partition.
func partitionHash(partition uint16) uint64 { return (uint64(partition) + 1) * 0xd6e8feb86659fd93 }

// owner is the index of the place of a zone that a partition belongs to. Scores of different places differ, as mix is a
// permutation of what differs already.
func (z *zone) owner(partition uint64) int {
	if z.core == 0 {
		return highest(z.places, partition, false)
	}
	if own := highest(z.places[:z.core], partition, false); z.places[own].writable {
		return own
	}
	return highest(z.places, partition, true)
}

// highest is the index of the place with the highest score, of those that take writes when that is asked for.
func highest(places []place, partition uint64, writable bool) int {
	best, top := 0, uint64(0)
	for i := range places {
		if score := mix(places[i].hash ^ partition); score >= top && (!writable || places[i].writable) {
			best, top = i, score
		}
	}
	return best
}

// appendReplicas appends the slots of a partition's replicas. No zone is empty.
func appendReplicas(dst []int32, zones []zone, rf int, partition uint16) []int32 {
	hash := partitionHash(partition)
	if len(zones) <= rf {
		for i := range zones {
			dst = append(dst, zones[i].places[zones[i].owner(hash)].slot)
		}
		return dst
	}
	for _, i := range topZones(make([]int, len(zones)), zones, rf, hash) {
		dst = append(dst, zones[i].places[zones[i].owner(hash)].slot)
	}
	return dst
}

// topZones are the indexes of the zones that get a partition when there are more of them than copies. order is for the
// result and has the length of zones.
func topZones(order []int, zones []zone, rf int, partition uint64) []int {
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Compare(mix(zones[b].hash^partition), mix(zones[a].hash^partition))
	})
	return order[:rf]
}

// compute returns the replicas of all partitions, and for each slot how many partitions it has. Zones with the same
// numbers, which is nearly always all of them, share the work.
func (l *layout) compute() (table []int32, counts []int32) {
	owners := make([][]uint16, len(l.zones))
	for i := range l.zones {
		for j := range i {
			if slices.EqualFunc(l.zones[i].places, l.zones[j].places, sameNumber) {
				owners[i] = owners[j]
			}
		}
		if owners[i] == nil {
			owners[i] = l.zones[i].owners()
		}
	}
	table = make([]int32, 0, Partitions*min(l.rf, len(l.zones)))
	order := make([]int, len(l.zones))
	for i := range order {
		order[i] = i
	}
	for p := range Partitions {
		if len(l.zones) > l.rf {
			topZones(order, l.zones, l.rf, partitionHash(uint16(p))) //nolint:gosec // below 65,536
		}
		for _, i := range order[:min(l.rf, len(order))] {
			table = append(table, l.zones[i].places[owners[i][p]].slot)
		}
	}
	counts = make([]int32, len(l.ingesters))
	for _, slot := range table {
		counts[slot]++
	}
	return table, counts
}

func sameNumber(a, b place) bool { return a.number == b.number }

// owners are the indexes of the places that own the partitions.
func (z *zone) owners() []uint16 {
	owners := make([]uint16, Partitions)
	for p := range owners {
		owners[p] = uint16(z.owner(partitionHash(uint16(p)))) //nolint:gosec // below 65,536, as numbers are
	}
	return owners
}

// shardZones leaves of each zone the places that a tenant uses, or returns nil when that is all.
func (l *layout) shardZones(seed uint64, shard int) []zone {
	each := (shard + l.rf - 1) / l.rf
	if !slices.ContainsFunc(l.zones, func(z zone) bool { return len(z.places) > each }) {
		return nil
	}
	zones := make([]zone, 0, len(l.zones))
	for _, z := range l.zones {
		zones = append(zones, z.shardOf(seed, each))
	}
	return zones
}

// shardOf leaves of a zone the places with the highest scores for a tenant. For each that takes no writes the next one
// stands in; it gets the partitions of that one and no others, so that a restart moves little.
func (z zone) shardOf(seed uint64, each int) zone {
	places := slices.Clone(z.all)
	slices.SortFunc(places, func(a, b place) int { return cmp.Compare(mix(seed^b.hash), mix(seed^a.hash)) })
	z.core = min(each, len(places))
	end, writable := 0, 0
	for end < len(places) && (end < z.core || writable < each) {
		if places[end].writable {
			writable++
		}
		end++
	}
	z.places = places[:end]
	return z
}
