package samplemerge

// startOf returns the start timestamp for a sample that several sources hold with the same value, those of the group
// whose won is the given number: of the known ones the one that most of these sources have, then the latest. A source
// that has none, which is 0, says nothing about it: the sample may have come by a way that drops start timestamps.
func startOf(group []*source, won uint64) (best int64) {
	bestVotes := 0
	for _, src := range group {
		st := src.it.AtST()
		if src.won != won || st == 0 || bestVotes > 0 && st == best {
			continue
		}
		votes := 0
		for _, other := range group {
			if other.won == won && other.it.AtST() == st {
				votes++
			}
		}
		if votes > bestVotes || votes == bestVotes && st > best {
			best, bestVotes = st, votes
		}
	}
	return best
}
