package gossip

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/ring"
)

func three(w *world) {
	for _, name := range []string{"a-0", "b-0", "c-0"} {
		w.at(name).activate()
	}
	w.eventually("three", func() bool { return w.agree(3) })
}

// TestEpochIsNeverUsedTwice: over kills, over a disk that was set back, and over one whose file is damaged.
func TestEpochIsNeverUsedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a-0", "b-0", "c-0")
		three(w)
		h := w.at("a-0")
		registered, before := h.Self().Registered, h.disk()
		for epoch := uint64(2); epoch < 4; epoch++ {
			h.kill()
			h.start()
			require.Equal(t, epoch, h.Self().Epoch)
			require.False(t, h.Self().Fresh, "it may hold samples")
			require.NoError(t, h.Activate(t.Context()))
			w.eventually("again", func() bool { return w.agree(3) })
		}
		h.kill()
		h.restore(before) // as from a snapshot: it thinks that 2 is next
		h.activate()
		w.eventually("beyond all that was", func() bool { return w.agree(3) && w.epochSeen("b-0", "a-0") == 4 })
		h.kill()
		require.NoError(t, os.WriteFile(filepath.Join(h.dir, identityName), []byte("{"), 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(h.dir, tableName), []byte("["), 0o600))
		h.activate()
		w.eventually("learned from others", func() bool { return w.agree(3) && w.epochSeen("b-0", "a-0") == 5 })
		require.Equal(t, registered, h.Self().Registered)
		require.Zero(t, h.Self().LostBefore, "it is the same storage")
		require.FileExists(t, filepath.Join(h.dir, identityName+".damaged"))
	})
}

// TestLostDiskIsSaid (rule 13), and forgotten once the other zones have shipped what was on it.
func TestLostDiskIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a-0", "b-0", "c-0")
		three(w)
		h := w.at("a-0")
		h.kill()
		h.wipe()
		h.start()
		began := time.Now()
		require.NoError(t, h.Activate(t.Context()))
		require.Less(t, time.Since(began), 3*time.Second+claimSettles*h.config().GossipInterval)
		lost := h.Self().LostBefore
		require.GreaterOrEqual(t, lost, began.UnixMilli(), "all that the old disk may have taken")
		seen := func() int64 {
			m, _ := w.at("b-0").Ring().Get("a-0")
			return m.LostBefore
		}
		w.eventually("others know", func() bool { return seen() == lost })
		h.kill()
		h.activate()
		require.Equal(t, lost, h.Self().LostBefore, "a restart does not bring it back")
		for _, name := range []string{"b-0", "c-0"} {
			w.at(name).Update(func(m *ring.Member) { m.ShippedUpTo = lost + (4 * time.Hour).Milliseconds() })
		}
		w.eventually("the others have shipped", func() bool { return h.Self().LostBefore == 0 && seen() == 0 })
		require.Equal(t, lost, h.Self().Floor, "what was lost is in the bucket and not here")
		w.pass(2 * saveInterval)
		h.kill()
		h.activate()
		require.Zero(t, h.Self().LostBefore)
		require.Equal(t, lost, h.Self().Floor, "still")
	})
}

// TestLostSamplesAreSaid: damage of a disk that stays counts as its loss.
func TestLostSamplesAreSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a-0", "b-0", "c-0")
		three(w)
		h, lost := w.at("a-0"), time.Now().UnixMilli()
		require.NoError(t, h.LoseBefore(lost))
		require.NoError(t, h.LoseBefore(lost-1))
		require.Equal(t, lost, h.Self().LostBefore)
		w.eventually("others know", func() bool {
			m, _ := w.at("b-0").Ring().Get("a-0")
			return m.LostBefore == lost
		})
		h.kill()
		h.activate()
		require.Equal(t, lost, h.Self().LostBefore, "after a restart, too")
		for _, name := range []string{"b-0", "c-0"} {
			w.at(name).Update(func(m *ring.Member) { m.ShippedUpTo = lost + (4 * time.Hour).Milliseconds() })
		}
		w.eventually("the others have shipped", func() bool { return h.Self().LostBefore == 0 })
	})
}

// TestNothingIsLostWhenAllWasShipped: an earlier disk that had nothing of its own any more.
func TestNothingIsLostWhenAllWasShipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a-0", "b-0", "c-0")
		three(w)
		h := w.at("a-0")
		floor := time.Now().UnixMilli()
		h.Update(func(m *ring.Member) { m.State, m.Floor = ring.Left, floor })
		w.eventually("it left", func() bool { return w.state("a-0", ring.Left) })
		h.stop()
		for _, disk := range []func(){func() {}, h.wipe} {
			disk()
			h.start()
			for done := w.after(h.Activate); !done(); w.pass(50 * time.Millisecond) {
				require.Equal(t, floor, w.at("b-0").Ring().Floor(time.Now()), "the bucket is asked all the time")
			}
			w.eventually("it is back", func() bool { return w.agree(3) })
			require.Zero(t, h.Self().LostBefore)
			require.Equal(t, floor, w.at("b-0").Ring().Floor(time.Now()))
			h.Update(func(m *ring.Member) { m.State = ring.Left })
			w.eventually("it left again", func() bool { return w.state("a-0", ring.Left) })
			h.stop()
		}
	})
}

// TestLostDiskAfterPowerOff: the disk is replaced while everything is down, and the first to be met never saw the old one.
func TestLostDiskAfterPowerOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a-0", "b-0", "c-0", "b-1")
		three(w)
		w.pass(2 * saveInterval)
		for _, name := range []string{"a-0", "b-0", "c-0"} {
			w.at(name).kill()
		}
		w.at("a-0").wipe()
		meet := func(c *Config, _ *Self) { c.Join = []string{"127.0.0.1:1", "127.0.0.1:4"} }
		w.at("b-1").activate(meet)
		w.at("a-0").activate(meet)
		w.eventually("two strangers", func() bool { return w.agree(2) })
		require.Zero(t, w.at("a-0").Self().LostBefore, "nobody here knows better")
		// The new entry is as new as the old one, and may replace it before its owner hears of that.
		w.at("a-0").Update(func(*ring.Member) {})
		w.at("b-0").activate(meet)
		w.eventually("who was lost is told", func() bool { return w.agree(3) && w.at("a-0").Self().LostBefore > 0 })
		w.eventually("and says so", func() bool {
			m, _ := w.at("b-1").Ring().Get("a-0")
			return m.LostBefore > 0
		})
	})
}

// TestTwoWithOneID: the one whose storage is older has it, and the other one keeps silent until that one is gone.
func TestTwoWithOneID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a-0", "b-0", "c-0", "a-9")
		three(w)
		twin := w.at("a-9")
		twin.start(func(_ *Config, s *Self) { s.ID = "a-0" })
		w.eventually("the twin gives way", func() bool { return twin.NotActive() != "" && twin.log.has("keeps silent") })
		w.pass(time.Minute)
		require.Equal(t, ring.Joining, twin.Self().State)
		require.Contains(t, twin.Problems()[0], "-ring.instance-id")
		for _, name := range []string{"a-0", "b-0", "c-0"} {
			m, _ := w.at(name).Ring().Get("a-0")
			require.Equal(t, "storage-a-0", m.StorageID)
			require.Equal(t, ring.Active, m.State)
			require.Zero(t, m.LostBefore)
		}
		done := make(chan error, 1)
		go func() { done <- twin.Activate(t.Context()) }()
		w.at("a-0").stop()
		w.eventually("the twin takes over", func() bool { return twin.Self().State == ring.Active })
		require.NoError(t, <-done)
		require.Positive(t, twin.Self().LostBefore, "the other's samples are away")
	})
}

// TestTwinIsGone: nobody has to look at what is over.
func TestTwinIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a-0", "b-0", "c-0", "a-9")
		three(w)
		a, twin := w.at("a-0"), w.at("a-9").start(func(_ *Config, s *Self) { s.ID = "a-0" })
		w.eventually("the twin is seen", a.seesTwin)
		a.mtx.Lock()
		a.setProblem(problemIdentity, "another process is younger") // it may have had no time to say more than its name
		a.mtx.Unlock()
		twin.kill()
		w.eventually("the twin is gone", func() bool { return len(a.Problems()) == 0 })
		require.False(t, a.seesTwin())
	})
}

// TestForgottenComesBack: a tombstone ends an epoch and not an instance.
func TestForgottenComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a-0", "b-0", "c-0")
		three(w)
		w.part(1, "a-0")
		w.pass(time.Minute)
		require.NoError(t, w.at("b-0").Forget(t.Context(), "a-0", true))
		w.eventually("forgotten", func() bool { return len(w.at("c-0").Ring().Ingesters()) == 2 })
		w.part(0, "a-0")
		w.eventually("back", func() bool { return w.agree(3) })
		require.Equal(t, uint64(2), w.at("a-0").Self().Epoch)
		require.Equal(t, ring.Active, w.at("a-0").Self().State)
	})
}
