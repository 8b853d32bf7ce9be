package replicate

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/duramenpb"
)

// One member hangs while senders go on: what it does not answer is bounded, no request waits for it, and it gets samples
// again once it answers.
func TestHungMemberIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, 1, "a", "b", "c")
		cfg := testConfig()
		cfg.MaxLateBytes = 100 << 10
		r := newTest(t, c, cfg)
		hung := c.peers["ing-b-0"]
		hang(hung)
		var res duramenpb.PushResult
		most, began := int64(0), time.Now()
		for n := range 200 {
			require.NoError(t, r.Push(t.Context(), "t", batch(0, 100, int64(n)), &res))
			most = max(most, r.inflight.Load(), r.lateBytes.Load())
		}
		require.Zero(t, time.Since(began))
		require.LessOrEqual(t, most, cfg.MaxLateBytes)
		require.Greater(t, most, cfg.MaxLateBytes/2)
		require.Less(t, hung.sent.Load(), int64(50))

		hung.serve = nil
		rest(cfg.LateTimeout)
		synctest.Wait()
		require.Zero(t, r.lateBytes.Load())
		require.NoError(t, r.Push(t.Context(), "t", batch(0, 100, 500), &res))
		require.NoError(t, r.Close())
		require.True(t, hung.has(series(0).String(), 500))
		require.Positive(t, testutil.ToFloat64(r.metrics.late.WithLabelValues(lateFailed)))
	})
}

// Two members hang while senders repeat what they get no quorum for.
func TestTwoHungMembersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, 1, "a", "b", "c")
		cfg := testConfig()
		cfg.MaxLateBytes = 100 << 10
		r := newTest(t, c, cfg)
		hang(c.peers["ing-b-0"])
		hang(c.peers["ing-c-0"])
		var res duramenpb.PushResult
		for range 30 {
			require.Error(t, r.Push(t.Context(), "t", batch(0, 100, 1), &res))
			require.LessOrEqual(t, r.lateBytes.Load(), cfg.MaxLateBytes)
		}
		require.NoError(t, r.Close())
		require.Zero(t, r.inflight.Load())
	})
}

func TestInflightIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, 1, "a", "b", "c")
		cfg := testConfig()
		cfg.MaxInflightBytes = 20 << 10
		r := newTest(t, c, cfg)
		for _, p := range c.peers {
			hang(p)
		}
		var res duramenpb.PushResult
		var waiting sync.WaitGroup
		for range 5 {
			waiting.Go(func() {
				var res duramenpb.PushResult
				_ = r.Push(t.Context(), "t", batch(0, 100, 1), &res)
			})
		}
		synctest.Wait()
		for range 10 {
			require.ErrorIs(t, r.Push(t.Context(), "t", batch(0, 100, 1), &res), errInflight)
		}
		waiting.Wait()
		rest(cfg.LateTimeout)
		synctest.Wait()
		require.NotErrorIs(t, r.Push(t.Context(), "t", batch(0, 100, 1), &res), errInflight)
		require.NoError(t, r.Close())
	})
}

// rest lets the fake clock go on.
func rest(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}
