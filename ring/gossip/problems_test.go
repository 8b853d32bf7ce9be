package gossip

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/ring"
)

// TestAnotherReplicationFactor: who counts copies otherwise takes no part, whatever it does, and all say so.
func TestAnotherReplicationFactor(t *testing.T) {
	for _, role := range []ring.Role{ring.RoleIngester, ring.RoleDistributor} {
		t.Run(string(role), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "a-0", "b-0", "c-0", "c-1")
				three(w)
				w.rings.ReplicationFactor = 5
				late := w.at("c-1").start(func(_ *Config, s *Self) { s.Roles = []ring.Role{role} })
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				require.ErrorContains(t, late.Activate(ctx), "keeps 3 copies and this member 5")
				require.Equal(t, ring.Joining, late.Self().State)
				require.Contains(t, late.Problems()[0], "-ring.replication-factor")
				require.Contains(t, w.at("a-0").Problems(), "c-1 at "+late.address+
					" keeps 5 copies and this member 3: set the same -ring.replication-factor everywhere")
				require.Positive(t, w.at("a-0").Ring().Share("c-0"))

				late.stop()
				w.rings.ReplicationFactor = 3
				late.activate()
				w.eventually("all is well", func() bool { return len(w.at("a-0").Problems()) == 0 })
			})
		})
	}
}

// TestReplicationFactorChanges: by a stop of all, after which nobody lives who counts otherwise.
func TestReplicationFactorChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a-0", "b-0", "c-0")
		three(w)
		w.pass(2 * saveInterval)
		for _, name := range []string{"a-0", "b-0", "c-0"} {
			w.at(name).stop()
		}
		w.rings.ReplicationFactor = 1
		three(w)
		w.eventually("all is well", func() bool { return len(w.at("a-0").Problems()) == 0 })
		require.Len(t, w.at("a-0").Ring().Ingesters(), 3)
	})
}

// TestAloneIsSaid: of a member that was told of others and sees none.
func TestAloneIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a-0", "b-0", "c-0")
		h := w.at("a-0").activate()
		w.eventually("on the log", func() bool { return h.log.has("ERROR this member is alone") })
		require.Contains(t, h.Problems()[0], "nobody answers at -memberlist.join (127.0.0.1:1, ")
		w.at("b-0").activate()
		w.at("c-0").activate()
		w.eventually("no longer", func() bool { return len(h.Problems()) == 0 })
	})
}
