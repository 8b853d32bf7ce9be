package ring

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestReadZonesMembers: whoever may hold what is not in the bucket has to be asked, dead or alive.
func TestReadZonesMembers(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Member)
		want   bool
	}{
		"active":            {func(*Member) {}, true},
		"dead":              {func(m *Member) { m.Seen = 0 }, true},
		"draining":          {func(m *Member) { m.State = ReadOnly }, true},
		"leaving":           {func(m *Member) { m.State = Leaving }, true},
		"starting again":    {func(m *Member) { m.State = Joining }, true},
		"of a newer kind":   {func(m *Member) { m.State = Unknown }, true},
		"starting anew":     {func(m *Member) { m.State, m.Fresh = Joining, true }, false},
		"left":              {func(m *Member) { m.State = Left }, false},
		"no ingester":       {func(m *Member) { m.Roles = []Role{RoleQuerier} }, false},
		"without a number":  {func(m *Member) { m.State, m.Ordinal = Joining, NoOrdinal }, true},
		"fresh and active":  {func(m *Member) { m.Fresh = true }, true},
		"wiped and waiting": {func(m *Member) { m.State, m.Fresh, m.LostBefore = Joining, true, 5 }, false},
	} {
		t.Run(name, func(t *testing.T) {
			id := "ingester-b-1"
			r := ringOf(3, change(t, cluster(2, "a", "b", "c"), id, c.change)...)
			zones := r.ReadZones()
			require.Len(t, zones, 3)
			var ids []string
			for _, m := range zones[1].Members {
				ids = append(ids, m.ID)
			}
			require.Equal(t, c.want, len(ids) == 2, ids)
			require.Contains(t, ids, "ingester-b-0")
			require.Equal(t, 1, r.MayMiss())
		})
	}
}

// TestMayMiss: an acknowledged sample is in a quorum of zones; a reader may miss one fewer, and counts zones that it
// has not heard of as missing.
func TestMayMiss(t *testing.T) {
	zones := []string{"a", "b", "c", "d", "e", "f"}
	for _, c := range []struct{ rf, zones, want int }{
		{1, 1, 0},
		{1, 3, 0},
		{1, 0, -1},
		{2, 2, 1},
		{2, 1, 0},
		{2, 0, -1},
		{2, 3, 1},
		{3, 3, 1},
		{3, 2, 0},
		{3, 1, -1},
		{3, 0, -2},
		{3, 4, 1},
		{5, 5, 2},
		{5, 4, 1},
		{5, 3, 0},
		{5, 2, -1},
		{5, 6, 2},
	} {
		require.Equal(t, c.want, ringOf(c.rf, cluster(2, zones[:c.zones]...)...).MayMiss(), "%+v", c)
	}
}

// TestQuorumsMeet: whatever zones stored a sample at quorum, whatever zones a reader misses, one that has it answers.
func TestQuorumsMeet(t *testing.T) {
	names := []string{"a", "b", "c", "d", "e", "f"}
	for rf := 1; rf <= 5; rf++ {
		for n := rf; n <= 6; n += 2 {
			r := ringOf(rf, cluster(1, names[:n]...)...)
			for p := range 12 {
				slots := r.Tenant("t", 0).Replicas(uint16(p * 5000)).Members
				for stored := range 1 << len(slots) {
					has := map[string]bool{}
					for i, slot := range slots {
						if stored&(1<<i) != 0 {
							has[r.Ingesters()[slot].Zone] = true
						}
					}
					if len(has) < r.Quorum() {
						continue
					}
					require.Greater(t, len(has), r.MayMiss(), "rf %d, %d zones", rf, n)
				}
			}
		}
	}
}

// TestLostDisk: a zone with a lost disk is incomplete for all earlier times, until the other zones have shipped past
// the loss by the out-of-order window.
func TestLostDisk(t *testing.T) {
	lost, id := ms(start), "ingester-a-1"
	members := change(t, cluster(2, "a", "b", "c"), id, func(m *Member) { m.LostBefore, m.ShippedUpTo = lost, 0 })
	completeFrom := func(members []Member) int64 {
		zones := ringOf(3, members...).ReadZones()
		require.Equal(t, "a", zones[0].Name)
		for _, z := range zones[1:] {
			require.Equal(t, int64(math.MinInt64), z.CompleteFrom)
		}
		return zones[0].CompleteFrom
	}
	require.Equal(t, lost, completeFrom(members))

	shipped := append([]Member(nil), members...)
	for i := range shipped {
		if shipped[i].Zone != "a" {
			shipped[i].ShippedUpTo = ms(start.Add(3 * time.Hour))
		}
	}
	require.Equal(t, int64(math.MinInt64), completeFrom(shipped), "its own zone proves nothing and is not asked")
	r := ringOf(3, shipped...)
	m, _ := r.Get(id)
	require.True(t, r.LossCleared(m))

	for name, f := range map[string]func(*Member){
		"one is behind":                  func(m *Member) { m.ShippedUpTo-- },
		"one is behind and dead":         func(m *Member) { m.ShippedUpTo--; m.Seen = 0 },
		"one is behind and drains":       func(m *Member) { m.ShippedUpTo--; m.State = ReadOnly },
		"one is behind and starts again": func(m *Member) { m.ShippedUpTo--; m.State = Joining },
	} {
		require.Equal(t, lost, completeFrom(change(t, shipped, "ingester-c-0", f)), name)
	}
	require.Equal(t, int64(math.MinInt64), completeFrom(change(t, shipped, "ingester-c-0", func(m *Member) {
		m.ShippedUpTo, m.State, m.Fresh = 0, Joining, true
	})), "one that never had anything")

	// Two zones that lost a disk each prove nothing to one another.
	two := change(t, shipped, "ingester-b-0", func(m *Member) { m.LostBefore = 1 })
	zones := ringOf(3, two...).ReadZones()
	require.Equal(t, lost, zones[0].CompleteFrom)
	require.Equal(t, int64(1), zones[1].CompleteFrom)

	// With one copy there is no other, and an unknown zone may have what the known ones have not.
	alone := change(t, cluster(2, "a"), id, func(m *Member) { m.LostBefore = lost })
	require.Equal(t, lost, ringOf(1, alone...).ReadZones()[0].CompleteFrom)
	require.Equal(t, lost, ringOf(3, shipped[:4]...).ReadZones()[0].CompleteFrom)

	// One that lost a disk and left has not brought everything to the bucket.
	gone := change(t, members, id, func(m *Member) { m.State = Left })
	require.Equal(t, lost, completeFrom(gone))
	require.Equal(t, int64(math.MinInt64), completeFrom(change(t, shipped, id, func(m *Member) { m.State = Left })))
	gone = change(t, cluster(1, "a", "b", "c"), "ingester-b-0", func(m *Member) { m.LostBefore, m.State = lost, Left })
	zone, ok := ReadZone(ringOf(3, gone...).ReadZones(), "b")
	require.True(t, ok)
	require.Empty(t, zone.Members)
	require.Equal(t, lost, zone.CompleteFrom)
	require.Equal(t, 1, ringOf(3, gone...).MayMiss())
	gone = change(t, shipped, "ingester-b-1", func(m *Member) { m.LostBefore, m.State = lost, Left })
	require.Equal(t, lost, ringOf(3, gone...).ReadZones()[0].CompleteFrom, "nor does it prove anything")

	// Of a wiped ingester that is not back yet only the loss is left.
	wiped := change(t, cluster(1, "a", "b", "c"), "ingester-a-0", func(m *Member) {
		m.LostBefore, m.State, m.Fresh, m.ShippedUpTo = lost, Joining, true, 0
	})
	zone, ok = ReadZone(ringOf(3, wiped...).ReadZones(), "a")
	require.True(t, ok)
	require.Empty(t, zone.Members)
	require.Equal(t, lost, zone.CompleteFrom)
}

func TestFloor(t *testing.T) {
	members := cluster(1, "a", "b", "c")
	require.Equal(t, int64(math.MinInt64), ringOf(3, members...).Floor(start))
	left := ingester("a", 1)
	left.State, left.Floor = Left, ms(start.Add(-time.Hour))
	entries := append(entriesOf(append(members, left)),
		ForgetEntry(Tombstone{ID: "x", Epoch: 1, Floor: ms(start.Add(-2 * time.Hour))}))
	r := New(Config{}, entries, start)
	require.Equal(t, left.Floor, r.Floor(start))
	require.Equal(t, left.Floor, r.Floor(start.Add(12*time.Hour)))
	require.Equal(t, int64(math.MinInt64), r.Floor(start.Add(12*time.Hour+time.Second)))
	forgotten := New(Config{}, entries[len(entries)-1:], start)
	require.Equal(t, ms(start.Add(-2*time.Hour)), forgotten.Floor(start))
}

// TestFloorStaysWithWhoIsBack: one that left, or was forgotten, or lost a disk is a member again, and what its earlier
// lives held is in the bucket alone.
func TestFloorStaysWithWhoIsBack(t *testing.T) {
	members, floor := cluster(1, "a", "b", "c"), ms(start.Add(-time.Hour))
	back := change(t, members, "ingester-a-0", func(m *Member) { m.State, m.Fresh, m.Floor = Joining, true, floor })
	require.Equal(t, floor, ringOf(3, back...).Floor(start))

	lost := change(t, members, "ingester-a-0", func(m *Member) { m.LostBefore, m.ShippedUpTo = floor, 0 })
	for i := range lost {
		lost[i].ShippedUpTo = 0
	}
	require.Equal(t, int64(math.MinInt64), ringOf(3, lost...).Floor(start), "its zone is not asked")
	for i := range lost {
		lost[i].ShippedUpTo = ms(start.Add(2 * time.Hour))
	}
	require.Equal(t, floor, ringOf(3, lost...).Floor(start), "its zone counts again, without what was lost")
}
