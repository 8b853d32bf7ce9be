package ring

import (
	"cmp"
	"slices"
)

// scoreSeed is the one of many numbers with which no ingester's share of a zone is more than 10 % from the mean, for
// all counts of ingesters up to 128 that are numbered without gaps. TestSharesAreEven checks it.
const scoreSeed = 1

// placeHash is the part of a score that depends on the number of a place.
func placeHash(number int) uint64 {
	return mix(scoreSeed + uint64(number)*0x9e3779b97f4a7c15) //nolint:gosec // not negative
}

// partitionHash is the part that depends on the partition.
func partitionHash(partition uint16) uint64 { return (uint64(partition) + 1) * 0xd6e8feb86659fd93 }

// owner is the place of a zone that a partition belongs to. Scores of different places differ, as mix is a permutation
// of what differs already.
func (z *zone) owner(partition uint64) *place {
	best, highest := 0, mix(z.places[0].hash^partition)
	for i := 1; i < len(z.places); i++ {
		if score := mix(z.places[i].hash ^ partition); score > highest {
			best, highest = i, score
		}
	}
	return &z.places[best]
}

// appendReplicas appends the slots of a partition's replicas. No zone is empty.
func appendReplicas(dst []int32, zones []zone, rf int, partition uint16) []int32 {
	hash := partitionHash(partition)
	if len(zones) <= rf {
		for i := range zones {
			dst = append(dst, zones[i].owner(hash).slot)
		}
		return dst
	}
	for _, i := range topZones(zones, rf, hash) {
		dst = append(dst, zones[i].owner(hash).slot)
	}
	return dst
}

// topZones are the indexes of the zones that get a partition when there are more of them than copies.
func topZones(zones []zone, rf int, partition uint64) []int {
	order := make([]int, len(zones))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Compare(mix(zones[b].hash^partition), mix(zones[a].hash^partition))
	})
	return order[:rf]
}

// compute returns the replicas of all partitions.
func (l *layout) compute() []int32 {
	table := make([]int32, 0, Partitions*min(l.rf, len(l.zones)))
	for p := range Partitions {
		table = appendReplicas(table, l.zones, l.rf, uint16(p)) //nolint:gosec // below 65,536
	}
	return table
}

// shardZones leaves of each zone the places that a tenant uses: those with the highest scores for it. A place that takes
// no writes is not among the zone's, so the next one by score stands in for it.
func (l *layout) shardZones(seed uint64, shard int) []zone {
	each := (shard + l.rf - 1) / l.rf
	zones := make([]zone, 0, len(l.zones))
	for _, z := range l.zones {
		places := slices.Clone(z.places)
		slices.SortFunc(places, func(a, b place) int { return cmp.Compare(mix(seed^b.hash), mix(seed^a.hash)) })
		z.places = places[:min(each, len(places))]
		zones = append(zones, z)
	}
	return zones
}
