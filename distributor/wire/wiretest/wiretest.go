// Package wiretest helps to test decoders of remote write: random histograms and comparison bit for bit. It serves
// tests only and decides nothing. Read packages rw1 and rw2 next, whose tests use it.
package wiretest

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/duramenpb"
)

// Histogram returns a random histogram of format 1.0 with little regard for sense. The message of 2.0 has the same
// fields and one more.
func Histogram(rnd *rand.Rand) prompb.Histogram {
	value := func() float64 { return math.Float64frombits(rnd.Uint64() * uint64(rnd.IntN(2))) }
	h := prompb.Histogram{
		Sum: value(), Schema: int32(rnd.Uint32()) >> rnd.IntN(32), ZeroThreshold: value(),
		ResetHint: prompb.Histogram_ResetHint(rnd.IntN(5)), Timestamp: int64(rnd.Uint64() >> rnd.IntN(64)),
	}
	switch rnd.IntN(4) {
	case 0:
	case 1:
		h.Count = &prompb.Histogram_CountFloat{CountFloat: value()}
	default:
		h.Count = &prompb.Histogram_CountInt{CountInt: rnd.Uint64() >> rnd.IntN(64)}
	}
	switch rnd.IntN(4) {
	case 0:
	case 1:
		h.ZeroCount = &prompb.Histogram_ZeroCountFloat{ZeroCountFloat: value()}
	default:
		h.ZeroCount = &prompb.Histogram_ZeroCountInt{ZeroCountInt: rnd.Uint64() >> rnd.IntN(64)}
	}
	for range rnd.IntN(3) {
		h.NegativeSpans = append(h.NegativeSpans, prompb.BucketSpan{
			Offset: int32(rnd.Uint32()),
			Length: rnd.Uint32() >> rnd.IntN(32),
		})
		h.PositiveDeltas = append(h.PositiveDeltas, int64(rnd.Uint64())>>rnd.IntN(64))
		h.PositiveCounts = append(h.PositiveCounts, value())
	}
	for range rnd.IntN(3) {
		h.PositiveSpans = append(h.PositiveSpans, prompb.BucketSpan{
			Offset: int32(rnd.Uint32()) >> rnd.IntN(32),
			Length: 1,
		})
		h.NegativeDeltas = append(h.NegativeDeltas, int64(rnd.Uint64())>>rnd.IntN(64))
		h.NegativeCounts = append(h.NegativeCounts, value())
		h.CustomValues = append(h.CustomValues, value())
	}
	return h
}

// EqualFloats requires equal bits.
func EqualFloats(t *testing.T, want, got duramenpb.Float) {
	t.Helper()
	require.Equal(t, want.T, got.T)
	require.Equal(t, want.ST, got.ST)
	require.Equal(t, math.Float64bits(want.V), math.Float64bits(got.V))
}

// EqualHistograms requires equal bits; an empty list equals none.
func EqualHistograms(t *testing.T, want, got duramenpb.Histogram) {
	t.Helper()
	require.Equal(t, want.T, got.T)
	require.Equal(t, want.ST, got.ST)
	require.Equal(t, want.H == nil, got.H == nil)
	require.Equal(t, want.FH == nil, got.FH == nil)
	bits := func(fs ...float64) (out []uint64) {
		for _, f := range fs {
			out = append(out, math.Float64bits(f))
		}
		return out
	}
	equal := func(a, b any) { t.Helper(); require.Equal(t, a, b) }
	spans := func(s []histogram.Span) []histogram.Span { return append([]histogram.Span{}, s...) }
	if w, g := want.H, got.H; w != nil {
		equal(w.CounterResetHint, g.CounterResetHint)
		equal([]any{w.Schema, w.Count, w.ZeroCount}, []any{g.Schema, g.Count, g.ZeroCount})
		equal(bits(w.Sum, w.ZeroThreshold), bits(g.Sum, g.ZeroThreshold))
		equal(spans(w.PositiveSpans), spans(g.PositiveSpans))
		equal(spans(w.NegativeSpans), spans(g.NegativeSpans))
		equal(append([]int64{}, w.PositiveBuckets...), append([]int64{}, g.PositiveBuckets...))
		equal(append([]int64{}, w.NegativeBuckets...), append([]int64{}, g.NegativeBuckets...))
		equal(bits(w.CustomValues...), bits(g.CustomValues...))
		equal(w.CustomValues == nil, g.CustomValues == nil)
	}
	if w, g := want.FH, got.FH; w != nil {
		equal(w.CounterResetHint, g.CounterResetHint)
		equal(w.Schema, g.Schema)
		equal(bits(w.Sum, w.ZeroThreshold, w.Count, w.ZeroCount), bits(g.Sum, g.ZeroThreshold, g.Count, g.ZeroCount))
		equal(spans(w.PositiveSpans), spans(g.PositiveSpans))
		equal(spans(w.NegativeSpans), spans(g.NegativeSpans))
		equal(bits(w.PositiveBuckets...), bits(g.PositiveBuckets...))
		equal(bits(w.NegativeBuckets...), bits(g.NegativeBuckets...))
		equal(bits(w.CustomValues...), bits(g.CustomValues...))
		equal(w.CustomValues == nil, g.CustomValues == nil)
	}
}
