package reconcile

import (
	"flag"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/service"
)

func TestServicePassesOverAndOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.r.cfg.ReconcileInterval = 10 * time.Minute
		for _, tenantID := range []string{"a", "b", "c", "d", "e", testTenant} {
			f.put(spec{n: 0, tenant: tenantID})
		}
		require.False(t, compared(t, f))
		s, before := f.r.Service(), len(f.bkt.Ops())
		require.NoError(t, s.Start(t.Context()), "ready before the first pass")
		require.Len(t, f.bkt.Ops(), before)
		time.Sleep(2 * firstPass)
		synctest.Wait()
		m := newest(t, f.bkt, f.clock)
		require.Len(t, m.Blocks, 1, "the first pass comes soon")
		require.True(t, compared(t, f), "what is left out from now on is left out on purpose")
		require.EqualValues(t, 6, testutil.ToFloat64(f.r.metrics.passes.WithLabelValues(passDone)))
		require.EqualValues(t, start.Unix(), testutil.ToFloat64(f.r.metrics.lastPass))
		f.put(spec{n: 1})
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		require.Len(t, newest(t, f.bkt, f.clock).Blocks, 2)
		passes := testutil.ToFloat64(f.r.metrics.passes.WithLabelValues(passDone))
		require.GreaterOrEqual(t, passes, 12.0)
		require.LessOrEqual(t, passes, 30.0)
		require.NoError(t, s.Stop())
		require.Equal(t, service.Terminated, s.State())
	})
}

// compared reports whether the owner takes the test's tenant for compared: it asks the bucket nothing about it.
func compared(t *testing.T, f *fixture) bool {
	t.Helper()
	before := len(f.bkt.Ops())
	_, err := f.r.owner.Unlisted(t.Context(), testTenant)
	require.NoError(t, err)
	return len(f.bkt.Ops()) == before
}

func TestServiceThatIsOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.r.cfg.ReconcileInterval = 0
		s := f.r.Service()
		require.NoError(t, s.Start(t.Context()))
		time.Sleep(24 * time.Hour)
		require.Empty(t, f.bkt.Ops())
		require.NoError(t, s.Stop())
	})
}

// TestOneTenantsTroubleIsItsOwn: a manifest that cannot be read leaves everything of that tenant as it is.
func TestOneTenantsTroubleIsItsOwn(t *testing.T) {
	f := newFixture(t)
	f.add(spec{n: 0})
	f.put(spec{n: 1})
	f.put(spec{n: 0, tenant: "other"})
	put(t, f.bkt, manifest.Key(testTenant, 2), "damaged")
	before := there(t, f.bkt, testTenant)
	f.advance(100 * time.Hour)
	require.NoError(t, f.r.Pass(t.Context(), 0))
	require.EqualValues(t, 1, testutil.ToFloat64(f.r.metrics.failing))
	require.Equal(t, before, there(t, f.bkt, testTenant))
	m, err := newOwner(f.bkt, f.clock).Current(t.Context(), "other")
	require.NoError(t, err)
	require.Equal(t, ids(0), listed(m))

	require.NoError(t, f.bkt.Delete(t.Context(), manifest.Key(testTenant, 2)))
	f.requireListed(0, 1)
}

func TestABucketThatFails(t *testing.T) {
	f := newFixture(t)
	f.add(spec{n: 0})
	for _, method := range []string{"Put", "Stat", "List"} {
		f.bkt.SetPlan(faultbucket.On(method, faultbucket.Before))
		require.ErrorIs(t, f.r.Pass(t.Context(), 0), faultbucket.ErrInjected, method)
	}
	require.Zero(t, testutil.ToFloat64(f.r.metrics.lastPass))
	f.bkt.SetPlan(nil)
	f.requireListed(0)
}

// TestTheEarlierOfTwoClocksCounts: what is deleted for its age has that age by the store's clock and by ours.
func TestTheEarlierOfTwoClocksCounts(t *testing.T) {
	for name, skew := range map[string]time.Duration{"ours is ahead": time.Hour, "ours is behind": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.add(spec{n: 0}, spec{n: 1})
			_, err := f.o.Swap(t.Context(), testTenant, manifest.Change{Drop: ids(0)})
			require.NoError(t, err)
			f.pass()
			f.r.now = func() time.Time { return f.now().Add(skew) }
			f.advance(2 * time.Hour)
			if skew > 0 {
				f.advance(-time.Second)
			}
			f.pass()
			require.NotEmpty(t, f.objects(0))
			f.advance(time.Hour)
			f.pass()
			require.Empty(t, f.objects(0))
		})
	}
}

func TestGaugesForgetTenants(t *testing.T) {
	f := newFixture(t)
	f.put(spec{n: 0, tenant: "gone", writer: compactor})
	f.pass()
	require.Equal(t, 1, f.left(leftUncovered))
	require.NoError(t, f.bkt.Delete(t.Context(), there(t, f.bkt, "gone")...))
	f.add(spec{n: 0})
	f.pass()
	require.Zero(t, f.left(leftUncovered))
}

func TestConfig(t *testing.T) {
	var c Config
	c.RegisterFlags(flag.NewFlagSet("", flag.PanicOnError))
	require.NoError(t, c.Validate())
	c.ReconcileInterval, c.DeleteDelay = time.Millisecond, -time.Minute
	err := c.Validate()
	require.ErrorContains(t, err, "reconcile_interval is 1ms")
	require.ErrorContains(t, err, "delete_delay is -1m0s")
	_, err = New(c, nil, nil, nil, nil, nil)
	require.Error(t, err)
}

// TestAnothersTenantsAreLeftAlone: of several processes each compares its own, and counts nothing of the others'.
func TestAnothersTenantsAreLeftAlone(t *testing.T) {
	f := newFixture(t)
	owned := "mine"
	f.r.cfg.Owns = func(tenantID string) bool { return tenantID == owned }
	f.put(spec{n: 0, tenant: "mine", writer: compactor})
	f.put(spec{n: 0, tenant: "theirs", writer: compactor})
	f.pass()
	require.Equal(t, 1, f.left(leftUncovered))
	owned = "nobody's"
	f.pass()
	require.Zero(t, f.left(leftUncovered))
	f.r.cfg.Owns = nil
	f.pass()
	require.Equal(t, 2, f.left(leftUncovered))
}
