package ring

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/errkind"
)

// counts is how many partitions each ingester has.
func counts(owners []map[string]string) map[string]int {
	n := map[string]int{}
	for _, zones := range owners {
		for _, id := range zones {
			n[id]++
		}
	}
	return n
}

// TestSharesAreEven: with up to 128 ingesters numbered without gaps no share is more than 10 % from the mean.
func TestSharesAreEven(t *testing.T) {
	var z zone
	held, owned := make([]uint16, Partitions), make([]int, 128)
	owned[0] = Partitions
	for n := range 128 {
		z.places = append(z.places, place{number: n, hash: placeHash(n)})
		if n > 0 { // only the newest can take over
			for p := range held {
				hash := partitionHash(uint16(p))
				if mix(z.places[n].hash^hash) > mix(z.places[held[p]].hash^hash) {
					owned[held[p]]--
					owned[n]++
					held[p] = uint16(n)
				}
			}
		}
		mean := float64(Partitions) / float64(n+1)
		for i, c := range owned[:n+1] {
			require.InDelta(t, 1, float64(c)/mean, 0.1, "ingester %d of %d", i, n+1)
		}
	}
}

// TestGrowth: the n-th ingester takes one n-th of its zone, from all others alike, and nothing moves elsewhere.
func TestGrowth(t *testing.T) {
	for _, n := range []int{2, 3, 10, 50} {
		members := cluster(n-1, "a", "b", "c")
		before := owners(t, ringOf(3, members...), "t", 0)
		added := ingester("b", n-1)
		after := owners(t, ringOf(3, append(members, added)...), "t", 0)
		moved := 0
		for p := range before {
			same(t, before[p]["a"], after[p]["a"], "another zone")
			same(t, before[p]["c"], after[p]["c"], "another zone")
			if after[p]["b"] != before[p]["b"] {
				same(t, added.ID, after[p]["b"], "what moves goes to who is new")
				moved++
			}
		}
		require.NotZero(t, moved)
		share := ringOf(3, append(members, added)...).Share(added.ID)
		require.InDelta(t, 1, share*float64(n), 0.1)
		require.InDelta(t, share, float64(moved)/sampled, 0.02)
	}
}

// TestEqualOrdinalsHoldEqualSeries, in all zones, with and without shards.
func TestEqualOrdinalsHoldEqualSeries(t *testing.T) {
	r := ringOf(3, cluster(7, "a", "b", "c")...)
	for _, shard := range []int{0, 9} {
		for _, zones := range owners(t, r, "t", shard) {
			a := strings.TrimPrefix(zones["a"], "ingester-a")
			same(t, a, strings.TrimPrefix(zones["b"], "ingester-b"), "zone b")
			same(t, a, strings.TrimPrefix(zones["c"], "ingester-c"), "zone c")
		}
	}
}

// TestZonesMove: of more zones than copies each gets its part, another zone takes only what it gets, and another name
// for one of as many zones as copies moves nothing.
func TestZonesMove(t *testing.T) {
	four := owners(t, ringOf(3, cluster(2, "a", "b", "c", "d")...), "t", 0)
	five := owners(t, ringOf(3, cluster(2, "a", "b", "c", "d", "e")...), "t", 0)
	replaced := 0
	for p := range four {
		if len(four[p]) != 3 || len(five[p]) != 3 {
			require.Fail(t, "copies", "%v %v", four[p], five[p])
		}
		for zone, id := range five[p] {
			if zone == "e" {
				replaced++
				continue
			}
			same(t, four[p][zone], id, "only what the new zone gets may move")
		}
	}
	require.InDelta(t, 3.0/5, float64(replaced)/sampled, 0.03)
	for id, n := range counts(four) {
		require.InDelta(t, 3.0/8, float64(n)/sampled, 0.03, id)
	}

	three := owners(t, ringOf(3, cluster(4, "a", "b", "c")...), "t", 0)
	renamed := owners(t, ringOf(3, cluster(4, "a", "b", "z")...), "t", 0)
	for p := range three {
		same(t, three[p]["a"], renamed[p]["a"], "zone a")
		same(t, three[p]["b"], renamed[p]["b"], "zone b")
		same(t, strings.Replace(three[p]["c"], "-c-", "-z-", 1), renamed[p]["z"], "the zone of another name")
	}
}

// TestReplicasSpanZones: over random clusters every partition has as many zones as can be, and nobody who does not
// take writes; with less than a quorum there is an error that names who does not.
func TestReplicasSpanZones(t *testing.T) {
	rnd := seeded(t, 2)
	for range 60 {
		rf := 1 + rnd.IntN(5)
		var members []Member
		writable := map[string]bool{}
		for z := range 1 + rnd.IntN(6) {
			for i := range rnd.IntN(4) {
				m := ingester(string(rune('a'+z)), i)
				m.State = []State{Active, Active, Active, Joining, ReadOnly, Leaving, Left, Unknown}[rnd.IntN(8)]
				members = append(members, m)
				if m.State == Active {
					writable[m.Zone] = true
				}
			}
		}
		r := ringOf(rf, members...)
		for _, shard := range []int{0, 1, 5} {
			p := r.Tenant("t", shard)
			for range 50 {
				replicas := p.Replicas(uint16(rnd.IntN(Partitions)))
				if len(writable) < r.Quorum() {
					require.Empty(t, replicas.Members)
					require.Equal(t, errkind.Unavailable, errkind.Of(replicas.Err))
					continue
				}
				require.NoError(t, replicas.Err)
				require.Len(t, replicas.Members, min(rf, len(writable)))
				zones := map[string]bool{}
				for _, slot := range replicas.Members {
					m := r.Ingesters()[slot]
					require.Equal(t, Active, m.State)
					zones[m.Zone] = true
				}
				require.Len(t, zones, len(replicas.Members), "one replica a zone")
			}
		}
	}
}

// TestTwoZonesHoldAllTwice: with three copies in two zones a series has one replica in each, whatever their numbers of
// ingesters and the shard, and one sample is acknowledged when both have it: no zone alone is a quorum, and a reader asks both.
func TestTwoZonesHoldAllTwice(t *testing.T) {
	for _, members := range [][]Member{
		cluster(3, "a", "b"), append(cluster(1, "a"), cluster(5, "b")...), append(cluster(4, "a"), cluster(2, "b")...),
	} {
		r := ringOf(3, members...)
		require.Zero(t, r.MayMiss())
		for _, shard := range []int{0, 1, 4} {
			for p := 0; p < Partitions; p += 61 {
				replicas := r.Tenant("t", shard).Replicas(uint16(p))
				require.NoError(t, replicas.Err)
				require.Len(t, replicas.Members, 2)
				require.NotEqual(t, r.Ingesters()[replicas.Members[0]].Zone, r.Ingesters()[replicas.Members[1]].Zone)
			}
		}
		require.Equal(t, Stored, Verdict(2, 0, 0, 0, 2, r.Quorum()))
		require.Equal(t, Undecided, Verdict(1, 0, 0, 1, 2, r.Quorum()))
		require.Equal(t, NoQuorum, Verdict(1, 0, 1, 0, 2, r.Quorum()))
	}
	one := ringOf(3, cluster(5, "a")...)
	require.ErrorContains(t, one.Tenant("t", 0).Replicas(0).Err, "a quorum of 3 copies needs 2", "one zone holds nothing twice")
}

// TestExtension: who takes no writes by its own word is passed over for the next in its zone, and nothing else moves.
// Who is dead keeps its place.
func TestExtension(t *testing.T) {
	members := cluster(4, "a", "b", "c")
	const id = "ingester-b-2"
	for _, shard := range []int{0, 6} {
		before := owners(t, ringOf(3, members...), "t", shard)
		states := []State{Joining, ReadOnly, Leaving}
		if shard == 0 {
			states = append(states, Left) // a shard replaces who has left, and moves a little more
		}
		for _, state := range states {
			after := owners(t, ringOf(3, change(t, members, id, func(m *Member) { m.State = state })...), "t", shard)
			for p := range before {
				same(t, before[p]["a"], after[p]["a"], "another zone")
				same(t, before[p]["c"], after[p]["c"], "another zone")
				if before[p]["b"] != id {
					same(t, before[p]["b"], after[p]["b"], "only what was on it moves")
				} else if after[p]["b"] == "" || after[p]["b"] == id {
					require.Fail(t, "not passed over", after[p]["b"])
				}
			}
		}
		dead := ringOf(3, change(t, members, id, func(m *Member) { m.Seen = ms(start.Add(-time.Hour)) })...)
		require.Equal(t, before, owners(t, dead, "t", shard))
	}
}

// TestOrdinalTwice: of two with one ordinal the one that registered later gets nothing, and both may hold data.
func TestOrdinalTwice(t *testing.T) {
	members := cluster(2, "a", "b", "c")
	twin := ingester("b", 1)
	twin.ID, twin.Registered = "another", twin.Registered+1
	r := ringOf(3, append(members, twin)...)
	require.Equal(t, owners(t, ringOf(3, members...), "t", 0), owners(t, r, "t", 0))
	require.Zero(t, r.Share("another"))
	owner, ok := r.OrdinalOwner("b", 1)
	require.True(t, ok)
	require.Equal(t, "ingester-b-1", owner.ID)
	_, ok = r.OrdinalOwner("b", 2)
	require.False(t, ok)
	zone, _ := ReadZone(r.ReadZones(), "b")
	require.Len(t, zone.Members, 3)

	twin.Registered = members[0].Registered
	owner, _ = ringOf(3, append(members, twin)...).OrdinalOwner("b", 1)
	require.Equal(t, "another", owner.ID, "the same moment: the name decides")
}

// TestVirtualZones: without zones consecutive ordinals are in different ones, and equal rounds hold equal series.
func TestVirtualZones(t *testing.T) {
	var members []Member
	for i := range 6 {
		m := ingester("", i)
		members = append(members, m)
	}
	r := ringOf(3, members...)
	require.Equal(t, []string{"virtual-0", "virtual-1", "virtual-2"}, zoneNames(r))
	for _, zones := range owners(t, r, "t", 0) {
		first := zones["virtual-0"] == "ingester--0"
		if (zones["virtual-1"] == "ingester--1") != first || (zones["virtual-2"] == "ingester--2") != first {
			require.Fail(t, "different rounds", zones)
		}
	}
	unnumbered := ingester("", NoOrdinal)
	with := ringOf(3, append(members, unnumbered)...)
	require.Zero(t, with.Share(unnumbered.ID), "without an ordinal it gets nothing")
	require.Equal(t, owners(t, r, "t", 0), owners(t, with, "t", 0))
}

func zoneNames(r *Ring) (names []string) {
	for _, z := range r.ReadZones() {
		names = append(names, z.Name)
	}
	return names
}

// TestShards: a tenant's shard has its size, spreads tenants, changes by one member when one comes, and is even.
func TestShards(t *testing.T) {
	r := ringOf(3, cluster(20, "a", "b", "c")...)
	bigger := ringOf(3, cluster(21, "a", "b", "c")...)
	used := map[string]int{}
	changed := 0
	for i := range 10 {
		tenant := fmt.Sprintf("tenant-%d", i)
		shard := counts(owners(t, r, tenant, 9))
		require.Len(t, shard, 9)
		for id := range shard {
			used[id]++
		}
		next := counts(owners(t, bigger, tenant, 9))
		for id := range next {
			if shard[id] == 0 {
				require.True(t, strings.HasSuffix(id, "-20"), "only the new ones may enter")
				changed++
			}
		}
	}
	require.Greater(t, len(used), 45, "tenants use different ingesters")
	require.Less(t, changed, 3*10/2, "about one in seven shards gets the new ingester")
	require.Equal(t, owners(t, r, "t", 0), owners(t, r, "t", 60))
	require.Equal(t, owners(t, r, "t", 0), owners(t, r, "t", 1000))
	require.Len(t, counts(owners(t, r, "t", 1)), 3, "a shard is not smaller than the number of copies")
}

func TestPartitionsOfTenants(t *testing.T) {
	r := ringOf(3, cluster(1, "a", "b", "c")...)
	a, b := r.Tenant("a", 0), r.Tenant("b", 0)
	require.Same(t, a, r.Tenant("a", 0))
	var hit [16]int
	equal := 0
	for i := range uint64(16_000) {
		hit[a.Partition(i)>>12]++
		if a.Partition(i) == b.Partition(i) {
			equal++
		}
	}
	for _, n := range hit {
		require.InDelta(t, 1000, n, 150)
	}
	require.Less(t, equal, 10, "tenants place equal series differently")
}

// TestVersion: it changes with all that placement or the users of slots depend on, and with nothing else; a ring of the
// same version keeps what was computed and knows the news.
func TestVersion(t *testing.T) {
	members := cluster(2, "a", "b", "c")
	r := ringOf(3, members...)
	id := members[0].ID
	for name, f := range map[string]func(*Member){
		"state": func(m *Member) { m.State = ReadOnly }, "ordinal": func(m *Member) { m.Ordinal = 7 },
		"address": func(m *Member) { m.Address = "x" }, "zone": func(m *Member) { m.Zone = "d" },
		"epoch": func(m *Member) { m.Epoch++ }, "disk": func(m *Member) { m.StorageID = "x" },
	} {
		require.NotEqual(t, r.Version(), ringOf(3, change(t, members, id, f)...).Version(), name)
	}
	require.NotEqual(t, r.Version(), ringOf(5, members...).Version())
	table := r.Tenant("t", 0)
	news := change(t, members, id, func(m *Member) { m.Counter++; m.Heartbeat++; m.ShippedUpTo = 42; m.Seen++ })
	querier := Member{ID: "q", Roles: []Role{RoleQuerier}, State: Active, Seen: ms(start)}
	next := r.Next(entriesOf(append(news, querier)), start)
	require.Equal(t, r.Version(), next.Version())
	require.Equal(t, int64(42), next.Ingesters()[0].ShippedUpTo)
	require.Same(t, table, next.Tenant("t", 0))
	moved := r.Next(entriesOf(change(t, members, id, func(m *Member) { m.State = Leaving })), start)
	require.NotEqual(t, r.Version(), moved.Version())
	require.NotSame(t, table, moved.Tenant("t", 0))
}

func TestTenantsAreBounded(t *testing.T) {
	r := ringOf(3, cluster(1, "a", "b", "c")...)
	for i := range maxTenants + 10 {
		r.Tenant(fmt.Sprint(i), 0)
	}
	require.LessOrEqual(t, len(r.layout.shared.tenants), maxTenants)
}

func TestMembersAndOwner(t *testing.T) {
	var members []Member
	for i := range 10 {
		members = append(members, Member{
			ID: fmt.Sprintf("c-%d", i), Roles: []Role{RoleCompactor}, State: Active, Heartbeat: ms(start), Seen: ms(start),
		})
	}
	dead := change(t, members, "c-3", func(m *Member) { m.Seen = ms(start.Add(-time.Hour)) })
	dead = change(t, dead, "c-4", func(m *Member) { m.State = Joining })
	r, without := ringOf(3, members...), ringOf(3, dead...)
	require.Len(t, r.Members(RoleCompactor), 10)
	require.Len(t, without.Members(RoleCompactor), 8)
	require.Empty(t, r.Members(RoleQuerier))
	used := map[string]int{}
	for i := range 1000 {
		key := fmt.Sprintf("tenant-%d", i)
		before, ok := r.Owner(RoleCompactor, key)
		require.True(t, ok)
		after, ok := without.Owner(RoleCompactor, key)
		require.True(t, ok)
		if before.ID != "c-3" && before.ID != "c-4" {
			require.Equal(t, before.ID, after.ID)
		}
		used[after.ID]++
	}
	require.Len(t, used, 8)
	for id, n := range used {
		require.InDelta(t, 125, n, 50, id)
	}
	_, ok := r.Owner(RoleQuerier, "x")
	require.False(t, ok)
}

// TestDocumentedFigures: the tables of the document are what this computes; -v prints them.
func TestDocumentedFigures(t *testing.T) {
	document, err := os.ReadFile("docs/placement.md")
	require.NoError(t, err)
	check := func(line string, args ...any) {
		line = fmt.Sprintf(line, args...)
		t.Log(line)
		require.Contains(t, string(document), line)
	}
	for _, n := range []int{1, 2, 3, 5, 10, 30, 100, 128} {
		r := ringOf(3, cluster(n, "a", "b", "c")...)
		low, high := math.Inf(1), 0.0
		for i := range n {
			share := r.Share(ingester("a", i).ID) * float64(n)
			low, high = min(low, share), max(high, share)
		}
		moved := r.Share(ingester("a", n-1).ID)
		check("| %d | %.1f %% | %.1f %% | %.2f %% of %.2f %% |", n, 100*low, 100*high, 100*moved, 100/float64(n))
	}
	for _, shard := range []int{3, 9, 30} {
		r := ringOf(3, cluster(20, "a", "b", "c")...)
		var sizes []int
		met := 0
		seen := map[string]bool{}
		for id := range counts(owners(t, r, "tenant-0", shard)) {
			seen[id] = true
		}
		for i := range 20 {
			shared := 0
			for id := range counts(owners(t, r, fmt.Sprintf("tenant-%d", i+1), shard)) {
				if seen[id] {
					shared++
				}
			}
			sizes = append(sizes, shared)
			met += shared
		}
		check("| %d | %.1f | %d |", shard, float64(met)/20, slices.Max(sizes))
	}
}
