package samplemerge

import (
	"cmp"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
)

// compareFloats orders floats by their bits, so that each NaN is a value of its own.
func compareFloats(a, b float64) int { return cmp.Compare(math.Float64bits(a), math.Float64bits(b)) }

// compareHistograms orders histograms by their content: gauge or counter, schema, zero bucket, count, sum, custom
// bounds, then the buckets that are not empty. Empty buckets and the cutting into spans are no content, because a chunk
// adds empty buckets to a sample when its neighbours have them; neither is the counter reset hint, which speaks of the
// neighbours too. Of a stale marker only the sum counts, for nothing else of it is stored.
func compareHistograms(a, b *histogram.Histogram) int {
	if c, done := compareStale(a.Sum, b.Sum); done {
		return c
	}
	return cmp.Or(
		compareGauge(a.CounterResetHint, b.CounterResetHint),
		cmp.Compare(a.Schema, b.Schema),
		compareFloats(a.ZeroThreshold, b.ZeroThreshold),
		cmp.Compare(a.ZeroCount, b.ZeroCount),
		cmp.Compare(a.Count, b.Count),
		compareFloats(a.Sum, b.Sum),
		slices.CompareFunc(a.CustomValues, b.CustomValues, compareFloats),
		compareBuckets(
			buckets{spans: a.PositiveSpans, deltas: a.PositiveBuckets},
			buckets{spans: b.PositiveSpans, deltas: b.PositiveBuckets}),
		compareBuckets(
			buckets{spans: a.NegativeSpans, deltas: a.NegativeBuckets},
			buckets{spans: b.NegativeSpans, deltas: b.NegativeBuckets}),
	)
}

// compareFloatHistograms is compareHistograms for float histograms; their counts are compared by their bits.
func compareFloatHistograms(a, b *histogram.FloatHistogram) int {
	if c, done := compareStale(a.Sum, b.Sum); done {
		return c
	}
	return cmp.Or(
		compareGauge(a.CounterResetHint, b.CounterResetHint),
		cmp.Compare(a.Schema, b.Schema),
		compareFloats(a.ZeroThreshold, b.ZeroThreshold),
		compareFloats(a.ZeroCount, b.ZeroCount),
		compareFloats(a.Count, b.Count),
		compareFloats(a.Sum, b.Sum),
		slices.CompareFunc(a.CustomValues, b.CustomValues, compareFloats),
		compareBuckets(
			buckets{spans: a.PositiveSpans, counts: a.PositiveBuckets},
			buckets{spans: b.PositiveSpans, counts: b.PositiveBuckets}),
		compareBuckets(
			buckets{spans: a.NegativeSpans, counts: a.NegativeBuckets},
			buckets{spans: b.NegativeSpans, counts: b.NegativeBuckets}),
	)
}

// compareStale decides when one of the sums is the stale marker: a marker is larger than what is none.
func compareStale(a, b float64) (c int, done bool) {
	staleA, staleB := value.IsStaleNaN(a), value.IsStaleNaN(b)
	switch {
	case staleA == staleB:
		return 0, staleA
	case staleA:
		return 1, true
	default:
		return -1, true
	}
}

// compareGauge orders counters before gauges.
func compareGauge(a, b histogram.CounterResetHint) int {
	gaugeA, gaugeB := a == histogram.GaugeType, b == histogram.GaugeType
	switch {
	case gaugeA == gaugeB:
		return 0
	case gaugeA:
		return 1
	default:
		return -1
	}
}

// compareLayouts orders histograms of equal content by their spans.
func compareLayouts(posA, posB, negA, negB []histogram.Span) int {
	return cmp.Or(slices.CompareFunc(posA, posB, compareSpans), slices.CompareFunc(negA, negB, compareSpans))
}

func compareSpans(a, b histogram.Span) int {
	return cmp.Or(cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Length, b.Length))
}

// buckets walks one side of a histogram bucket by bucket, integer ones by their deltas, float ones by their counts.
type buckets struct {
	spans  []histogram.Span
	deltas []int64
	counts []float64

	index int64  // of the bucket that comes next
	left  uint32 // in the current span
	pos   int    // in deltas or counts
	count int64  // sum of the deltas so far
}

// next returns the next bucket that is not empty: its index and the bits of its count.
func (b *buckets) next() (index int64, bits uint64, ok bool) {
	for {
		for b.left == 0 {
			if len(b.spans) == 0 {
				return 0, 0, false
			}
			b.index += int64(b.spans[0].Offset)
			b.left = b.spans[0].Length
			b.spans = b.spans[1:]
		}
		if b.pos >= max(len(b.deltas), len(b.counts)) {
			return 0, 0, false // Spans that promise more than there is: an invalid histogram.
		}
		if b.deltas != nil {
			b.count += b.deltas[b.pos]
			bits = uint64(b.count)
		} else if count := b.counts[b.pos]; count != 0 {
			bits = math.Float64bits(count)
		} else {
			bits = 0 // An empty bucket, also when it is -0.
		}
		index = b.index
		b.index++
		b.left--
		b.pos++
		if bits != 0 {
			return index, bits, true
		}
	}
}

// compareBuckets orders two sides by their first different bucket that is not empty.
func compareBuckets(a, b buckets) int {
	for {
		indexA, bitsA, okA := a.next()
		indexB, bitsB, okB := b.next()
		switch {
		case !okA && !okB:
			return 0
		case !okA:
			return -1
		case !okB:
			return 1
		}
		if c := cmp.Or(cmp.Compare(indexA, indexB), cmp.Compare(bitsA, bitsB)); c != 0 {
			return c
		}
	}
}
