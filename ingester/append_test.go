package ingester

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/duramenpb"
)

func floatsOf(v float64, ts ...int64) []sample {
	var out []sample
	for _, t := range ts {
		out = append(out, sample{t: t, v: v})
	}
	return out
}

func TestPushAndRead(t *testing.T) {
	f := newFixture(t)
	t0 := ms(testStart)
	r := f.push(new(batch).floats(named("x"), 1, t0, t0+1000).floats(named("y"), 2, t0))
	require.Equal(t, 3, r.Floats)
	require.Empty(t, r.Refused)
	require.NotZero(t, r.Incarnation)
	require.NotZero(t, r.Refs[0])

	b := new(batch).byRef(r.Refs[0], 1, t0+2000)
	b.Incarnation = r.Incarnation
	r2 := f.push(b)
	require.Equal(t, 1, r2.Floats)
	require.Equal(t, r.Refs[0], r2.Refs[0])
	require.Equal(t, map[string][]sample{
		`{__name__="x"}`: floatsOf(1, t0, t0+1000, t0+2000), `{__name__="y"}`: floatsOf(2, t0),
	}, f.read())

	f.restart()
	require.Len(t, f.read(), 2)
	require.Equal(t, []int{0}, f.push(b).Stale, "another incarnation's references are unknown")
}

func TestUnknownReferenceIsStaleAsAWhole(t *testing.T) {
	f := newFixture(t)
	t0 := ms(testStart)
	r := f.push(new(batch).floats(named("x"), 1, t0))
	b := new(batch).byRef(r.Refs[0]+100, 2, t0, t0+1).floats(named("x"), 1, t0+1).byRef(r.Refs[0], 1, t0+2)
	b.Incarnation = r.Incarnation
	r = f.push(b)
	require.Equal(t, []int{0}, r.Stale)
	require.Equal(t, 2, r.Floats)
	require.Equal(t, map[string][]sample{`{__name__="x"}`: floatsOf(1, t0, t0+1, t0+2)}, f.read())
}

func TestRepeatedSeriesInOneBatch(t *testing.T) {
	f := newFixture(t)
	t0 := ms(testStart)
	// Neither the second of two descending samples nor one of two values at one time may vanish between Append and Commit.
	r := f.push(new(batch).floats(named("x"), 1, t0+1000).floats(named("x"), 1, t0).floats(named("x"), 5, t0+1000).
		floats(named("x"), 1, t0+1000, t0+2000, t0+1500))
	require.Equal(t, 5, r.Floats)
	require.Equal(t, []duramenpb.Refusal{{
		Series: 2, Reason: duramenpb.ReasonDuplicate, Floats: 1, Timestamp: t0 + 1000, Detail: detailOther,
		Samples: []int32{2},
	}}, r.Refused)
	require.Equal(t, map[string][]sample{`{__name__="x"}`: floatsOf(1, t0, t0+1000, t0+1500, t0+2000)}, f.read())
}

func TestEqualSamplesHeldAreASuccess(t *testing.T) {
	f := newFixture(t)
	t0 := ms(testStart)
	b := new(batch)
	for i := range int64(20) {
		b.floats(named("x"), float64(i), t0+i*60_000)
	}
	require.Equal(t, 20, f.push(b).Floats)
	again := func(when string) {
		r := f.push(b)
		require.Equal(t, 20, r.Floats, when)
		require.Empty(t, r.Refused, when)
		require.Len(t, f.read()[`{__name__="x"}`], 20, when)
	}
	again("in the head")
	f.clock.advance(time.Hour)
	_, err := f.Flush(t.Context(), "a", false)
	require.NoError(t, err)
	again("in a block")
	other := new(batch).floats(named("x"), 77, t0+60_000)
	require.Equal(t, duramenpb.ReasonDuplicate, f.push(other).Refused[0].Reason)
	f.restart()
	again("after a restart")
}

func TestTooOldNamesWindowAndNewest(t *testing.T) {
	f := newFixture(t)
	t0 := ms(testStart)
	f.push(new(batch).floats(named("x"), 1, t0))
	old := t0 - (4 * time.Hour).Milliseconds()
	r := f.push(new(batch).floats(named("x"), 1, old, old+1).floats(named("new"), 1, old))
	require.Zero(t, r.Floats)
	require.Len(t, r.Refused, 2)
	require.Equal(t, duramenpb.ReasonTooOld, r.Refused[0].Reason)
	require.Equal(t, 2, r.Refused[0].Floats)
	require.Equal(t, old, r.Refused[0].Timestamp)
	require.Contains(t, r.Refused[0].Detail, "4h0m0s older")
	require.Contains(t, r.Refused[0].Detail, "window is 3h0m0s")
}

func TestInvalidHistogramIsRefusedAlone(t *testing.T) {
	f := newFixture(t)
	t0 := ms(testStart)
	bad := testHistogram(1, 0)
	bad.Count = 1
	b := &batch{}
	b.Histograms = append(b.Histograms, duramenpb.Histogram{T: t0, H: testHistogram(1, 0)},
		duramenpb.Histogram{T: t0 + 1, H: bad}, duramenpb.Histogram{T: t0 + 2, FH: testHistogram(1, 0).ToFloat(nil)})
	b.end(duramenpb.Series{Labels: named("x")})
	r := f.push(b)
	require.Equal(t, 2, r.Histograms)
	require.Len(t, r.Refused, 1)
	require.Equal(t, duramenpb.ReasonInvalidHistogram, r.Refused[0].Reason)
	require.Equal(t, 1, r.Refused[0].Histograms)
	require.Equal(t, t0+1, r.Refused[0].Timestamp)
	require.Equal(t, []int32{^1}, r.Refused[0].Samples)
}

func TestEqualHistogramsAreFoundInAChunkThatGrew(t *testing.T) {
	f := newFixture(t)
	t0 := ms(testStart)
	b := &batch{}
	for i := range 3 { // each has other buckets, so stock adds empty ones to the first
		b.Histograms = append(b.Histograms, duramenpb.Histogram{T: t0 + int64(i), H: testHistogram(1, i)})
	}
	b.end(duramenpb.Series{Labels: named("x")})
	require.Equal(t, 3, f.push(b).Histograms)
	r := f.push(b)
	require.Equal(t, 3, r.Histograms)
	require.Empty(t, r.Refused)
}

func TestSeriesLimit(t *testing.T) {
	f := newFixture(t)
	t0 := ms(testStart)
	f.push(new(batch).floats(named("a"), 1, t0).floats(named("b"), 1, t0))
	f.limits.change(func(l *testLimits) { l.series = 2 })
	r := f.push(new(batch).floats(named("c"), 1, t0, t0+1).floats(named("a"), 1, t0+1))
	require.Equal(t, 1, r.Floats)
	require.Equal(t, []duramenpb.Refusal{{
		Series: 0, Reason: duramenpb.ReasonSeriesLimit, Floats: 2, Timestamp: t0, Samples: []int32{0, 1},
		Detail: "series limit is 2, tenant has 2 series in memory",
	}}, r.Refused)
	require.Zero(t, r.Refs[0])
	f.limits.change(func(l *testLimits) { l.series = 1 })
	f.restart()
	require.Len(t, f.read(), 2, "a lower limit takes nothing away")
}
