package gossip

import (
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/ring"
)

// FuzzGossip gives a node what anybody may send.
func FuzzGossip(f *testing.F) {
	member := ring.Member{ID: "other", Roles: []ring.Role{ring.RoleIngester}, Zone: "z", StorageID: "s", Epoch: 3, Counter: 4}
	self := member
	self.ID, self.Epoch = "self", 1<<40
	grave := ring.ForgetEntry(ring.Tombstone{ID: "self", Epoch: 7, At: time.Now().UnixMilli()})
	for _, e := range []ring.Entry{ring.MemberEntry(member), ring.MemberEntry(self), grave} {
		msg, err := encodeMessage(e)
		require.NoError(f, err)
		f.Add(msg)
		state, err := encodeState([]ring.Entry{e, ring.MemberEntry(member)})
		require.NoError(f, err)
		f.Add(state)
	}
	for _, s := range []string{"", "\x01", "\x02{}", "\x01{}", "\x01[{}]", "\x01[null, 3]", "\x01{\"id\":\"self\",\"epoch\":18446744073709551615}"} {
		f.Add([]byte(s))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := New(defaults(), ring.Config{}, Self{ID: "self", StorageID: "mine", Ordinal: ring.NoOrdinal}, dir, time.Now,
			slog.New(slog.DiscardHandler), nil)
		require.NoError(t, err)
		n.own = ring.Member{ID: "self", StorageID: "mine", Epoch: 5}
		d := &delegate{n: n}
		d.NotifyMsg(data)
		d.MergeRemoteState(data, false)
		for _, e := range n.table.Entries() {
			_, err := json.Marshal(e)
			require.NoError(t, err)
		}
		for _, msg := range d.GetBroadcasts(3, 1400) {
			_, err := decodeMessage(msg)
			require.NoError(t, err)
		}
		_, err = decodeState(d.LocalState(false))
		require.NoError(t, err)
		n.RingPage()
		require.GreaterOrEqual(t, n.own.Epoch, uint64(5), "it never wraps")
	})
}
