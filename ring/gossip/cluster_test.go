package gossip

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/secret"
	"github.com/duramendb/duramen/ring"
)

// twelve are the names of hosts in three zones.
func twelve() []string {
	var names []string
	for i := range 4 {
		for _, zone := range []string{"a", "b", "c"} {
			names = append(names, fmt.Sprintf("%s-%d", zone, i))
		}
	}
	return names
}

// agree reports whether all running nodes see the same placement, with so many ingesters that can be used.
func (w *world) agree(active int) bool {
	var version uint64
	return w.all(func(h *host) bool {
		r := h.Ring()
		if version == 0 {
			version = r.Version()
		}
		return r.Version() == version && len(r.Members(ring.RoleIngester)) == active
	})
}

// state reports whether all running nodes see the member in this state.
func (w *world) state(id string, state ring.State) bool {
	return w.all(func(h *host) bool {
		m, ok := h.Ring().Get(id)
		return ok && m.State == state
	})
}

// TestAllKnowOfANewIngesterBeforeItIsActive: whoever could be asked by a querier has heard that it may hold samples before
// any distributor can write to it, also when no packet of gossip arrives.
func TestAllKnowOfANewIngesterBeforeItIsActive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a-0", "b-0", "c-0", "a-1")
		three(w)
		heard := make(chan int, 1)
		go func() {
			for {
				active, known := 0, 0
				for _, name := range []string{"a-0", "b-0", "c-0"} {
					switch m, ok := w.at(name).Ring().Get("a-1"); {
					case ok && m.State == ring.Active:
						active++
						known++
					case ok && m.HoldsData():
						known++
					}
				}
				if active > 0 {
					heard <- known
					return
				}
				time.Sleep(time.Millisecond)
			}
		}()
		w.at("a-1").activate()
		require.Equal(t, 3, <-heard, "members that ask the new one when the first may write to it")
	})
}

func TestTwelveConverge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twelve()...)
		began := time.Now()
		for _, name := range twelve() {
			w.at(name).activate()
		}
		w.eventually("all see all", func() bool { return w.agree(12) })
		require.Less(t, time.Since(began), 15*time.Second, "one after another, each told to all before it is ACTIVE")

		changed, version := w.at("c-3").Changed(), w.at("c-3").Ring().Version()
		began = time.Now()
		w.at("b-2").SetState(ring.ReadOnly)
		w.eventually("all hear the news", func() bool { return w.state("b-2", ring.ReadOnly) })
		require.Less(t, time.Since(began), 5*time.Second)
		<-changed
		require.NotEqual(t, version, w.at("c-3").Ring().Version())

		w.at("a-1").kill()
		w.eventually("the dead one is known to all", func() bool { return w.agree(11) })
		m, ok := w.at("c-3").Ring().Get("a-1")
		require.True(t, ok && m.State == ring.Active, "a crashed ingester keeps its place")

		// The first seed comes back with another epoch, and as the same instance.
		w.at("a-0").kill()
		epoch := w.epochSeen("c-3", "a-0")
		w.at("a-0").activate()
		w.eventually("the seed is back", func() bool { return w.agree(11) && w.epochSeen("c-3", "a-0") == epoch+1 })
	})
}

func (w *world) epochSeen(by, id string) uint64 {
	m, _ := w.at(by).Ring().Get(id)
	return m.Epoch
}

// TestPartitionHeals: both sides change while they are apart for so long that memberlist gives the others up.
func TestPartitionHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twelve()...)
		for _, name := range twelve() {
			w.at(name).activate()
		}
		w.eventually("all see all", func() bool { return w.agree(12) })
		// All of the join list are on the other side.
		w.part(1, "a-2", "b-2", "c-2", "a-3", "b-3")
		w.pass(70 * time.Second)
		require.Len(t, w.at("a-0").Ring().Members(ring.RoleIngester), 7)
		require.Len(t, w.at("a-3").Ring().Members(ring.RoleIngester), 5)
		w.at("a-1").SetState(ring.ReadOnly)
		w.at("b-3").SetState(ring.ReadOnly)
		w.at("c-3").kill()
		w.part(0, "a-2", "b-2", "c-2", "a-3", "b-3")
		w.eventually("the sides are one again", func() bool {
			return w.agree(11) && w.state("a-1", ring.ReadOnly) && w.state("b-3", ring.ReadOnly)
		})
		w.eventually("gossip reaches all", func() bool { return w.all(func(h *host) bool { return h.size() == 11 }) })
	})
}

// TestPeersAreFoundWithoutTheJoinList: nobody of the join list ever comes back.
func TestPeersAreFoundWithoutTheJoinList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twelve()...)
		for _, name := range twelve()[:6] {
			w.at(name).activate()
		}
		w.eventually("all see all", func() bool { return w.agree(6) })
		w.pass(2 * w.at("a-1").cfg.RejoinInterval) // time to remember
		for _, name := range twelve()[:6] {
			w.at(name).kill()
		}
		for _, name := range twelve()[3:6] {
			w.at(name).activate()
		}
		w.eventually("they meet", func() bool { return w.agree(3) })
		require.Len(t, w.at("a-1").Ring().Ingesters(), 6, "those that are down are not forgotten")
	})
}

func TestStrangersAreKeptOut(t *testing.T) {
	key := func(keys ...string) func(c *Config, _ *Self) {
		return func(c *Config, _ *Self) {
			for _, k := range keys {
				c.EncryptionKeys += secret.Text(testKey(32, k) + ",")
			}
		}
	}
	label := func(c *Config, _ *Self) { c.ClusterLabel = "another" }
	plain := func(*Config, *Self) {}
	for name, tc := range map[string]struct {
		us, them func(c *Config, s *Self)
		reason   string
	}{
		"another label":      {plain, label, reasonLabel},
		"another key":        {key("a"), key("b"), reasonKey},
		"no key":             {key("a"), plain, reasonKey},
		"a key of their own": {plain, key("a"), reasonKey},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "a-0", "b-0", "c-0", "a-1")
				for _, name := range []string{"a-0", "b-0", "c-0"} {
					w.at(name).activate(tc.us)
				}
				w.at("a-1").activate(tc.them)
				w.pass(15 * time.Second)
				for _, name := range []string{"a-0", "b-0", "c-0"} {
					require.Len(t, w.at(name).Ring().All(), 3)
					require.Equal(t, 3, w.at(name).size())
				}
				require.Len(t, w.at("a-1").Ring().All(), 1)
				require.Positive(t, testutil.ToFloat64(w.at("a-0").metrics.dropped.WithLabelValues(tc.reason)))
			})
		})
	}
	t.Run("keys are rotated", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "a-0", "b-0", "c-0")
			w.at("a-0").activate(key("a"))
			w.at("b-0").activate(key("a", "b"))
			w.at("c-0").activate(key("a", "b"))
			w.eventually("both keys", func() bool { return w.agree(3) })
			w.at("a-0").stop()
			w.at("a-0").activate(key("b", "a"))
			w.eventually("the new key first", func() bool { return w.agree(3) })
			page := w.at("a-0").MemberlistPage()
			require.Len(t, page.Keys, 2)
			require.True(t, page.Keys[0].Encrypts)
			require.Equal(t, page.Keys[0].Fingerprint, w.at("b-0").MemberlistPage().Keys[1].Fingerprint)
		})
	})
}

// TestStop: a member without samples is gone at once, an ingester keeps its place.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a-0", "b-0", "c-0", "query")
		for _, name := range []string{"a-0", "b-0", "c-0"} {
			w.at(name).activate()
		}
		w.at("query").activate(func(_ *Config, s *Self) { s.Roles = []ring.Role{ring.RoleQuerier} })
		w.eventually("the querier is known", func() bool { return w.state("query", ring.Active) })
		require.Equal(t, ring.NoOrdinal, w.at("query").Self().Ordinal)
		w.at("query").stop()
		w.eventually("the querier left", func() bool { return w.state("query", ring.Left) })
		w.at("c-0").stop()
		w.pass(2 * time.Minute)
		require.True(t, w.state("c-0", ring.Active))
		require.Equal(t, 2, w.at("a-0").size())
	})
}
