package gossip

import (
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/secret"
	"github.com/duramendb/duramen/ring"
)

// TestOverLoopback: real sockets, names in the join list, and a member that accepts connections and says nothing.
func TestOverLoopback(t *testing.T) {
	mute, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer mute.Close()
	start := func(id string, join ...string) *Node {
		cfg := defaults()
		cfg.BindAddress, cfg.Join, cfg.EncryptionKeys = "127.0.0.1:0", join, secret.Text(testKey(32, "k"))
		cfg.GossipInterval = 20 * time.Millisecond
		self := Self{
			ID: id, Roles: []ring.Role{ring.RoleIngester}, Zone: id, Ordinal: 0, StorageID: id, Address: ":9095",
			HTTPAddress: "0.0.0.0:9009",
		}
		n, err := New(cfg, ring.Config{}, self, t.TempDir(), time.Now, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		require.NoError(t, err)
		require.NoError(t, n.Service().Start(t.Context()))
		t.Cleanup(func() { require.NoError(t, n.Service().Stop()) })
		return n
	}
	seed := start("a")
	require.NoError(t, seed.Activate(t.Context()))
	require.Equal(t, "127.0.0.1:9095", seed.Self().Address, "the host is filled in")
	require.Equal(t, "127.0.0.1:9009", seed.Self().HTTPAddress)
	_, port, err := net.SplitHostPort(seed.MemberlistPage().Address)
	require.NoError(t, err)

	began := time.Now()
	second := start("b", mute.Addr().String(), "localhost:"+port, "no-such-name.invalid:7946")
	require.NoError(t, second.Activate(t.Context()))
	require.Less(t, time.Since(began), streamTimeout, "who does not answer does not hold up the others")
	for {
		changed := seed.Changed()
		if len(seed.Ring().Members(ring.RoleIngester)) == 2 {
			break
		}
		<-changed
	}
	began = time.Now()
	require.NoError(t, second.Service().Stop())
	require.Less(t, time.Since(began), streamTimeout, "nor a stop")
}

// TestSeedThatJoinsItself: as in a guide where all members get the same join list.
func TestSeedThatJoinsItself(t *testing.T) {
	free, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(free.Addr().String())
	require.NoError(t, err)
	require.NoError(t, free.Close())
	cfg := defaults()
	cfg.BindAddress, cfg.Join = "127.0.0.1:"+port, []string{"localhost:" + port}
	cfg.RejoinInterval = 10 * time.Millisecond
	n, err := New(cfg, ring.Config{}, Self{ID: "seed", StorageID: "s", Roles: []ring.Role{ring.RoleIngester}, Ordinal: ring.NoOrdinal},
		t.TempDir(), time.Now, slog.New(slog.DiscardHandler), nil)
	require.NoError(t, err)
	began := time.Now()
	require.NoError(t, n.Service().Start(t.Context()))
	require.NoError(t, n.Activate(t.Context()))
	require.Less(t, time.Since(began), claimPatience)
	require.NoError(t, n.Service().Stop())
	require.Zero(t, testutil.ToFloat64(n.metrics.joins), "it knows itself")
}

func TestAdvertisedAddress(t *testing.T) {
	for _, tc := range []struct{ configured, bind, want string }{
		{"", "10.1.2.3", "10.1.2.3"},
		{"", "::1", "::1"},
		{"10.9.9.9", "0.0.0.0", "10.9.9.9"},
		{"10.9.9.9:1234", "0.0.0.0", "10.9.9.9"},
		{"localhost", "0.0.0.0", "127.0.0.1"},
	} {
		ip, err := advertisedIP(tc.configured, tc.bind)
		require.NoError(t, err)
		require.Equal(t, tc.want, ip.String())
	}
	require.Equal(t, "10.0.0.1:80", withHost(":80", "10.0.0.1"))
	require.Equal(t, "[::1]:80", withHost("[::]:80", "::1"))
	require.Equal(t, "name:80", withHost("name:80", "10.0.0.1"))
}
