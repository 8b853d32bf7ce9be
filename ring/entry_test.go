package ring

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEntryRoundTrip(t *testing.T) {
	m := ingester("a", 3)
	m.Roles = []Role{RoleIngester, RoleQuerier}
	m.HTTPAddress, m.State, m.Fresh, m.LostBefore, m.Floor, m.Version, m.Protocol = "h:1", Leaving, true, 5, 6, "v1", 7
	data, err := json.Marshal(MemberEntry(m))
	require.NoError(t, err)
	require.Contains(t, string(data), `"state":"LEAVING"`)
	require.NotContains(t, string(data), "seen", "one's own clock is nobody else's business")
	var back Entry
	require.NoError(t, json.Unmarshal(data, &back))
	m.Seen = 0
	require.Equal(t, m, back.Member)
	require.Nil(t, back.Forgotten)

	tomb := Tombstone{ID: "x", Epoch: 3, At: 4, Zone: "a", Floor: 5, LossAccepted: true}
	data, err = json.Marshal(ForgetEntry(tomb))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &back))
	require.Equal(t, &tomb, back.Forgotten)
	require.Equal(t, Member{ID: "x"}, back.Member)
}

// TestNewerFieldsTravel: what a newer version says is passed on as it came, and its states are no reason to drop it.
func TestNewerFieldsTravel(t *testing.T) {
	const newer = `{"id":"a","roles":["ingester","dreamer"],"ordinal":2,"state":"HIBERNATING","epoch":4,"dreams":{"of":[1,2]}}`
	var e Entry
	require.NoError(t, json.Unmarshal([]byte(strings.ReplaceAll(newer, ",", ", ")), &e))
	require.Equal(t, Unknown, e.Member.State)
	require.True(t, e.Member.HoldsData())
	require.False(t, e.Member.Writable())
	table := NewTable()
	Merge(table, start, e)
	data, err := json.Marshal(table.Entries())
	require.NoError(t, err)
	require.JSONEq(t, "["+newer+"]", string(data))
}

func TestEntryRefused(t *testing.T) {
	for name, data := range map[string]string{
		"nobody":            `{"epoch":1}`,
		"control character": `{"id":"a\nb"}`,
		"long name":         `{"id":"` + strings.Repeat("a", 256) + `"}`,
		"ordinal":           `{"id":"a","ordinal":70000}`,
		"negative ordinal":  `{"id":"a","ordinal":-2}`,
		"epoch":             `{"id":"a","epoch":18446744073709551615}`,
		"forgotten epoch":   `{"id":"a","forgotten":{"epoch":18446744073709551615}}`,
		"no JSON":           `{"id":`,
		"size":              `{"id":"a","more":"` + strings.Repeat("a", maxEntryBytes) + `"}`,
	} {
		var e Entry
		require.Error(t, json.Unmarshal([]byte(data), &e), name)
	}
	var e Entry
	require.NoError(t, json.Unmarshal([]byte(`{"id":"a"}`), &e))
	require.Equal(t, NoOrdinal, e.Member.Ordinal, "no word of an ordinal is none")
}

// FuzzEntry: any bytes are an error or an entry that comes back the same, merges, and makes a ring.
func FuzzEntry(f *testing.F) {
	f.Add([]byte(`{"id":"a","roles":["ingester"],"zone":"z","ordinal":0,"state":"ACTIVE","epoch":1,"counter":2}`))
	f.Add([]byte(`{"id":"a","forgotten":{"epoch":1,"at":2}}`))
	f.Add([]byte(`{"id":"<a>","state":"","roles":["ingester"],"ordinal":9,"new":"<>&"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var e, again Entry
		if json.Unmarshal(data, &e) != nil {
			return
		}
		out, err := json.Marshal(e)
		require.NoError(t, err)
		if len(out) > maxEntryBytes {
			return // it grew by what json.Marshal escapes
		}
		require.NoError(t, json.Unmarshal(out, &again))
		require.Equal(t, e.Member, again.Member)
		require.Equal(t, e.Forgotten, again.Forgotten)
		table := NewTable()
		Merge(table, start, e, again)
		require.Equal(t, 1, table.Len())
		r := New(Config{ReplicationFactor: 1}, table.Entries(), start)
		if replicas := r.Tenant("t", 1).Replicas(7); replicas.Err == nil {
			require.Equal(t, []int32{0}, replicas.Members)
		}
		r.ReadZones()
		r.Forget(e.ID(), start)
	})
}
