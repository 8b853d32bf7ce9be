package ring

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// start is the moment at which the tests' clusters begin.
var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ms(t time.Time) int64 { return t.UnixMilli() }

// ingester is an ingester that is well: it registered a day ago, has a heartbeat of now and has shipped all.
func ingester(zone string, number int) Member {
	return Member{
		ID: fmt.Sprintf("ingester-%s-%d", zone, number), Roles: []Role{RoleIngester}, Zone: zone, Ordinal: number,
		StorageID: "disk", Address: "127.0.0.1:1", State: Active, Epoch: 1, Counter: 1, Heartbeat: ms(start),
		Registered: ms(start.Add(-24 * time.Hour)), ShippedUpTo: ms(start), Seen: ms(start),
	}
}

// cluster is n ingesters in each of the zones.
func cluster(n int, zones ...string) (members []Member) {
	for _, zone := range zones {
		for i := range n {
			members = append(members, ingester(zone, i))
		}
	}
	return members
}

// change returns members with one of them changed.
func change(t testing.TB, members []Member, id string, f func(*Member)) []Member {
	t.Helper()
	changed := append([]Member(nil), members...)
	for i := range changed {
		if changed[i].ID == id {
			f(&changed[i])
			return changed
		}
	}
	require.Fail(t, "no member", id)
	return nil
}

func ringOf(rf int, members ...Member) *Ring {
	return New(Config{ReplicationFactor: rf}, entriesOf(members), start)
}

func entriesOf(members []Member) (entries []Entry) {
	for _, m := range members {
		entries = append(entries, MemberEntry(m))
	}
	return entries
}

// sampled partitions stand for all 65,536 where each costs the test something.
const (
	sampled     = 4096
	sampledStep = 15
)

// owners names for each sampled partition and zone the ingester that has it.
func owners(t testing.TB, r *Ring, tenant string, shard int) []map[string]string {
	t.Helper()
	p := r.Tenant(tenant, shard)
	all := make([]map[string]string, sampled)
	for i := range all {
		replicas := p.Replicas(uint16(i * sampledStep))
		if replicas.Err != nil {
			require.NoError(t, replicas.Err)
		}
		all[i] = map[string]string{}
		for _, slot := range replicas.Members {
			m := r.Ingesters()[slot]
			zone := r.ZoneOf(m)
			if all[i][zone] != "" {
				require.Fail(t, "two replicas in one zone")
			}
			all[i][zone] = m.ID
		}
	}
	return all
}

// same is require.Equal for what is compared thousands of times.
func same(t testing.TB, want, got, why string) {
	t.Helper()
	if want != got {
		require.Equal(t, want, got, why)
	}
}

// seeded returns random numbers, and prints the seed when the test fails.
func seeded(t testing.TB, seed uint64) *rand.Rand {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}
