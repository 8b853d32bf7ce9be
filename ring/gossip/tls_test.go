package gossip

import (
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/certtest"
	"github.com/duramendb/duramen/ring"
)

// overSockets runs a member on loopback, with the TLS of an authority or, with nil, without any.
func overSockets(t *testing.T, id string, tls *TLSConfig, join ...string) (*Node, *logs) {
	t.Helper()
	cfg := defaults()
	cfg.BindAddress, cfg.Join = "127.0.0.1:0", join
	cfg.GossipInterval, cfg.RejoinInterval = 20*time.Millisecond, 50*time.Millisecond
	if tls != nil {
		cfg.TLS = *tls
	}
	log := &logs{t: t, name: id}
	self := Self{
		ID: id, Roles: []ring.Role{ring.RoleIngester}, Zone: id, Ordinal: 0, StorageID: id, Address: ":9095", HTTPAddress: ":9009",
	}
	n, err := New(cfg, ring.Config{}, self, t.TempDir(), time.Now, slog.New(log), prometheus.NewRegistry())
	require.NoError(t, err)
	require.NoError(t, n.Service().Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, n.Service().Stop()) })
	return n, log
}

func withTLS(t *testing.T, authority *certtest.Authority) *TLSConfig {
	t.Helper()
	cert, key := authority.Issue(t, "member")
	return &TLSConfig{Enabled: true, CertFile: cert, KeyFile: key, CAFile: authority.File}
}

func (n *Node) refusals(reason string) float64 {
	return testutil.ToFloat64(n.metrics.dropped.WithLabelValues(reason))
}

// TestMembersOverTLS: they see one another, and those with a foreign certificate or without TLS stay outside; both sides say
// why.
func TestMembersOverTLS(t *testing.T) {
	ours, others := certtest.New(t), certtest.New(t)
	seed, log := overSockets(t, "a", withTLS(t, ours))
	at := seed.MemberlistPage().Address
	eventually := func(what string, condition func() bool) {
		t.Helper()
		require.Eventually(t, condition, time.Minute, 5*time.Millisecond, what)
	}

	foreign, foreignLog := overSockets(t, "x", withTLS(t, others), at)
	plain, plainLog := overSockets(t, "y", nil, at)
	b, _ := overSockets(t, "b", withTLS(t, ours), at)
	c, _ := overSockets(t, "c", withTLS(t, ours), at)
	members := []*Node{seed, b, c}
	for _, n := range members {
		require.NoError(t, n.Activate(t.Context()))
	}
	eventually("all see all", func() bool {
		for _, n := range members {
			if len(n.Ring().Members(ring.RoleIngester)) != 3 || n.size() != 3 {
				return false
			}
		}
		return true
	})
	eventually("a state that is told by packets arrives", func() bool {
		c.SetState(ring.ReadOnly)
		m, _ := b.Ring().Get("c")
		return m.State == ring.ReadOnly
	})
	eventually("strangers are counted on both sides", func() bool {
		return foreign.refusals(reasonTLS) > 0 && plain.refusals(reasonTLS) > 0 && seed.refusals(reasonTLS) > 1
	})
	eventually("and those outside say why", func() bool {
		return foreignLog.has("certificate signed by unknown authority") && plainLog.has(errSpeaksTLS.Error())
	})
	eventually("as does who refuses", func() bool { return log.has("inbound=true") })
	require.Equal(t, 1, foreign.size())
	require.Equal(t, 1, plain.size())
	require.Zero(t, plain.refusals(reasonLabel)+plain.refusals(reasonMalformed), "it is TLS, and nothing else")

	_, port, err := net.SplitHostPort(plain.MemberlistPage().Address)
	require.NoError(t, err)
	lost, lostLog := overSockets(t, "z", withTLS(t, ours), "127.0.0.1:"+port)
	eventually("the other way round, too", func() bool {
		return lost.refusals(reasonTLS) > 0 && lostLog.has("gossips without TLS") && plainLog.has("inbound=true")
	})
	require.Equal(t, 1, lost.size())
}

func TestSettingsOfTLSThatCannotBe(t *testing.T) {
	for name, c := range map[string]TLSConfig{
		"files without":   {CertFile: "x"},
		"a name without":  {ServerName: "x"},
		"no authority":    {Enabled: true, CertFile: "x", KeyFile: "x"},
		"no certificate":  {Enabled: true, CAFile: "x"},
		"half a pair":     {Enabled: true, CertFile: "x", CAFile: "x"},
		"nothing at all":  {Enabled: true},
		"a key, no paper": {Enabled: true, KeyFile: "x", CAFile: "x"},
	} {
		cfg := defaults()
		cfg.TLS = c
		require.ErrorContains(t, cfg.Validate(), "tls: ", name)
	}
	authority := certtest.New(t)
	cfg := defaults()
	cfg.TLS = *withTLS(t, authority)
	require.NoError(t, cfg.Validate())
	require.NoError(t, cfg.CheckFiles())
	cfg.TLS.CAFile = "/nowhere"
	require.ErrorContains(t, cfg.CheckFiles(), "tls.ca_file")
	n, err := New(cfg, ring.Config{}, Self{ID: "a", StorageID: "a", Ordinal: ring.NoOrdinal}, t.TempDir(), time.Now,
		slog.New(slog.DiscardHandler), nil)
	require.NoError(t, err)
	require.ErrorContains(t, n.Service().Start(t.Context()), "memberlist.tls.ca_file")
}
