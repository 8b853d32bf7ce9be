package seriesgen

import (
	"math"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
)

func newGenerator(t testing.TB, series int, histograms bool) *Generator {
	g, err := New(Config{Seed: 7, Series: series, Start: 1_790_000_000_000, Interval: 15 * time.Second, Histograms: histograms})
	require.NoError(t, err)
	return g
}

func TestRequestsCarryWhatIsExpected(t *testing.T) {
	g := newGenerator(t, 300, true)
	for _, scrape := range []int{0, 1, 17, 400} {
		var one prompb.WriteRequest
		require.NoError(t, one.Unmarshal(g.AppendRequest1(nil, scrape, 20, 290)))
		var two writev2.Request
		require.NoError(t, two.Unmarshal(g.AppendRequest2(nil, scrape, 20, 290)))
		require.Len(t, one.Timeseries, 270)
		require.Len(t, two.Timeseries, 270)

		b := labels.NewScratchBuilder(16)
		for i := range one.Timeseries {
			want := g.Expected(20+i, scrape)
			ts1, ts2 := one.Timeseries[i], two.Timeseries[i]
			require.Equal(t, g.Labels(20+i), ts1.ToLabels(&b, nil))
			lset2, err := ts2.ToLabels(&b, two.Symbols)
			require.NoError(t, err)
			require.Equal(t, g.Labels(20+i), lset2)

			switch {
			case want.H != nil:
				require.NoError(t, want.H.Validate())
				require.True(t, want.H.Equals(ts1.Histograms[0].ToIntHistogram()))
				require.True(t, want.H.Equals(ts2.Histograms[0].ToIntHistogram()))
				require.Equal(t, want.T, ts1.Histograms[0].Timestamp)
				require.Equal(t, want.T, ts2.Histograms[0].Timestamp)
			case want.FH != nil:
				require.NoError(t, want.FH.Validate())
				require.True(t, want.FH.Equals(ts1.Histograms[0].ToFloatHistogram()))
				require.True(t, want.FH.Equals(ts2.Histograms[0].ToFloatHistogram()))
			default:
				require.Equal(t, math.Float64bits(want.V), math.Float64bits(ts1.Samples[0].Value))
				require.Equal(t, math.Float64bits(want.V), math.Float64bits(ts2.Samples[0].Value))
				require.Equal(t, want.T, ts1.Samples[0].Timestamp)
				require.Equal(t, want.T, ts2.Samples[0].Timestamp)
			}
		}
	}
}

func TestSeriesAreDistinctAndDeterministic(t *testing.T) {
	g, again := newGenerator(t, 5000, false), newGenerator(t, 5000, false)
	seen := map[string]bool{}
	for s := range g.Series() {
		lset := g.Labels(s)
		require.False(t, seen[lset.String()], "series %d occurs twice: %s", s, lset)
		seen[lset.String()] = true
		require.Equal(t, lset, again.Labels(s))
		require.Equal(t, lset.Get("pod"), g.Pod(s))
	}
	require.Equal(t, g.AppendRequest1(nil, 3, 0, 5000), again.AppendRequest1(nil, 3, 0, 5000))
}

func TestFind(t *testing.T) {
	g := newGenerator(t, 120, true)
	names := Names()
	require.IsIncreasing(t, names)
	for s := range g.Series() {
		found, ok := g.Find(g.Labels(s))
		require.True(t, ok)
		require.Equal(t, s, found)
		require.Contains(t, names, g.Labels(s).Get(labels.MetricName))
	}
	one := g.Labels(3)
	last := newGenerator(t, 150, true).Labels(130) // of a pod that is cut short here
	for name, lset := range map[string]labels.Labels{
		"no labels":          labels.EmptyLabels(),
		"one label more":     labels.NewBuilder(one).Set("more", "1").Labels(),
		"one label less":     labels.NewBuilder(one).Del("node").Labels(),
		"another value":      labels.NewBuilder(one).Set("node", "x").Labels(),
		"another pod":        labels.NewBuilder(one).Set("pod", g.Pod(60)).Labels(),
		"a pod out of range": labels.NewBuilder(one).Set("pod", "x-00003").Labels(),
		"a negative pod":     labels.NewBuilder(one).Set("pod", "x--1").Labels(),
		"beyond the last":    last,
	} {
		_, ok := g.Find(lset)
		require.False(t, ok, name)
	}
}

// TestForgottenSeriesComeBackEqual: what was forgotten, or asked for by other spans, is made again as it was.
func TestForgottenSeriesComeBackEqual(t *testing.T) {
	g := newGenerator(t, 400, true)
	g.Prepare(70, 110)
	require.Nil(t, g.pods[0].Load())
	require.NotNil(t, g.pods[1].Load())
	require.NotNil(t, g.pods[2].Load())
	require.Nil(t, g.pods[3].Load())

	one, two, lset := g.AppendRequest1(nil, 5, 50, 250), g.AppendRequest2(nil, 5, 50, 250), g.Labels(99)
	require.NotEqual(t, two, g.AppendRequest2(nil, 5, 50, 200))
	require.Len(t, g.frames, 1, "one frame for each first series")
	g.Forget(60, 270)
	require.NotNil(t, g.pods[1].Load(), "part of it is still needed")
	require.Nil(t, g.pods[2].Load())
	require.Nil(t, g.pods[4].Load())
	g.Forget(0, 400)
	require.Empty(t, g.frames)
	require.Equal(t, lset, g.Labels(99))
	require.Equal(t, one, g.AppendRequest1(nil, 5, 50, 250))
	require.Equal(t, two, g.AppendRequest2(nil, 5, 50, 250))
}

// TestLawsOfValues holds each kind of series to its law over a thousand scrapes.
func TestLawsOfValues(t *testing.T) {
	g := newGenerator(t, 500, false)
	resets, nans, stale := 0, 0, 0
	for s := range g.Series() {
		previous, ownResets := g.Expected(s, 0), 0
		for scrape := 1; scrape < 1000; scrape++ {
			e := g.Expected(s, scrape)
			require.Equal(t, previous.T+15_000, e.T)
			switch k := catalogue[s%SeriesPerPod].kind; {
			case (k == counter || k == seconds) && e.V < previous.V:
				ownResets++
			case e.Stale():
				stale++
			case math.IsNaN(e.V):
				nans++
			}
			previous = e
		}
		require.LessOrEqual(t, ownResets, 4, "series %d", s)
		resets += ownResets
	}
	require.Positive(t, resets)
	require.Positive(t, nans)
	require.Positive(t, stale)
}

// TestShapeOfLoad keeps the load comparable between versions: label counts and bytes are what figures are quoted for.
func TestShapeOfLoad(t *testing.T) {
	g := newGenerator(t, 2000, false)
	count := 0
	for s := range 2000 {
		count += g.Labels(s).Len()
	}
	one, two := g.AppendRequest1(nil, 1, 0, 2000), g.AppendRequest2(nil, 1, 0, 2000)
	wire1, wire2 := s2.EncodeSnappy(nil, one), s2.EncodeSnappy(nil, two)
	t.Logf("labels %.1f, 1.0: %d B raw, %d B on the wire; 2.0: %d and %d B a sample",
		float64(count)/2000, len(one)/2000, len(wire1)/2000, len(two)/2000, len(wire2)/2000)
	require.InDelta(t, 12.5, float64(count)/2000, 0.5)
	require.InDelta(t, 345, len(one)/2000, 15)
	require.InDelta(t, 56, len(two)/2000, 6)
}

func BenchmarkRequest1(b *testing.B) { benchmark(b, (*Generator).AppendRequest1) }

func BenchmarkRequest2(b *testing.B) { benchmark(b, (*Generator).AppendRequest2) }

// benchmark reports the client's cost of a sample, compression included.
func benchmark(b *testing.B, encode func(*Generator, []byte, int, int, int) []byte) {
	g := newGenerator(b, 20000, false)
	var raw, wire []byte
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		from := i % 10 * 2000
		raw = encode(g, raw[:0], i/10, from, from+2000)
		wire = s2.EncodeSnappy(wire, raw)
		i++
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/2000, "ns/sample")
}
