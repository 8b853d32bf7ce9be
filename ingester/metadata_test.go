package ingester

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
)

// tell pushes metadata, given as family, help, family, help and so on.
func (f *fixture) tell(familyHelp ...string) {
	f.t.Helper()
	b := &batch{}
	for i := 0; i < len(familyHelp); i += 2 {
		b.Metadata = append(b.Metadata, duramenpb.Metadata{Family: familyHelp[i], Type: "counter", Help: familyHelp[i+1]})
	}
	f.push(b)
}

// told returns the metadata of the tenant "a" as "family help".
func (f *fixture) told(family string) []string {
	f.t.Helper()
	found, err := f.Metadata(context.Background(), "a", family)
	require.NoError(f.t, err)
	var out []string
	for _, m := range found {
		out = append(out, m.Family+" "+m.Help)
	}
	return out
}

// TestMetadata: all that is told of a family is there, the latest first, until nobody repeats it.
func TestMetadata(t *testing.T) {
	f := newFixture(t)
	f.tell("y", "one", "x", "one")
	f.tell("x", "two")
	require.Equal(t, []string{"x two", "x one", "y one"}, f.told(""))
	f.tell("x", "one")
	require.Equal(t, []string{"x one", "x two"}, f.told("x"))
	require.Empty(t, f.told("z"))

	f.clock.advance(descriptionLife)
	f.tell("x", "two", "x", "three")
	f.clock.advance(time.Millisecond)
	f.tell("x", "three")
	require.Equal(t, []string{"x three", "x two", "y one"}, f.told(""), "what stands alone stays")

	for i := range 2 * descriptionsPerFamily {
		f.tell("x", fmt.Sprint(i))
	}
	require.Equal(t, []string{"x 7", "x 6", "x 5", "x 4"}, f.told("x"))
}

func TestMetadataLimit(t *testing.T) {
	f := newFixture(t)
	f.tell("x", "one")
	f.limits.change(func(l *testLimits) { l.metadata = 1 })
	f.tell("x", "two", "y", "one")
	require.Equal(t, []string{"x two", "x one"}, f.told(""))
	require.Equal(t, 1.0, testutil.ToFloat64(f.metrics.metadataFull))
}

func TestMetadataIsTheTenantsOwnAndGoesWithIt(t *testing.T) {
	f := newFixture(t)
	f.tell("x", "one")
	found, err := f.Metadata(t.Context(), "b", "")
	require.NoError(t, err)
	require.Empty(t, found)

	f.closeTenant()
	require.Empty(t, f.told(""))
	require.Equal(t, tenantClosed, f.tenants.byID["a"].currentState(), "asking opens nothing")

	f.stop()
	_, err = f.Metadata(t.Context(), "a", "")
	require.Equal(t, errkind.Unavailable, errkind.Of(err))
}

// closeTenant closes the tenant "a" as if it idled, with all that is not in a block.
func (f *fixture) closeTenant() {
	f.t.Helper()
	require.Eventually(f.t, func() bool { // not while the shipper looks at it
		t := f.tenants.byID["a"]
		return t.closeIdle(f.life(), func() bool { return true }) == nil && t.currentState() == tenantClosed
	}, 20*time.Second, time.Millisecond)
}

// TestUserStats: a tenant's own numbers, and none of one that is not known.
func TestUserStats(t *testing.T) {
	f := newFixture(t)
	f.push(new(batch).floats(named("x"), 1, ms(testStart)).floats(named("y"), 1, ms(testStart)))
	f.clock.advance(time.Minute)
	for id, want := range map[string]duramenpb.UserStats{"a": {Series: 2, SamplesPerSecond: 2. / 60}, "nobody": {}} {
		got, err := f.UserStats(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

// TestHeadStats: the numbers are those of the tenant's own head, and zero without one.
func TestHeadStats(t *testing.T) {
	f := newFixture(t)
	t0 := ms(testStart)
	b := &batch{}
	for i := range 5 {
		b.floats(benchLabels(i), 1, t0+int64(i))
	}
	f.push(b.floats(named("x"), 1, t0+7))
	got, err := f.HeadStats(t.Context(), "a", 2)
	require.NoError(t, err)
	want := f.life().db.Head().Stats("__name__", 2)
	require.Equal(t, uint64(6), got.Series)
	require.Equal(t, int64(6), got.Chunks)
	require.Equal(t, want.IndexPostingStats.NumLabelPairs, got.LabelPairs)
	require.Equal(t, []int64{t0, t0 + 7}, []int64{got.MinTime, got.MaxTime})
	for _, list := range [][]duramenpb.Count{got.SeriesByMetric, got.SeriesByPair, got.ValuesByLabel, got.BytesByLabel} {
		require.Len(t, list, 2)
	}
	require.Equal(t, duramenpb.Count{Name: "__name__", Value: 6}, got.ValuesByLabel[0])
	require.Equal(t, uint64(5), got.SeriesByPair[0].Value)

	got, err = f.HeadStats(t.Context(), "nobody", 10)
	require.NoError(t, err)
	require.Zero(t, got)
	f.closeTenant()
	got, err = f.HeadStats(t.Context(), "a", 10)
	require.NoError(t, err)
	require.Zero(t, got.Series)
	require.Zero(t, got.MinTime, "an empty head has no bounds")
	require.Zero(t, got.MaxTime)
}
