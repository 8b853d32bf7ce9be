package seriesgen

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
)

// Sample is one sample: a float V, or one of the histograms.
type Sample struct {
	// T is in milliseconds since the Unix epoch.
	T  int64
	V  float64
	H  *histogram.Histogram
	FH *histogram.FloatHistogram
}

// Stale reports whether the sample is a stale marker, which queries do not return.
func (s Sample) Stale() bool {
	return s.H == nil && s.FH == nil && value.IsStaleNaN(s.V)
}

// Expected returns the sample of a series at a scrape, bit for bit as the requests carry it.
func (g *Generator) Expected(series, scrape int) Sample {
	t := g.Time(series, scrape)
	switch m := &catalogue[series%SeriesPerPod]; {
	case !g.cfg.Histograms || m.kind < hist:
		return Sample{T: t, V: g.float(series, scrape)}
	case m.kind == hist:
		return Sample{T: t, H: g.histogram(series, scrape)}
	case m.kind == customHist:
		return Sample{T: t, H: g.custom(series, scrape)}
	case m.kind == floatHist:
		return Sample{T: t, FH: g.histogram(series, scrape).ToFloat(nil)}
	default:
		return Sample{T: t, FH: g.custom(series, scrape).ToFloat(nil)}
	}
}

// float returns the value of a series that is no histogram.
func (g *Generator) float(series, scrape int) float64 {
	m := &catalogue[series%SeriesPerPod]
	id := mix(g.cfg.Seed, uint64(series))
	noise := mix(id, uint64(scrape))
	switch m.kind {
	case seconds:
		return math.Floor(1e6*m.scale*(float64(g.age(series, scrape))+fraction(noise))) / 1e6
	case gauge:
		// The level holds for a few scrapes, as most gauges do, and moves by a fifth.
		level := fraction(mix(id, uint64(scrape)/(1+id%6)))
		return math.Floor(m.scale * (0.9 + 0.2*level))
	case ratio:
		if noise%97 == 0 {
			return math.Float64frombits(value.NormalNaN)
		}
		return math.Floor(1e5*m.scale*fraction(noise)) / 1e5
	case flag:
		if noise%499 == 0 {
			return 0
		}
		return m.scale
	case flaky:
		if noise%23 == 0 {
			return math.Float64frombits(value.StaleNaN)
		}
		return math.Floor(m.scale * fraction(noise))
	default:
		return math.Floor(m.scale * (float64(g.age(series, scrape)) + fraction(noise)))
	}
}

// age returns the scrapes since the pod last began anew, at which its counters start from 0. Pods live for 300 to 811
// scrapes and do not begin together.
func (g *Generator) age(series, scrape int) int {
	h := mix(g.cfg.Seed, uint64(series/SeriesPerPod)^0xa9e)
	life := 300 + int(h%512)
	return (scrape + int(h>>32)%life) % life
}

// fraction maps a hash to [0, 1).
func fraction(h uint64) float64 { return float64(h>>11) / (1 << 53) }

// histogram returns an exponential histogram whose buckets only grow between two lives of the pod.
func (g *Generator) histogram(series, scrape int) *histogram.Histogram {
	n := int64(g.age(series, scrape)) + 1
	h := &histogram.Histogram{
		Schema: 2, ZeroThreshold: 1e-6, ZeroCount: uint64(n),
		PositiveSpans:   []histogram.Span{{Offset: 1, Length: 3}, {Offset: 2, Length: 2}},
		PositiveBuckets: []int64{n, n, -n, 3 * n, 0},
		NegativeSpans:   []histogram.Span{{Offset: 0, Length: 1}},
		NegativeBuckets: []int64{n},
	}
	h.Count = h.ZeroCount + uint64(n+2*n+n+4*n+4*n) + uint64(n)
	h.Sum = float64(n) * (1 + float64(series%7))
	return h
}

// custom returns a histogram with custom buckets, growing likewise.
func (g *Generator) custom(series, scrape int) *histogram.Histogram {
	n := int64(g.age(series, scrape)) + 1
	return &histogram.Histogram{
		Schema: histogram.CustomBucketsSchema, CustomValues: []float64{0.1, 0.5, 1, 5},
		PositiveSpans:   []histogram.Span{{Offset: 0, Length: 2}, {Offset: 1, Length: 2}},
		PositiveBuckets: []int64{n, n, 2 * n, -3 * n},
		Count:           uint64(n + 2*n + 4*n + n),
		Sum:             float64(n) * 2.5,
	}
}
