package manifest

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDeletionConcerns: which blocks a deletion means that was asked for when the fourth block was made.
func TestDeletionConcerns(t *testing.T) {
	d := Deletion{ID: 3, Selectors: []string{"up"}, MinTime: 7_200_000, MaxTime: 14_399_999, CreatedAt: int64(ids(4)[0].Time())}
	for name, c := range map[string]struct {
		change func(*Block)
		want   bool
	}{
		"older":                          {func(*Block) {}, true},
		"has it worked in":               {func(b *Block) { b.Deleted = 3 }, false},
		"has the one before worked in":   {func(b *Block) { b.Deleted = 2 }, true},
		"ends before it":                 {func(b *Block) { b.MinTime, b.MaxTime = 0, 7_200_000 }, false},
		"ends in its first millisecond":  {func(b *Block) { b.MinTime, b.MaxTime = 0, 7_200_001 }, true},
		"begins behind it":               {func(b *Block) { b.MinTime, b.MaxTime = 14_400_000, 14_400_001 }, false},
		"begins in its last millisecond": {func(b *Block) { b.MinTime, b.MaxTime = 14_399_999, 14_400_001 }, true},
		"younger, of somebody":           {func(b *Block) { b.Sources = ids(5, 6) }, false},
		"in part younger":                {func(b *Block) { b.Sources = ids(5, 4) }, true},
		"younger, of an ingester":        {func(b *Block) { b.Sources, b.Writer = ids(5), IngesterWriter+"0" }, true},
		"younger, of a compactor":        {func(b *Block) { b.Sources, b.Writer = ids(5), CompactorWriter+"0" }, true},
		"without sources, younger":       {func(b *Block) { b.Sources, b.ULID = nil, ids(5)[0] }, false},
		"without sources, as old":        {func(b *Block) { b.Sources, b.ULID = nil, ids(4)[0] }, true},
	} {
		b := testBlock(1)
		c.change(&b)
		require.Equal(t, c.want, d.Concerns(&b), name)
	}
}

func TestDeletionsAreFound(t *testing.T) {
	m := &Manifest{Tenant: "acme", Version: 1, Blocks: []Block{testBlock(0), testBlock(1), testBlock(2)}, NextDeletion: 9}
	for i, times := range [][2]int64{{0, 7_200_000}, {7_200_000, 9_000_000}, {-5, -1}, {0, 1 << 40}} {
		m.Deletions = append(m.Deletions, Deletion{ID: uint64(2*i + 1), MinTime: times[0], MaxTime: times[1], CreatedAt: 1 << 40})
	}
	m.Blocks[1].Deleted = 3
	numbers := func(ds []Deletion) (out []uint64) {
		for _, d := range ds {
			out = append(out, d.ID)
		}
		return out
	}
	require.Equal(t, []uint64{1, 7}, numbers(m.DeletionsOf(&m.Blocks[0])))
	require.Equal(t, []uint64{7}, numbers(m.DeletionsOf(&m.Blocks[1])))
	require.Equal(t, []uint64{1, 3, 7}, numbers(m.DeletionsIn(7_200_000, 7_200_000)), "worked in or not")
	require.Equal(t, []uint64{5}, numbers(m.DeletionsIn(-9, -1)))
	require.Equal(t, ids(0), m.Pending(1))
	require.Empty(t, m.Pending(3))
	require.Equal(t, ids(0, 1, 2), m.Pending(7))
	require.Empty(t, m.Pending(4), "cancelled, or never there")
}
