package ring

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// crashedAt is a cluster in which ingester-a-0 had its last heartbeat at start, and everybody else has shipped as far
// as the proof needs, four hours later.
func crashedAt(t *testing.T) (members []Member, now time.Time) {
	now = start.Add(4 * time.Hour)
	members = cluster(2, "a", "b", "c")
	for i := range members {
		members[i].Seen, members[i].Heartbeat = ms(now), ms(now)
		members[i].ShippedUpTo = ms(start.Add(3*time.Hour + defaultHeartbeatTimeout))
	}
	return change(t, members, "ingester-a-0", func(m *Member) {
		m.Seen, m.Heartbeat, m.ShippedUpTo, m.Epoch = ms(start), ms(start), 0, 7
	}), now
}

func TestForgetWithProof(t *testing.T) {
	members, now := crashedAt(t)
	tomb, reasons := New(Config{}, entriesOf(members), now).Forget("ingester-a-0", now)
	require.Empty(t, reasons)
	require.Equal(t, Tombstone{
		ID: "ingester-a-0", Epoch: 7, At: ms(now), Zone: "a", Floor: ms(start.Add(defaultHeartbeatTimeout + futureTolerance)),
	}, tomb)
	table := merged(entriesOf(members), []Entry{ForgetEntry(tomb)})
	r := New(Config{}, table.Entries(), now)
	_, ok := r.Get("ingester-a-0")
	require.False(t, ok)
	require.Equal(t, tomb.Floor, r.Floor(now))
}

// TestForgetNeedsEveryPartOfTheProof: each condition alone keeps the ingester, and says so.
func TestForgetNeedsEveryPartOfTheProof(t *testing.T) {
	good, now := crashedAt(t)
	const id = "ingester-a-0"
	for name, c := range map[string]struct {
		rf     int
		change string
		f      func(*Member)
		say    string
	}{
		"alive":                 {3, id, func(m *Member) { m.Seen = ms(now) }, "alive"},
		"left":                  {3, id, func(m *Member) { m.State = Left }, "left by itself"},
		"its own loss":          {3, id, func(m *Member) { m.LostBefore = ms(now) }, "lost a disk before"},
		"one copy":              {1, id, func(*Member) {}, "one copy"},
		"not shipped":           {3, "ingester-b-1", func(m *Member) { m.ShippedUpTo-- }, "ingester-b-1 in zone b has shipped"},
		"never shipped":         {3, "ingester-b-1", func(m *Member) { m.ShippedUpTo = 0 }, "before the beginning"},
		"another one away":      {3, "ingester-c-0", func(m *Member) { m.Seen = ms(start) }, "ingester-c-0 in zone c is away too"},
		"another lost its disk": {3, "ingester-c-0", func(m *Member) { m.LostBefore = ms(start) }, "ingester-c-0 in zone c has lost a disk"},
		"more copies than zones": {
			5, id, func(*Member) {}, "2 other zones with ingesters of that time are known, and its samples may be in any of 4",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := New(Config{ReplicationFactor: c.rf}, entriesOf(change(t, good, c.change, c.f)), now)
			_, reasons := r.Forget(id, now)
			require.Len(t, reasons, 1)
			require.Contains(t, strings.Join(reasons, "\n"), c.say)
		})
	}
	_, reasons := New(Config{}, entriesOf(good), now).Forget("nobody", now)
	require.Len(t, reasons, 1)
}

// TestForgetNeedsNoWordOfOthers: what says nothing about the proof does not stand in its way.
func TestForgetNeedsNoWordOfOthers(t *testing.T) {
	good, now := crashedAt(t)
	for name, f := range map[string]func(*Member){
		"came later":      func(m *Member) { m.Registered, m.ShippedUpTo = ms(start)+1, 0 },
		"never was":       func(m *Member) { m.State, m.Fresh, m.ShippedUpTo = Joining, true, 0 },
		"left":            func(m *Member) { m.State, m.ShippedUpTo = Left, 0 },
		"plays no part":   func(m *Member) { m.Roles, m.ShippedUpTo = []Role{RoleQuerier}, 0 },
		"of its own zone": func(m *Member) { m.Zone, m.Ordinal, m.ShippedUpTo, m.Seen = "a", 5, 0, 0 },
	} {
		_, reasons := New(Config{}, entriesOf(change(t, good, "ingester-b-1", f)), now).Forget("ingester-a-0", now)
		require.Empty(t, reasons, name)
	}
	for name, f := range map[string]func(*Member){
		"no ingester":       func(m *Member) { m.Roles = []Role{RoleQuerier} },
		"never was active":  func(m *Member) { m.State, m.Fresh = Joining, true },
		"was starting anew": func(m *Member) { m.State, m.Fresh, m.Ordinal = Joining, true, NoOrdinal },
	} {
		_, reasons := New(Config{}, entriesOf(change(t, good, "ingester-a-0", f)), now).Forget("ingester-a-0", now)
		require.Empty(t, reasons, name)
	}
}
