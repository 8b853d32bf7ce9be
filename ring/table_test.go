package ring

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// randomEntries are announcements, restarts, clones and notes of forgetting of a few instances, so that they collide.
func randomEntries(rnd *rand.Rand, n int) (entries []Entry) {
	for range n {
		id := string(rune('a' + rnd.IntN(4)))
		epoch, counter := uint64(rnd.IntN(3)), uint64(rnd.IntN(3))
		if rnd.IntN(4) == 0 {
			entries = append(entries, ForgetEntry(Tombstone{ID: id, Epoch: epoch, At: int64(rnd.IntN(3)), LossAccepted: rnd.IntN(2) == 0}))
			continue
		}
		entries = append(entries, MemberEntry(Member{
			ID: id, Roles: []Role{RoleIngester}, Epoch: epoch, Counter: counter, State: State(rnd.IntN(5)), Address: string(rune('x' + rnd.IntN(2))),
			Heartbeat: rnd.Int64N(1000) - 500, // clocks are of no importance
		}))
	}
	return entries
}

// contents is what a table says, without what only this process knows.
func contents(t testing.TB, table *Table) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, e := range table.Entries() {
		data, err := e.MarshalJSON()
		require.NoError(t, err)
		all[e.ID()] = string(data)
	}
	return all
}

func merged(tables ...[]Entry) *Table {
	table := NewTable()
	for _, entries := range tables {
		Merge(table, start, entries...)
	}
	return table
}

// TestMergeIsALattice: merging is commutative, associative and idempotent, so that any gossip ends in one table.
func TestMergeIsALattice(t *testing.T) {
	rnd := seeded(t, 1)
	for range 400 {
		a, b, c := randomEntries(rnd, 6), randomEntries(rnd, 6), randomEntries(rnd, 6)
		require.Equal(t, contents(t, merged(a, b)), contents(t, merged(b, a)), "commutative")
		ab, bc := merged(a, b), merged(b, c)
		require.Equal(t, contents(t, merged(ab.Entries(), c)), contents(t, merged(a, bc.Entries())), "associative")
		again := contents(t, ab)
		require.Empty(t, Merge(ab, start.Add(time.Hour), b...), "idempotent")
		require.Equal(t, again, contents(t, ab), "idempotent")
		shuffled := append(append([]Entry(nil), a...), b...)
		rnd.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		require.Equal(t, again, contents(t, merged(shuffled)), "the order within a message")
	}
}

func TestMergeOrder(t *testing.T) {
	entry := func(epoch, counter uint64, heartbeat time.Time) Entry {
		return MemberEntry(Member{ID: "a", Epoch: epoch, Counter: counter, Heartbeat: ms(heartbeat)})
	}
	tomb := func(epoch uint64) Entry { return ForgetEntry(Tombstone{ID: "a", Epoch: epoch, At: ms(start)}) }
	late := start.Add(24 * time.Hour)
	for name, c := range map[string]struct{ wins, loses Entry }{
		"a higher counter, whatever the clock says":      {entry(1, 2, start), entry(1, 1, late)},
		"a higher epoch, whatever counter and clock say": {entry(2, 0, start), entry(1, 9, late)},
		"forgetting, over its epoch":                     {tomb(2), entry(2, 9, late)},
		"forgetting, over an earlier epoch":              {tomb(2), entry(1, 9, late)},
		"a start after forgetting":                       {entry(3, 0, start), tomb(2)},
		"forgetting of a later epoch":                    {tomb(3), tomb(2)},
	} {
		t.Run(name, func(t *testing.T) {
			for _, order := range [][]Entry{{c.wins, c.loses}, {c.loses, c.wins}} {
				table := NewTable()
				Merge(table, start, order...)
				got, _ := table.Get("a")
				got.Member.Seen, got.raw = 0, nil
				require.Equal(t, c.wins, got)
			}
		})
	}
}

// TestSeen: what is heard of for the first time may be old, what advances is alive, and the clock of its owner decides
// only the former.
func TestSeen(t *testing.T) {
	cfg := Config{}.withDefaults()
	for name, skew := range map[string]time.Duration{"right": 0, "slow": -2 * time.Hour, "fast": 2 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			table := NewTable()
			m := ingester("a", 0)
			m.Heartbeat = ms(start.Add(skew))
			Merge(table, start, MemberEntry(m))
			first := New(cfg, table.Entries(), start)
			require.Equal(t, skew >= 0, first.Alive(first.Ingesters()[0], start))

			m.Counter++
			m.Heartbeat += 5000
			now := start.Add(5 * time.Second)
			require.Len(t, Merge(table, now, MemberEntry(m)), 1)
			require.Empty(t, Merge(table, now.Add(time.Minute), MemberEntry(m)), "no news")
			r := New(cfg, table.Entries(), now)
			seen := r.Ingesters()[0]
			require.True(t, r.Alive(seen, now))
			require.True(t, r.Alive(seen, now.Add(cfg.HeartbeatTimeout)))
			require.False(t, r.Alive(seen, now.Add(cfg.HeartbeatTimeout+time.Millisecond)))
		})
	}
}

func TestExpire(t *testing.T) {
	crashed, left, stateless := ingester("a", 0), ingester("a", 1), ingester("a", 2)
	left.State, left.Floor = Left, ms(start)
	stateless.Roles, stateless.State = []Role{RoleQuerier}, Left
	old := merged(entriesOf([]Member{crashed, left, stateless}), []Entry{ForgetEntry(Tombstone{ID: "f", At: ms(start)})})
	known := func(after time.Duration) (ids []string) {
		old.Expire(start.Add(after))
		for _, e := range old.Entries() {
			ids = append(ids, e.ID())
		}
		return ids
	}
	require.Equal(t, []string{"f", crashed.ID, left.ID, stateless.ID}, known(statelessRetention))
	require.Equal(t, []string{"f", crashed.ID, left.ID}, known(statelessRetention+time.Second))
	require.Equal(t, []string{"f", crashed.ID, left.ID}, known(leftRetention))
	require.Equal(t, []string{crashed.ID}, known(leftRetention+time.Second))
	require.Equal(t, []string{crashed.ID}, known(10*365*24*time.Hour), "its samples may be nowhere else")
}

func TestReclaim(t *testing.T) {
	self := Member{ID: "a", Epoch: 2, Counter: 7, LostBefore: 5}
	for name, seen := range map[string]Entry{
		"itself":         MemberEntry(self),
		"its past":       MemberEntry(Member{ID: "a", Epoch: 2, Counter: 6}),
		"an earlier end": ForgetEntry(Tombstone{ID: "a", Epoch: 1}),
		"another":        MemberEntry(Member{ID: "b", Epoch: 9}),
	} {
		got, changed := Reclaim(self, seen)
		require.False(t, changed, name)
		require.Equal(t, self, got, name)
	}
	for name, c := range map[string]struct {
		seen Entry
		lost int64
	}{
		"a disk of later epochs":         {MemberEntry(Member{ID: "a", Epoch: 7, Counter: 1}), 5},
		"forgotten":                      {ForgetEntry(Tombstone{ID: "a", Epoch: 7}), 5},
		"forgotten with what it has not": {ForgetEntry(Tombstone{ID: "a", Epoch: 7, LossAccepted: true}), 0},
	} {
		got, changed := Reclaim(self, c.seen)
		require.True(t, changed, name)
		require.Equal(t, Member{ID: "a", Epoch: 8, LostBefore: c.lost}, got, name)
		table := merged([]Entry{c.seen}, []Entry{MemberEntry(got)})
		e, _ := table.Get("a")
		require.Nil(t, e.Forgotten, name)
		require.Equal(t, uint64(8), e.Member.Epoch, name)
	}
}
