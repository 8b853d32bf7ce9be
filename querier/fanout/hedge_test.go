package fanout

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/errkind"
)

// inWorld runs a test in a world of so many ingesters a zone that hold some samples each.
func inWorld(t *testing.T, rf, zones, each int, f func(t *testing.T, w *world, began int64)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, rf, zones, each)
		began := time.Now().UnixMilli()
		for i := range 30 {
			k := key{i % 6, began + int64(i)*100}
			w.write(k, float64(k.t), func(*node) bool { return false })
		}
		time.Sleep(10 * time.Second)
		w.gossip()
		f(t, w, began)
		w.end()
	})
}

// warm lets the fanout learn how long a plan takes.
func (w *world) warm(began int64) {
	w.t.Helper()
	for range 4 * fewLatencies {
		w.exact(began)
	}
}

// exact asks for everything and returns how long it took.
func (w *world) exact(began int64) time.Duration {
	w.t.Helper()
	at := time.Now()
	got, err := w.ask(began, began+10_000, false)
	require.NoError(w.t, err)
	w.check(got, began, began+10_000, "after the trouble")
	return time.Since(at)
}

func (w *world) trouble(id string, is trouble) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.member(id).is = is
}

func TestHungMemberCostsAtMostTheHedge(t *testing.T) {
	inWorld(t, 3, 3, 2, func(t *testing.T, w *world, began int64) {
		w.warm(began)
		w.trouble("a0", hangs)
		require.LessOrEqual(t, w.exact(began), minHedge+10*time.Millisecond)
		require.InDelta(t, 1, testutil.ToFloat64(w.fanout.metrics.hedges), 0)
		for range 100 {
			require.LessOrEqual(t, w.exact(began), 10*time.Millisecond, "who hangs is known now")
			time.Sleep(100 * time.Millisecond)
		}
		suspects := w.fanout.Suspects()
		require.Len(t, suspects, 1)
		require.Equal(t, "a0", suspects[0].ID)
		require.NoError(t, w.fanout.Check(t.Context()))

		w.trouble("a0", fine)
		time.Sleep(probeTimeout + probeEvery)
		w.exact(began)
		time.Sleep(time.Second)
		require.Empty(t, w.fanout.Suspects(), "a probe found it back")
		calls := w.member("a0").calls
		w.exact(began)
		require.Equal(t, calls+2, w.member("a0").calls, "its own zone is the first again")
	})
}

func TestMemberThatIsNotKnownYetCostsTheLongestHedge(t *testing.T) {
	inWorld(t, 3, 3, 1, func(t *testing.T, w *world, began int64) {
		w.trouble("a0", hangs)
		require.LessOrEqual(t, w.exact(began), maxHedge+10*time.Millisecond)
	})
}

func TestRefusedConnectionCostsNothing(t *testing.T) {
	inWorld(t, 3, 3, 2, func(t *testing.T, w *world, began int64) {
		w.trouble("a1", refuses)
		require.LessOrEqual(t, w.exact(began), 10*time.Millisecond)
		require.InDelta(t, 1, testutil.ToFloat64(w.fanout.metrics.failovers), 0)
		require.Zero(t, testutil.ToFloat64(w.fanout.metrics.hedges))
	})
}

// TestMemberThatHangsAfterThePlanIsFoundOut: a Select may take long, so the member is asked something small first.
func TestMemberThatHangsAfterThePlanIsFoundOut(t *testing.T) {
	inWorld(t, 3, 3, 1, func(t *testing.T, w *world, began int64) {
		w.warm(began)
		sq, err := w.querier.Queryable().Querier(began, began+10_000)
		require.NoError(t, err)
		ctx := withTenant(t)
		_, _, err = sq.LabelNames(ctx, nil)
		require.NoError(t, err)
		w.trouble("a0", hangs)
		at := time.Now()
		_, _, err = sq.LabelNames(ctx, nil)
		require.NoError(t, err)
		require.LessOrEqual(t, time.Since(at), 2*minHedge+10*time.Millisecond)
		require.NoError(t, sq.Close())
	})
}

// TestSlowAnswerIsNoReasonToAskAnother: who answers a small question meanwhile is at work.
func TestSlowAnswerIsNoReasonToAskAnother(t *testing.T) {
	inWorld(t, 3, 3, 1, func(t *testing.T, w *world, began int64) {
		w.warm(began)
		w.trouble("a0", slow)
		require.Greater(t, w.exact(began), time.Second)
		require.Zero(t, testutil.ToFloat64(w.fanout.metrics.hedges))
		require.Empty(t, w.fanout.Suspects())
	})
}

func TestLoadIsSpreadOverTheOtherZones(t *testing.T) {
	inWorld(t, 3, 3, 1, func(t *testing.T, w *world, began int64) {
		for range 100 {
			w.exact(began)
		}
		a, b, c := w.member("a0").calls, w.member("b0").calls, w.member("c0").calls
		require.Equal(t, 200, a)
		require.InDelta(t, 100, b, 10)
		require.InDelta(t, 100, c, 10)
	})
}

func TestNoQuorumNamesWhoIsMissing(t *testing.T) {
	inWorld(t, 3, 3, 2, func(t *testing.T, w *world, began int64) {
		w.trouble("a1", refuses)
		w.trouble("c0", corrupt)
		at := time.Now()
		_, err := w.ask(began, began+10_000, false)
		require.Equal(t, errkind.Unavailable, errkind.Of(err))
		require.Equal(t, 2*time.Second, errkind.RetryAfter(err))
		require.InDelta(t, 2, time.Since(at).Seconds(), 0.2)
		for _, part := range []string{
			"too few ingesters answer: of 3 zones 2 are missing, and at most 1 may be", "zone zone-a: ingester a1 (a1:1): ingester is away",
			"zone zone-c: ingester c0 (c0:1): local block of c0 cannot be read",
		} {
			require.ErrorContains(t, err, part)
		}
		require.NotErrorIs(t, err, context.DeadlineExceeded)
	})
}

// TestAZoneThatWasNeverThereIsMissing: two zones of three copies count the third as missing, and the answer says so.
func TestAZoneThatWasNeverThereIsMissing(t *testing.T) {
	inWorld(t, 3, 2, 1, func(t *testing.T, w *world, began int64) {
		w.exact(began)
		w.trouble("b0", refuses)
		_, err := w.ask(began, began+10_000, false)
		require.ErrorContains(t, err, "of 3 zones 2 are missing, and at most 1 may be; zone zone-b: ingester b0")
		require.ErrorContains(t, err, "the ring has ingesters in 2 zones with a replication factor of 3")
	})
}

// TestACrowdedMemberIsReplaced: that one member answers as many reads as it may is no reason to refuse a query. When nobody
// else is left, the client is told to wait, and for how long.
func TestACrowdedMemberIsReplaced(t *testing.T) {
	inWorld(t, 3, 3, 1, func(t *testing.T, w *world, began int64) {
		w.warm(began)
		w.trouble("a0", crowded)
		require.Less(t, w.exact(began), minHedge)

		w.trouble("b0", crowded)
		_, err := w.ask(began, began+10_000, false)
		require.Equal(t, errkind.Limited, errkind.Of(err))
		require.Equal(t, 2*time.Second, errkind.RetryAfter(err))
		for _, id := range []string{"a0", "b0"} {
			require.ErrorContains(t, err, "ingester "+id+" ("+id+":1): 10 reads are being answered")
		}

		w.trouble("b0", refuses)
		_, err = w.ask(began, began+10_000, false)
		require.Equal(t, errkind.Unavailable, errkind.Of(err), "b0 is missing, whatever the others have to do")
	})
}

// TestQueryWaitsForMembersToComeBack: in a rolling restart two zones can be away for a moment.
func TestQueryWaitsForMembersToComeBack(t *testing.T) {
	inWorld(t, 3, 3, 1, func(t *testing.T, w *world, began int64) {
		w.trouble("a0", refuses)
		w.trouble("b0", refuses)
		go func() {
			time.Sleep(1500 * time.Millisecond)
			w.trouble("b0", fine)
		}()
		require.InDelta(t, 1.6, w.exact(began).Seconds(), 0.15)
	})
}

func TestEveryMemberHasToAnswerWithoutReplicas(t *testing.T) {
	inWorld(t, 1, 2, 2, func(t *testing.T, w *world, began int64) {
		w.exact(began)
		w.trouble("b1", refuses)
		_, err := w.ask(began, began+10_000, false)
		require.ErrorContains(t, err, "too few ingesters answer: of 2 zones 1 is missing, and none may be; zone zone-b: ingester b1")
		require.Error(t, w.fanout.Check(t.Context()))
	})
}

func TestOfFourZonesThreeAreAsked(t *testing.T) {
	inWorld(t, 3, 4, 1, func(t *testing.T, w *world, began int64) {
		w.exact(began)
		asked := 0
		for _, n := range w.nodes {
			if n.calls > 0 {
				asked++
			}
		}
		require.Equal(t, 3, asked)
	})
}

// TestZonesThatNobodyHasHeardOfAreMissing: a querier that has just started may know a part of the ring.
func TestZonesThatNobodyHasHeardOfAreMissing(t *testing.T) {
	inWorld(t, 3, 3, 1, func(t *testing.T, w *world, began int64) {
		w.gossipOf(w.nodes[:2])
		w.exact(began)
		w.gossipOf(w.nodes[:1])
		_, err := w.ask(began, began+10_000, false)
		require.ErrorContains(t, err, "the ring has ingesters in 1 zone with a replication factor of 3")
		w.gossipOf(nil)
		_, err = w.ask(began, began+10_000, false)
		require.Equal(t, errkind.Unavailable, errkind.Of(err))
	})
}

// TestLostDiskIsAMissingZone: what the disk had is in the other two.
func TestLostDiskIsAMissingZone(t *testing.T) {
	inWorld(t, 3, 3, 1, func(t *testing.T, w *world, began int64) {
		w.member("a0").loseDisk()
		w.gossip()
		calls := w.member("a0").calls
		w.exact(began)
		require.Equal(t, calls, w.member("a0").calls)
		w.trouble("b0", refuses)
		_, err := w.ask(began, began+10_000, false)
		require.ErrorContains(t, err, "zone zone-a: lost a disk with samples before")
		require.ErrorContains(t, err, "zone zone-b: ingester b0")
		_, err = w.ask(time.Now().UnixMilli()+1, time.Now().UnixMilli()+10, false)
		require.NoError(t, err, "it has all that came later")
	})
}

// TestMemberThatLeftASecondAgo: its blocks are only in the bucket, and who remains has nothing to say of them.
func TestMemberThatLeftASecondAgo(t *testing.T) {
	inWorld(t, 1, 1, 2, func(t *testing.T, w *world, began int64) {
		w.exact(began)
		w.exact(0) // of the bucket, so that the manifest is known
		w.mu.Lock()
		w.member("a0").leave()
		w.mu.Unlock()
		_, err := w.ask(began, began+10_000, false)
		require.ErrorContains(t, err, "ingester a0", "the ring says nothing yet")
		w.gossip()
		w.bucketAway = true
		_, err = w.ask(began, began+10_000, false)
		require.ErrorContains(t, err, "bucket in Hamburg")
		_, err = w.ask(began, began+10_000, false)
		require.ErrorContains(t, err, "bucket in Hamburg", "nor by a manifest of before")
		w.bucketAway = false
		w.exact(began)
	})
}
