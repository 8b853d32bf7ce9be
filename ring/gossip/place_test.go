package gossip

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/ring"
)

func TestOrdinalFromTheID(t *testing.T) {
	for id, want := range map[string]int{
		"ingester-zone-a-3": 3, "a-0": 0, "a-007": 7, "node-65535": 65535,
		"node-65536": ring.NoOrdinal, "node": ring.NoOrdinal, "node-": ring.NoOrdinal, "3": ring.NoOrdinal,
		"host-3a": ring.NoOrdinal, "host--1": 1, "host-+1": ring.NoOrdinal,
	} {
		require.Equal(t, want, suffix(id), id)
	}
}

// nameless gives hosts IDs without numbers, and no zones.
func nameless(_ *Config, s *Self) {
	s.ID, s.Zone = map[byte]string{'a': "ann", 'b': "bob", 'c': "cat", 'd': "dan"}[s.ID[0]], ""
}

// TestOrdinalsAreClaimed: by those who start at the same moment, once for all.
func TestOrdinalsAreClaimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names := []string{"a-x", "b-x", "c-x", "d-x"}
		w := newWorld(t, names...)
		starts := make(chan error, len(names))
		for _, name := range names {
			h := w.at(name).start(nameless)
			go func() { starts <- h.Activate(t.Context()) }()
		}
		for range names {
			require.NoError(t, <-starts)
		}
		w.eventually("all see all", func() bool { return w.agree(4) })
		ordinals, zones := map[int]string{}, map[string]int{}
		for _, m := range w.at("a-x").Ring().Ingesters() {
			ordinals[m.Ordinal] = m.ID
			zones[w.at("a-x").Ring().ZoneOf(m)]++
		}
		require.Len(t, ordinals, 4)
		require.Equal(t, map[string]int{"virtual-0": 2, "virtual-1": 1, "virtual-2": 1}, zones)
		require.Empty(t, w.at("a-x").Problems())

		w.pass(2 * saveInterval)
		for _, name := range names {
			w.at(name).kill()
		}
		for i := range names {
			w.at(names[len(names)-1-i]).activate(nameless)
		}
		w.eventually("all are back", func() bool { return w.agree(4) })
		for _, m := range w.at("a-x").Ring().Ingesters() {
			require.Equal(t, m.ID, ordinals[m.Ordinal], "an ordinal is claimed once")
		}
	})
}

// TestAloneIsReadyAtOnce: a seed whose join list names nobody else, and one whose others are down.
func TestAloneIsReadyAtOnce(t *testing.T) {
	for name, tc := range map[string]struct {
		join []string
		id   string
		most time.Duration
	}{
		"nobody":             {nil, "ann", time.Second},
		"itself":             {[]string{"127.0.0.1:1"}, "ann", time.Second},
		"others, with an ID": {[]string{"127.0.0.1:1", "127.0.0.1:2"}, "a-0", time.Second},
		// The first start ever waits a little, lest two that start together both take themselves for the first.
		"others, without": {[]string{"127.0.0.1:1", "127.0.0.1:2"}, "ann", claimPatience + 3*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "a", "b")
				began := time.Now()
				w.at("a").activate(func(c *Config, s *Self) { c.Join, s.ID = tc.join, tc.id })
				require.Less(t, time.Since(began), tc.most)
				require.Equal(t, 0, w.at("a").Self().Ordinal)
				require.Len(t, w.at("a").Ring().Members(ring.RoleIngester), 1)
			})
		})
	}
}

// TestOrdinalConflict (rule 15): of two with one ordinal in their IDs the younger stays JOINING and says so.
func TestOrdinalConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a-0", "b-0", "c-0", "another-0")
		three(w)
		late := w.at("another-0").start()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := late.Activate(ctx)
		require.ErrorContains(t, err, `ordinal 0 of zone "zone-a" belongs to a-0`)
		require.Equal(t, ring.Joining, late.Self().State)
		require.Contains(t, late.NotActive(), "belongs to a-0")
		require.Contains(t, late.Problems()[0], "belongs to a-0")
		require.True(t, late.log.has("ERROR member stays JOINING"))

		done := make(chan error, 1)
		go func() { done <- late.Activate(t.Context()) }()
		w.at("a-0").Update(func(m *ring.Member) { m.State = ring.Left })
		require.NoError(t, <-done)
		require.Empty(t, late.Problems())
		require.Empty(t, late.NotActive())
	})
}

// TestOrdinalIsFreeAfterLeaving: who left with everything in the bucket has no older right when it comes back.
func TestOrdinalIsFreeAfterLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names := []string{"a-x", "b-x", "c-x", "d-x"}
		w := newWorld(t, names...)
		for _, name := range names[:3] {
			w.at(name).activate(nameless)
		}
		ordinal := w.at("b-x").Self().Ordinal
		w.at("b-x").Update(func(m *ring.Member) { m.State, m.Floor = ring.Left, time.Now().UnixMilli() })
		w.at("b-x").stop()
		w.at("d-x").activate(nameless)
		require.Equal(t, ordinal, w.at("d-x").Self().Ordinal)
		w.at("b-x").activate(nameless)
		w.eventually("four", func() bool { return w.agree(4) })
		require.Equal(t, 3, w.at("b-x").Self().Ordinal)
		require.Empty(t, w.at("d-x").Problems())
	})
}

// TestOrdinalConflictIsSeenLate: both became ACTIVE while they did not see one another.
func TestOrdinalConflictIsSeenLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a-0", "b-0", "c-0", "another-0")
		three(w)
		w.part(1, "another-0")
		late := w.at("another-0").activate()
		w.part(0, "another-0")
		w.eventually("it is said", func() bool { return late.log.has("ERROR this ingester is given no series") })
		require.Len(t, late.Problems(), 1)
		require.Empty(t, w.at("a-0").Problems())
		require.Positive(t, w.at("b-0").Ring().Share("a-0"))
		require.Zero(t, w.at("b-0").Ring().Share("another-0"))
	})
}

func TestZonesThatDoNotFit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a-0", "b-0", "a-1", "b-1")
		w.at("a-0").activate()
		w.at("b-0").activate()
		require.False(t, problemsOnLog(w.at("a-0")), "the third zone may be on its way")
		w.eventually("too few zones", func() bool { return problemsOnLog(w.at("a-0")) })
		require.Contains(t, w.at("a-0").Problems()[0], "zone-a, zone-b")
		w.at("a-1").activate(func(_ *Config, s *Self) { s.Zone = "zone-c" })
		w.eventually("three zones", func() bool { return len(w.at("a-0").Problems()) == 0 })
		w.at("b-1").activate(func(_ *Config, s *Self) { s.Zone = "" })
		w.eventually("one without", func() bool {
			return len(w.at("a-0").Problems()) == 1 && w.at("a-0").Problems()[0] == zonesFault(w.at("a-0").Ring())
		})
	})
}

func problemsOnLog(h *host) bool { return h.log.has("ERROR zones do not fit") }
