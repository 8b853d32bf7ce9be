package duramenpb

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/stretchr/testify/require"
)

// encode writes b as one section behind prefix.
func encode(e *SectionEncoder, prefix []byte, tenant string, b *Batch) []byte {
	e.Begin(prefix, tenant, b.Incarnation)
	f, h, x := 0, 0, 0
	for _, s := range b.Series {
		e.Series(s.Ref, s.Labels)
		for ; f < s.FloatsEnd; f++ {
			e.Float(b.Floats[f].T, b.Floats[f].ST, b.Floats[f].V)
		}
		for ; h < s.HistogramsEnd; h++ {
			e.Histogram(b.Histograms[h].T, b.Histograms[h].ST, b.Histograms[h].H, b.Histograms[h].FH)
		}
		for ; x < s.ExemplarsEnd; x++ {
			e.Exemplar(b.Exemplars[x])
		}
	}
	for _, m := range b.Metadata {
		e.Metadata(m)
	}
	return e.Finish()
}

// bitwise makes values comparable: NaNs of different bits differ, and zeros of different signs.
func bitwise(b *Batch) string {
	text := fmt.Sprintln(b.Incarnation)
	for _, s := range b.Series {
		text += fmt.Sprintln(s.Ref, s.Labels.String(), s.FloatsEnd, s.HistogramsEnd, s.ExemplarsEnd)
	}
	for _, f := range b.Floats {
		text += fmt.Sprintln(f.T, f.ST, math.Float64bits(f.V))
	}
	bits := func(list []float64) (all []uint64) {
		for _, v := range list {
			all = append(all, math.Float64bits(v))
		}
		return all
	}
	for _, s := range b.Histograms {
		text += fmt.Sprintln(s.T, s.ST)
		if h := s.H; h != nil {
			text += fmt.Sprintln("int", h.CounterResetHint, h.Schema, h.Count, h.ZeroCount, bits([]float64{h.Sum, h.ZeroThreshold}),
				h.PositiveSpans, h.NegativeSpans, h.PositiveBuckets, h.NegativeBuckets, bits(h.CustomValues))
		}
		if h := s.FH; h != nil {
			text += fmt.Sprintln("float", h.CounterResetHint, h.Schema, bits([]float64{h.Count, h.ZeroCount, h.Sum, h.ZeroThreshold}),
				h.PositiveSpans, h.NegativeSpans, bits(h.PositiveBuckets), bits(h.NegativeBuckets), bits(h.CustomValues))
		}
	}
	for _, x := range b.Exemplars {
		text += fmt.Sprintln(x.T, math.Float64bits(x.V), x.Labels.String())
	}
	return text + fmt.Sprintln(b.Metadata)
}

// oddValues are those whose forms have borders.
var oddValues = []float64{
	0, math.Copysign(0, -1), 1, -1, 0.1, -0.1, 0.001, 123.456, 0.5, -2.25, 1e9, 1 << 49, 1<<49 - 1, -(1<<49 - 1), -(1 << 49),
	1 << 53, 1 << 62, 1 << 63, 1 << 64, -(1 << 63), 1e15, 1e18, 1e300, -1e300, math.Pi, float64(float32(math.Pi)), math.MaxFloat64,
	math.SmallestNonzeroFloat64, math.Inf(1), math.Inf(-1), math.NaN(), math.Float64frombits(value.StaleNaN),
	math.Float64frombits(value.NormalNaN), math.Float64frombits(0x7ff8_dead_beef_0000), math.Float64frombits(1 << 16),
	281474976710.655, 281474976710.656, -281474976710.657,
}

func randomValue(r *rand.Rand) float64 {
	switch r.IntN(5) {
	case 0:
		return oddValues[r.IntN(len(oddValues))]
	case 1:
		return float64(r.Int64() >> r.IntN(64))
	case 2:
		return math.Float64frombits(r.Uint64())
	case 3:
		return float64(r.Int64N(1e9)) / 1000
	default:
		return r.NormFloat64()
	}
}

func randomTime(r *rand.Rand) int64 {
	switch r.IntN(20) {
	case 0:
		return math.MinInt64
	case 1:
		return math.MaxInt64
	case 2:
		return 0
	default:
		return 1_700_000_000_000 + r.Int64N(1000)
	}
}

func randomLabels(r *rand.Rand) labels.Labels {
	b := labels.NewScratchBuilder(4)
	for i := range r.IntN(5) {
		b.Add(fmt.Sprintf("name%d", i), []string{"", "v", "\xff", "é", fmt.Sprint(r.IntN(9))}[r.IntN(5)])
	}
	return b.Labels()
}

func randomHistogram(r *rand.Rand) Histogram {
	spans := func() []histogram.Span {
		list := make([]histogram.Span, r.IntN(3))
		for i := range list {
			list[i] = histogram.Span{Offset: int32(r.Uint32()), Length: r.Uint32()}
		}
		return list
	}
	floats := func() []float64 {
		list := make([]float64, r.IntN(4))
		for i := range list {
			list[i] = randomValue(r)
		}
		return list
	}
	deltas := func() []int64 {
		list := make([]int64, r.IntN(4))
		for i := range list {
			list[i] = int64(r.Uint64())
		}
		return list
	}
	s := Histogram{T: randomTime(r), ST: randomTime(r)}
	hint, schema := histogram.CounterResetHint(r.IntN(4)), []int32{histogram.CustomBucketsSchema, -4, 0, 8}[r.IntN(4)]
	if r.IntN(2) == 0 {
		s.H = &histogram.Histogram{
			CounterResetHint: hint, Schema: schema, Count: r.Uint64(), ZeroCount: r.Uint64N(2), Sum: randomValue(r),
			ZeroThreshold: randomValue(r), PositiveSpans: spans(), NegativeSpans: spans(), PositiveBuckets: deltas(),
			NegativeBuckets: deltas(), CustomValues: floats(),
		}
	} else {
		s.FH = &histogram.FloatHistogram{
			CounterResetHint: hint, Schema: schema, Count: randomValue(r), ZeroCount: randomValue(r), Sum: randomValue(r),
			ZeroThreshold: randomValue(r), PositiveSpans: spans(), NegativeSpans: spans(), PositiveBuckets: floats(),
			NegativeBuckets: floats(), CustomValues: floats(),
		}
	}
	return s
}

func randomBatch(r *rand.Rand) *Batch {
	b := &Batch{Incarnation: r.Uint64()}
	for range r.IntN(6) {
		s := Series{}
		if r.IntN(2) == 0 {
			s.Ref = max(1, r.Uint64()>>r.IntN(64))
		} else {
			s.Labels = randomLabels(r)
		}
		for range r.IntN(3) {
			b.Floats = append(b.Floats, Float{randomTime(r), []int64{0, randomTime(r)}[r.IntN(2)], randomValue(r)})
		}
		if r.IntN(3) == 0 {
			b.Histograms = append(b.Histograms, randomHistogram(r))
		}
		if r.IntN(3) == 0 {
			b.Exemplars = append(b.Exemplars, Exemplar{randomTime(r), randomValue(r), randomLabels(r)})
		}
		s.FloatsEnd, s.HistogramsEnd, s.ExemplarsEnd = len(b.Floats), len(b.Histograms), len(b.Exemplars)
		b.Series = append(b.Series, s)
	}
	for range r.IntN(3) {
		b.Metadata = append(b.Metadata, Metadata{"family", "counter", fmt.Sprint(r.IntN(3)), ""})
	}
	return b
}

// TestSectionsArriveAsTheyWereSent, one after another into the same batch, whose memory is not that of the frame.
func TestSectionsArriveAsTheyWereSent(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var e SectionEncoder
	var d SectionDecoder
	for range 2000 {
		first, second := randomBatch(r), randomBatch(r)
		one := encode(&e, []byte("before"), "tenant", first)
		require.Equal(t, "before", string(one[:6]))
		one = one[6:]
		two := encode(&e, nil, "t2", second)

		header, err := ParseSectionHeader(one)
		require.NoError(t, err)
		require.Equal(t, SectionHeader{"tenant", first.Incarnation}, header)

		got := &Batch{Incarnation: first.Incarnation}
		require.NoError(t, d.Decode(one, got))
		for i := range one {
			one[i] = 0xee
		}
		require.Equal(t, bitwise(first), bitwise(got))

		require.NoError(t, d.Decode(two, got))
		for _, s := range second.Series {
			s.FloatsEnd += len(first.Floats)
			s.HistogramsEnd += len(first.Histograms)
			s.ExemplarsEnd += len(first.Exemplars)
			first.Series = append(first.Series, s)
		}
		first.Floats = append(first.Floats, second.Floats...)
		first.Histograms = append(first.Histograms, second.Histograms...)
		first.Exemplars = append(first.Exemplars, second.Exemplars...)
		first.Metadata = append(first.Metadata, second.Metadata...)
		require.Equal(t, bitwise(first), bitwise(got))
	}
}

func TestEveryFormOfAValueIsExact(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	check := func(v float64) {
		d := newDecoder(appendFloat(nil, v))
		got := d.float()
		require.NoError(t, d.err)
		require.False(t, d.more())
		require.Equal(t, math.Float64bits(v), math.Float64bits(got), "%v", v)
	}
	for _, v := range oddValues {
		check(v)
	}
	for range 100_000 {
		check(randomValue(r))
	}
}
