package samplemerge

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sample is a chunks.Sample.
type sample struct {
	t, st int64
	f     float64
	h     *histogram.Histogram
	fh    *histogram.FloatHistogram
}

func (s sample) T() int64                      { return s.t }
func (s sample) ST() int64                     { return s.st }
func (s sample) F() float64                    { return s.f }
func (s sample) H() *histogram.Histogram       { return s.h }
func (s sample) FH() *histogram.FloatHistogram { return s.fh }
func (s sample) Copy() chunks.Sample           { return s }
func (s sample) hint() histogram.CounterResetHint {
	switch {
	case s.h != nil:
		return s.h.CounterResetHint
	case s.fh != nil:
		return s.fh.CounterResetHint
	}
	return histogram.UnknownCounterReset
}

func (s sample) Type() chunkenc.ValueType {
	switch {
	case s.h != nil:
		return chunkenc.ValHistogram
	case s.fh != nil:
		return chunkenc.ValFloatHistogram
	}
	return chunkenc.ValFloat
}

// key is the content of the sample as text, written without the code under test.
func (s sample) key() string {
	bits := math.Float64bits
	switch {
	case s.h != nil && value.IsStaleNaN(s.h.Sum):
		return "h stale"
	case s.fh != nil && value.IsStaleNaN(s.fh.Sum):
		return "fh stale"
	case s.h != nil:
		h := s.h.Copy().Compact(0)
		return fmt.Sprint("h ", h.CounterResetHint == histogram.GaugeType, h.Schema, bits(h.ZeroThreshold),
			h.ZeroCount, h.Count, bits(h.Sum), h.PositiveSpans, h.PositiveBuckets,
			h.NegativeSpans, h.NegativeBuckets, h.CustomValues)
	case s.fh != nil:
		h := s.fh.Copy().Compact(0)
		return fmt.Sprint("fh ", h.CounterResetHint == histogram.GaugeType, h.Schema, bits(h.ZeroThreshold),
			h.ZeroCount, h.Count, bits(h.Sum), h.PositiveSpans, h.PositiveBuckets,
			h.NegativeSpans, h.NegativeBuckets, h.CustomValues)
	}
	return fmt.Sprintf("f %016x", bits(s.f))
}

// exact is everything that a reader can see of the sample.
func (s sample) exact() string {
	h := fmt.Sprintf("%v %v", s.h, s.fh)
	if s.h != nil {
		h = fmt.Sprint(s.h.PositiveSpans, s.h.PositiveBuckets, s.h.NegativeSpans, s.h.NegativeBuckets)
	}
	if s.fh != nil {
		h = fmt.Sprint(s.fh.PositiveSpans, s.fh.PositiveBuckets, s.fh.NegativeSpans, s.fh.NegativeBuckets)
	}
	return fmt.Sprintf("%d st %d hint %d %s %s", s.t, s.st, s.hint(), s.key(), h)
}

var lset = labels.FromStrings(labels.MetricName, "m")

func series(samples []sample) storage.Series {
	list := make([]chunks.Sample, 0, len(samples))
	for _, s := range samples {
		list = append(list, s)
	}
	return storage.NewListSeries(lset, list)
}

func merged(sources [][]sample) storage.Series {
	all := make([]storage.Series, 0, len(sources))
	for _, s := range sources {
		all = append(all, series(s))
	}
	return Series(all...)
}

func at(it chunkenc.Iterator, typ chunkenc.ValueType) sample {
	s := sample{t: it.AtT(), st: it.AtST()}
	switch typ {
	case chunkenc.ValFloat:
		_, s.f = it.At()
	case chunkenc.ValHistogram:
		_, s.h = it.AtHistogram(nil)
	case chunkenc.ValFloatHistogram:
		_, s.fh = it.AtFloatHistogram(nil)
	}
	return s
}

func drain(t *testing.T, it chunkenc.Iterator) []sample {
	t.Helper()
	var out []sample
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		out = append(out, at(it, typ))
	}
	require.NoError(t, it.Err())
	require.Equal(t, chunkenc.ValNone, it.Next(), "done stays done")
	return out
}

func dump(samples []sample) string {
	var b strings.Builder
	for _, s := range samples {
		b.WriteString(s.exact() + "\n")
	}
	return b.String()
}

// pool has values that are easily mistaken for each other.
func pool() []sample {
	stretched := tsdbutil.GenerateTestHistogram(1)
	stretched.PositiveSpans = append(stretched.PositiveSpans, histogram.Span{Offset: 3, Length: 1})
	stretched.PositiveBuckets = append(stretched.PositiveBuckets, -last(stretched.PositiveBuckets)) // an empty bucket
	other := tsdbutil.GenerateTestHistogram(1)
	other.PositiveSpans[0].Offset++
	return []sample{
		{f: 1},
		{f: 1, st: 7},
		{f: 1, st: 9},
		{f: 1, st: -5},
		{f: 2},
		{f: 0},
		{f: math.Copysign(0, -1)},
		{f: math.NaN()},
		{f: math.Inf(1)},
		{f: math.Float64frombits(value.StaleNaN)},
		{f: math.Float64frombits(value.NormalNaN)},
		{h: tsdbutil.GenerateTestHistogram(1)},
		{h: stretched},
		{h: tsdbutil.GenerateTestHistogram(1), st: 4},
		{h: tsdbutil.GenerateTestHistogram(1), st: 8},
		{h: other},
		{h: tsdbutil.GenerateTestHistogramWithHint(1, histogram.NotCounterReset)},
		{h: tsdbutil.GenerateTestHistogramWithHint(1, histogram.CounterReset)},
		{h: tsdbutil.GenerateTestGaugeHistogram(1)},
		{h: tsdbutil.GenerateTestCustomBucketsHistogram(1)},
		{h: &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}},
		{h: &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN), CounterResetHint: histogram.GaugeType}},
		{fh: tsdbutil.GenerateTestFloatHistogram(1)},
		{fh: tsdbutil.GenerateTestFloatHistogram(2)},
		{fh: tsdbutil.GenerateTestFloatHistogram(2), st: -1},
		{fh: tsdbutil.GenerateTestGaugeFloatHistogram(1)},
		{fh: &histogram.FloatHistogram{Sum: math.Float64frombits(value.StaleNaN)}},
	}
}

// last returns the absolute count of the last bucket.
func last(deltas []int64) (count int64) {
	for _, d := range deltas {
		count += d
	}
	return count
}

func randomSources(r *rand.Rand) [][]sample {
	values := pool()
	few := make([]sample, 1+r.IntN(4)) // few values, so that sources agree often
	for i := range few {
		few[i] = values[r.IntN(len(values))]
	}
	sources := make([][]sample, 2+r.IntN(3))
	for i := range sources {
		for t := int64(1); t < 25; t++ {
			if r.IntN(3) > 0 {
				s := few[r.IntN(len(few))]
				s.t = t * 10
				sources[i] = append(sources[i], s)
			}
		}
	}
	return sources
}

// model merges by the definition: a map from time to votes.
func model(sources [][]sample) []sample {
	byTime := map[int64]map[int]int{} // time → source → position
	for i, src := range sources {
		for pos, s := range src {
			if byTime[s.t] == nil {
				byTime[s.t] = map[int]int{}
			}
			byTime[s.t][i] = pos
		}
	}
	var out []sample
	before := map[int]int{} // the winners of the output before: source → position
	for t := range int64(300) {
		if byTime[t] == nil {
			continue
		}
		votes := map[string]int{}
		for i, pos := range byTime[t] {
			votes[sources[i][pos].key()]++
		}
		var best *sample
		for i, pos := range byTime[t] {
			s := sources[i][pos]
			if best == nil || votes[s.key()] > votes[best.key()] || votes[s.key()] == votes[best.key()] && larger(s, *best) {
				best = &s
			}
		}
		winners, hints, gauge := map[int]int{}, map[histogram.CounterResetHint]bool{}, false
		starts := map[int64]int{} // start timestamp → votes
		for i, pos := range byTime[t] {
			s := sources[i][pos]
			if s.key() != best.key() {
				continue
			}
			winners[i] = pos
			if s.st != 0 {
				starts[s.st]++
			}
			gauge = gauge || s.hint() == histogram.GaugeType
			if prev, ok := before[i]; ok && prev == pos-1 {
				hints[s.hint()] = true
			}
			if len(layout(s)) > len(layout(*best)) {
				best = &s
			}
		}
		s := *best
		s.st = 0
		for st, n := range starts {
			if s.st == 0 || n > starts[s.st] || n == starts[s.st] && st > s.st {
				s.st = st
			}
		}
		want := histogram.UnknownCounterReset
		for h := range hints {
			if len(hints) == 1 {
				want = h
			}
		}
		if gauge {
			want = histogram.GaugeType
		}
		if s.h != nil {
			s.h = s.h.Copy()
			s.h.CounterResetHint = want
		}
		if s.fh != nil {
			s.fh = s.fh.Copy()
			s.fh.CounterResetHint = want
		}
		out = append(out, s)
		before = winners
	}
	return out
}

func layout(s sample) []histogram.Span {
	if s.h != nil {
		return s.h.PositiveSpans
	}
	if s.fh != nil {
		return s.fh.PositiveSpans
	}
	return nil
}

// larger is the published order of values, on samples.
func larger(a, b sample) bool {
	x := &source{it: storage.NewListSeriesIterator(chunks.SampleSlice{a}), typ: a.Type(), h: a.h, fh: a.fh}
	y := &source{it: storage.NewListSeriesIterator(chunks.SampleSlice{b}), typ: b.Type(), h: b.h, fh: b.fh}
	x.it.Next()
	y.it.Next()
	return x.compare(y) > 0
}

func permutations(n int) [][]int {
	if n == 0 {
		return [][]int{nil}
	}
	var out [][]int
	for _, p := range permutations(n - 1) {
		for i := range n {
			out = append(out, slices.Insert(slices.Clone(p), i, n-1))
		}
	}
	return out
}

func TestEqualsTheModelInEveryOrderOfSources(t *testing.T) {
	for seed := range uint64(50) {
		sources := randomSources(rand.New(rand.NewPCG(seed, 1)))
		want := dump(model(sources))
		for _, p := range permutations(len(sources)) {
			permuted := make([][]sample, len(sources))
			for i, j := range p {
				permuted[i] = sources[j]
			}
			require.Equal(t, want, dump(drain(t, merged(permuted).Iterator(nil))), "seed %d, order %v", seed, p)
		}
	}
}

func TestOrderOfValuesIsTotal(t *testing.T) {
	values := pool()
	for _, a := range values {
		for _, b := range values {
			require.Equal(t, a.key() == b.key(), !larger(a, b) && !larger(b, a), "%s and %s", a.key(), b.key())
			for _, c := range values {
				if larger(a, b) && larger(b, c) {
					require.True(t, larger(a, c), "%s > %s > %s", a.key(), b.key(), c.key())
				}
			}
		}
	}
}

func TestSeek(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 2))
		sources := randomSources(r)
		list := model(sources)
		it, pos := merged(sources).Iterator(nil), -1
		for range 40 {
			var typ chunkenc.ValueType
			if r.IntN(2) == 0 {
				typ = it.Next()
				pos++
			} else {
				to := int64(r.IntN(270))
				typ = it.Seek(to)
				pos = max(pos, 0)
				for pos < len(list) && list[pos].t < to {
					pos++
				}
			}
			if pos >= len(list) {
				require.Equal(t, chunkenc.ValNone, typ, "seed %d", seed)
				break
			}
			require.NotEqual(t, chunkenc.ValNone, typ, "seed %d", seed)
			got := at(it, typ)
			require.Equal(t, list[pos].t, got.t, "seed %d", seed)
			require.Equal(t, list[pos].key(), got.key(), "seed %d", seed)
		}
		require.NoError(t, it.Err())
	}
}

func TestHintBehindASeekIsUnknown(t *testing.T) {
	var a []sample
	for i := range int64(5) {
		h := tsdbutil.GenerateTestHistogramWithHint(int(i), histogram.NotCounterReset)
		a = append(a, sample{t: i, h: h})
	}
	it := merged([][]sample{a, {{t: 9, f: 1}}}).Iterator(nil)
	require.Equal(t, chunkenc.ValHistogram, it.Next())
	require.Equal(t, histogram.UnknownCounterReset, at(it, chunkenc.ValHistogram).hint())
	require.Equal(t, chunkenc.ValHistogram, it.Next())
	require.Equal(t, histogram.NotCounterReset, at(it, chunkenc.ValHistogram).hint())
	require.Equal(t, chunkenc.ValHistogram, it.Seek(3))
	require.Equal(t, histogram.UnknownCounterReset, at(it, chunkenc.ValHistogram).hint())
	require.Equal(t, histogram.NotCounterReset, a[3].h.CounterResetHint, "the source's own histogram is not changed")
	require.Equal(t, chunkenc.ValHistogram, it.Seek(3))
	require.Equal(t, chunkenc.ValHistogram, it.Next())
	require.Equal(t, histogram.NotCounterReset, at(it, chunkenc.ValHistogram).hint())
}

func TestIteratorIsReused(t *testing.T) {
	var it chunkenc.Iterator
	for seed := range uint64(50) {
		sources := randomSources(rand.New(rand.NewPCG(seed, 3)))
		it = merged(sources).Iterator(it)
		require.Equal(t, dump(model(sources)), dump(drain(t, it)), "seed %d", seed)
	}
}

func TestOneSourceIsReturnedAsItIs(t *testing.T) {
	s := series([]sample{{t: 1, f: 1}})
	require.Same(t, s, Series(s))
	require.Nil(t, Series())
	require.Equal(t, lset, Series(s, s).Labels())
}

// failing yields its samples and then an error.
type failing struct{ chunkenc.Iterator }

var errBroken = errors.New("broken chunk")

func (f failing) Err() error { return errBroken }

func TestErrorOfOneSourceEndsTheMerge(t *testing.T) {
	for _, seek := range []bool{false, true} {
		broken := &storage.SeriesEntry{Lset: lset, SampleIteratorFn: func(chunkenc.Iterator) chunkenc.Iterator {
			return failing{series([]sample{{t: 1, f: 1}, {t: 2, f: 1}}).Iterator(nil)}
		}}
		it := Series(series([]sample{{t: 1, f: 1}, {t: 5, f: 1}}), broken).Iterator(nil)
		require.Equal(t, chunkenc.ValFloat, it.Next())
		require.Equal(t, chunkenc.ValFloat, it.Next())
		if seek {
			require.Equal(t, chunkenc.ValNone, it.Seek(5), "never the rest of the others alone")
		} else {
			require.Equal(t, chunkenc.ValNone, it.Next())
		}
		require.Equal(t, chunkenc.ValNone, it.Next())
		require.Equal(t, chunkenc.ValNone, it.Seek(0))
		require.ErrorIs(t, it.Err(), errBroken)
	}
}

func floatSeries(n int, from, step int64) storage.Series {
	c := chunkenc.NewXORChunk()
	app, _ := c.Appender()
	for i := range n {
		app.Append(0, from+int64(i)*step, float64(i))
	}
	return &storage.SeriesEntry{Lset: lset, SampleIteratorFn: c.Iterator}
}

func TestFloatsCostNoAllocation(t *testing.T) {
	s := Series(floatSeries(1000, 0, 10), floatSeries(1000, 5, 10), floatSeries(1000, 0, 10))
	it := s.Iterator(nil)
	read := func() {
		it = s.Iterator(it)
		for it.Next() != chunkenc.ValNone {
			it.At()
		}
	}
	read()
	require.Zero(t, testing.AllocsPerRun(10, read))
}

func BenchmarkSeries(b *testing.B) {
	const n = 1000
	for name, s := range map[string]storage.Series{
		"equal":       Series(floatSeries(n, 0, 10), floatSeries(n, 0, 10)),
		"interleaved": Series(floatSeries(n, 0, 10), floatSeries(n, 5, 10)),
		"behind":      Series(floatSeries(n, 0, 10), floatSeries(n, n*10, 10)),
		"chained":     storage.ChainedSeriesMerge(floatSeries(n, 0, 10), floatSeries(n, n*10, 10)), // Prometheus' own
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var it chunkenc.Iterator
			for b.Loop() {
				it = s.Iterator(it)
				for it.Next() != chunkenc.ValNone {
					it.At()
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(2*n), "ns/input-sample")
		})
	}
}
