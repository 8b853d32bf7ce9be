package gateway

import (
	"fmt"
	"math"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"
)

func memberNames(n int) []Member {
	list := make([]Member, n)
	for i := range list {
		list[i] = Member{ID: fmt.Sprintf("gateway-%d", i), Address: fmt.Sprintf("host-%d:9095", i)}
	}
	return list
}

func TestSpreadIsBounded(t *testing.T) {
	for _, members := range []int{1, 2, 3, 7, 20} {
		for _, blocks := range []int{0, 1, 2, 5, 30, 365} {
			load := make([]int, members)
			for _, m := range spread(memberNames(members), blockIDs(blockList(blocks))) {
				load[m]++
			}
			for _, l := range load {
				require.LessOrEqual(t, l, int(math.Ceil(loadFactor*float64(blocks)/float64(members))))
			}
		}
	}
}

// TestMostBlocksStayWhereTheyAreCached: the first choice of a block changes only when that member goes, or one comes that
// takes its share; and the bound moves few blocks away from it.
func TestMostBlocksStayWhereTheyAreCached(t *testing.T) {
	const n = 3000
	five := memberNames(5)
	four := five[:4]
	moved, share := 0, make([]int, 5)
	for i := range n {
		id := block(i).ULID
		before, after := preference(five, id), preference(four, id)
		share[before[0]]++
		if before[0] != 4 {
			require.Equal(t, before[0], after[0])
			continue
		}
		moved++
		require.Equal(t, before[1], after[0], "the next one of its preference takes it over")
	}
	require.InDelta(t, n/5, moved, 100)
	for _, s := range share {
		require.InDelta(t, n/5, s, 100)
	}
	ids := make([]ulid.ULID, 0, 365)
	for i := range 365 {
		ids = append(ids, block(i).ULID)
	}
	elsewhere := 0
	for i, m := range spread(five, ids) {
		if m != preference(five, ids[i])[0] {
			elsewhere++
		}
	}
	require.Less(t, elsewhere, 365/10)
}

func TestPreferenceNamesEachMemberOnce(t *testing.T) {
	seen := map[int]bool{}
	for _, m := range preference(memberNames(9), block(3).ULID) {
		require.False(t, seen[m])
		seen[m] = true
	}
	require.Len(t, seen, 9)
}
