package manifest

import (
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/errkind"
)

// withBlocks returns the version behind m that has the given blocks as well, and the answer to each of them.
func (m *Manifest) withBlocks(blocks []Block, addedAt int64, swapID string) (*Manifest, []Added) {
	d := m.draft(addedAt, swapID)
	var edits []edit
	for _, b := range blocks {
		edits = append(edits, addition{b})
	}
	var answers []Added
	for _, r := range d.applyAll(edits) {
		answers = append(answers, r.added)
	}
	return d.finished(), answers
}

func TestWithBlocks(t *testing.T) {
	empty := &Manifest{Tenant: "acme"}
	m1, answers := empty.withBlocks([]Block{testBlock(3), testBlock(1), testBlock(3)}, 1000, "id-1")
	require.Equal(t, []Added{{Version: 1}, {Version: 1}, {Version: 1}}, answers)
	require.Equal(t, "acme", m1.Tenant)
	require.EqualValues(t, 1, m1.Version)
	require.Equal(t, "id-1", m1.SwapID)
	require.Len(t, m1.Blocks, 2, "a block that came twice is listed once")
	require.Equal(t, testBlock(1).ULID, m1.Blocks[0].ULID, "sorted by time")
	require.EqualValues(t, 1000, m1.Blocks[0].AddedAt)
	require.NoError(t, m1.validate())
	require.Empty(t, empty.Blocks, "the base is left alone")

	m2, answers := m1.withBlocks([]Block{testBlock(2), testBlock(1)}, 2000, "id-2")
	require.Equal(t, []Added{{Version: 2}, {Version: 1}}, answers)
	require.Len(t, m2.Blocks, 3)
	require.Len(t, m1.Blocks, 2)

	same, answers := m2.withBlocks([]Block{testBlock(2)}, 3000, "id-3")
	require.Same(t, m2, same, "nothing new, no version")
	require.Equal(t, []Added{{Version: 2}}, answers)
}

func TestBlocksThatAreCoveredDoNotComeBack(t *testing.T) {
	merged := testBlock(7)
	merged.Level, merged.Sources = 2, []ulid.ULID{testBlock(1).ULID, testBlock(2).ULID}
	merged.AddedVersion = 5
	m := &Manifest{
		Tenant: "acme", Version: 9, SwapID: "x", Blocks: []Block{merged},
		Removed: []RemovedBlock{{ULID: testBlock(3).ULID, RemovedAt: 1}},
	}
	same, answers := m.withBlocks([]Block{testBlock(1), testBlock(2), testBlock(3)}, 1, "y")
	require.Same(t, m, same)
	require.Equal(t, []Added{{5, true}, {5, true}, {9, true}}, answers)

	next, answers := m.withBlocks([]Block{testBlock(3), testBlock(4), testBlock(3)}, 1, "y")
	require.EqualValues(t, 10, next.Version)
	require.Equal(t, m.Removed, next.Removed, "what was removed stays remembered")
	require.Len(t, next.Blocks, 2)
	for i, answer := range answers {
		require.Equal(t, i != 1, answer.Covered)
		require.LessOrEqual(t, answer.Version, next.Version)
	}
}

func TestFindAndOverlapping(t *testing.T) {
	m := &Manifest{}
	blocks := []Block{testBlock(0), testBlock(1), testBlock(2), testBlock(3)}
	long := testBlock(9)
	long.MinTime, long.MaxTime = 0, 8*hour
	m, _ = m.withBlocks(append(blocks, long), 0, "x")
	for _, b := range blocks {
		found, ok := m.Find(b.ULID)
		require.True(t, ok)
		require.Equal(t, b.MinTime, found.MinTime)
	}
	_, ok := m.Find(testBlock(8).ULID)
	require.False(t, ok)

	for _, c := range []struct {
		mint, maxt int64
		want       []int
	}{
		{-10, -1, nil},
		{-10, 0, []int{0, 9}},
		{2 * hour, 2 * hour, []int{9, 1}},
		{2*hour - 1, 2 * hour, []int{0, 9, 1}},
		{8*hour - 1, 100 * hour, []int{9, 3}},
		{8 * hour, 100 * hour, nil},
		{-1, 100 * hour, []int{0, 9, 1, 2, 3}},
		{5, 4, nil},
	} {
		var want []ulid.ULID
		for _, n := range c.want {
			want = append(want, testBlock(n).ULID)
		}
		var got []ulid.ULID
		for _, b := range m.Overlapping(c.mint, c.maxt) {
			got = append(got, b.ULID)
		}
		if c.mint > c.maxt {
			continue // an empty range may give anything
		}
		require.Equal(t, want, got, "[%d, %d]", c.mint, c.maxt)
	}
}

func TestInvalidBlocksAreRefused(t *testing.T) {
	for name, spoil := range map[string]func(*Block){
		"no ULID":           func(b *Block) { b.ULID = ulid.ULID{} },
		"times":             func(b *Block) { b.MinTime = b.MaxTime + 1 },
		"level":             func(b *Block) { b.Level = 0 },
		"size":              func(b *Block) { b.SizeBytes = -1 },
		"no directory":      func(b *Block) { b.SidecarBytes = 1 },
		"no sidecar":        func(b *Block) { b.DirectoryBytes = 1 },
		"large directory":   func(b *Block) { b.SidecarBytes, b.DirectoryBytes = 1, 2 },
		"negative sizes":    func(b *Block) { b.SidecarBytes, b.DirectoryBytes = -1, -1 },
		"label has no name": func(b *Block) { b.Labels = map[string]string{"": "x"} },
	} {
		b := testBlock(1)
		spoil(&b)
		require.Equal(t, errkind.Invalid, errkind.Of(b.validate()), name)
	}
}
