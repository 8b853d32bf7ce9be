package blockgen

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
)

// Random is a small set of blocks of one tenant as unlike one another as blocks can be: of floats, native histograms of
// all kinds and series that change between them; with stale markers, chunks of one sample, series without a name, labels
// that sort before the name, labels that few series have; overlapping as replicas and out-of-order blocks do, with equal
// and with differing samples.
type Random struct {
	Blocks []*Block
	// Series are those of each block.
	Series [][]Series
	// Labels are the label sets that occur, in order.
	Labels []labels.Labels
	// MinTime and MaxTime bound the blocks, half-open.
	MinTime, MaxTime int64
}

// randomStep is about the time between two samples of a random series in milliseconds.
const randomStep = 50

// NewRandom makes a set of blocks with their sidecars. What it is depends on r alone.
func NewRandom(r *rand.Rand) (*Random, error) {
	s := &Random{}
	base := []int64{0, 1000, -3000, 1_700_000_000_000}[r.IntN(4)]
	many := r.IntN(25) == 0
	n := 1 + r.IntN(30)
	if many { // more than a page holds
		n = 400 + r.IntN(900)
	}
	all := randomUniverse(r, n)
	for _, x := range all {
		s.Labels = append(s.Labels, x.lset)
	}
	s.MinTime, s.MaxTime = base, base
	var ranges [][2]int64
	for i := range 1 + r.IntN(5) {
		from, length := base+int64(r.IntN(8))*1000, int64(1+r.IntN(4))*1000
		if many {
			length = 2 * randomStep
		}
		o := Options{
			ULID: ULID(1000+r.Int64N(1e12), r.Uint64()), Sidecar: true, Level: 1 + r.IntN(3),
			SegmentBytes: []int64{0, 0, 3000, 9000}[r.IntN(4)],
		}
		step, late := int64(randomStep), int64(0)
		switch {
		case i > 0 && r.IntN(3) == 0: // a replica
			other := ranges[r.IntN(len(ranges))]
			from, length = other[0], other[1]-other[0]
		case r.IntN(5) == 0:
			o.OutOfOrder, step, late = true, 3*randomStep, int64(r.IntN(2))
		}
		o.MinTime, o.MaxTime = from, from+length
		ranges = append(ranges, [2]int64{o.MinTime, o.MaxTime})
		series := randomBlock(r, all, o.MinTime, o.MaxTime, step, late)
		b, err := Build(o, series)
		if err != nil {
			return nil, err
		}
		s.Blocks, s.Series = append(s.Blocks, b), append(s.Series, series)
		s.MinTime, s.MaxTime = min(s.MinTime, o.MinTime), max(s.MaxTime, o.MaxTime)
	}
	return s, nil
}

// randomSeries is a series of all blocks of a set.
type randomSeries struct {
	lset labels.Labels
	id   int64
	kind int
}

// The kinds of series.
const (
	kindFloat = iota
	kindHistogram
	kindFloatHistogram
	kindGaugeHistogram
	kindCustomBuckets
	kindMixed
	numKinds
)

func randomUniverse(r *rand.Rand, n int) []randomSeries {
	metrics := 1 + r.IntN(8)
	if r.IntN(8) == 0 {
		metrics = n // hardly a metric has two series
	}
	style := r.IntN(5)
	out := make([]randomSeries, 0, n)
	for i := range n {
		out = append(out, randomSeries{randomLabels(r, i, metrics, style), int64(i), min(r.IntN(numKinds+3), numKinds+2) % numKinds})
	}
	slices.SortFunc(out, func(a, b randomSeries) int { return labels.Compare(a.lset, b.lset) })
	return slices.CompactFunc(out, func(a, b randomSeries) bool { return labels.Equal(a.lset, b.lset) })
}

func randomLabels(r *rand.Rand, i, metrics, style int) labels.Labels {
	b := labels.NewScratchBuilder(8)
	if style != 1 || r.IntN(3) > 0 {
		name := fmt.Sprintf("m%d", r.IntN(metrics))
		if r.IntN(2) == 0 {
			name = fmt.Sprintf("m%d_total", r.IntN(metrics))
		}
		b.Add(labels.MetricName, name)
	}
	if style == 2 { // sorts before the name, so that metrics alternate in label order
		b.Add("Zone", string(rune('A'+r.IntN(3))))
	}
	if style == 3 && r.IntN(2) == 0 {
		b.Add("größe", []string{"klein", "groß", "日本", "a\nb", `"`}[r.IntN(5)])
	}
	b.Add("i", fmt.Sprint(i))
	if r.IntN(3) > 0 {
		b.Add("mod", fmt.Sprint(i%3))
	}
	if r.IntN(2) == 0 {
		b.Add("pod", fmt.Sprintf("pod-%d", r.IntN(30)))
	}
	if r.IntN(40) == 0 {
		b.Add(fmt.Sprintf("rare%d", r.IntN(3)), "x")
	}
	if style == 4 && r.IntN(4) == 0 {
		b.Add("url", "/"+strings.Repeat("long/", r.IntN(80)))
	}
	b.Add("z", "1")
	b.Sort()
	return b.Labels()
}

func randomBlock(r *rand.Rand, all []randomSeries, mint, maxt, step, late int64) []Series {
	absent, gap, other := r.IntN(3), 2+r.IntN(20), 5+r.IntN(40)
	return someBlock(r, all, mint, maxt, step, late, absent, gap, other)
}

func someBlock(r *rand.Rand, all []randomSeries, mint, maxt, step, late int64, absent, gap, other int) []Series {
	var out []Series
	for _, x := range all {
		if absent > 0 && r.IntN(4) < absent {
			continue
		}
		if cs := x.chunks(r, x.samples(r, mint, maxt, step, late, gap, other)); len(cs) > 0 {
			out = append(out, Series{x.lset, cs})
		}
	}
	return out
}

// samples returns the samples in [mint, maxt), one of gap missing, one of other with a value of its own.
func (x randomSeries) samples(r *rand.Rand, mint, maxt, step, late int64, gap, other int) []chunks.Sample {
	var out []chunks.Sample
	from, to := mint, maxt
	if r.IntN(6) == 0 {
		from += r.Int64N(maxt - mint)
	}
	for t := from - mod(from, step) + x.id%step + late; t < to; t += step {
		if t < from || r.IntN(gap) == 0 {
			continue
		}
		n := mod(t/step+x.id, 1000)
		if r.IntN(other) == 0 {
			n += r.Int64N(3)
		}
		out = append(out, x.sample(t, n, mix(uint64(t), uint64(x.id), 7)))
	}
	return out
}

// mod is the remainder that is never negative.
func mod(a, b int64) int64 { return (a%b + b) % b }

// sample returns the sample at t; seed decides what all sources agree about.
func (x randomSeries) sample(t, n int64, seed uint64) sample {
	kind, stale := x.kind, seed%23 == 0
	if kind == kindMixed {
		kind = int(mix(uint64(t/1000), uint64(x.id), 1) % (kindCustomBuckets + 1))
	}
	s := sample{t: t}
	switch kind {
	case kindHistogram:
		s.h = tsdbutil.GenerateTestHistogram(n)
	case kindFloatHistogram:
		s.fh = tsdbutil.GenerateTestFloatHistogram(n)
	case kindGaugeHistogram:
		s.h = tsdbutil.GenerateTestGaugeHistogram(n % 40)
	case kindCustomBuckets:
		s.h = tsdbutil.GenerateTestCustomBucketsHistogram(n)
	default:
		s.f = float64(n) / 4
		switch seed % 31 {
		case 1:
			s.f = math.NaN()
		case 2:
			s.f = math.Inf(-1)
		case 3:
			s.f = math.Copysign(0, -1)
		}
	}
	switch {
	case !stale:
	case s.h != nil:
		s.h = &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}
	case s.fh != nil:
		s.fh = &histogram.FloatHistogram{Sum: math.Float64frombits(value.StaleNaN)}
	default:
		s.f = math.Float64frombits(value.StaleNaN)
	}
	return s
}

// chunks cuts samples into chunks of random sizes.
func (x randomSeries) chunks(r *rand.Rand, samples []chunks.Sample) (out []Chunk) {
	most := []int{1, 5, 30, 120}[r.IntN(4)]
	for len(samples) > 0 {
		n := min(1+r.IntN(most), len(samples))
		it := storage.NewSeriesToChunkEncoder(storage.NewListSeries(x.lset, samples[:n])).Iterator(nil)
		for it.Next() {
			m := it.At()
			out = append(out, Chunk{
				m.MinTime, m.MaxTime, m.Chunk.Encoding(), slices.Clone(m.Chunk.Bytes()), m.Chunk.NumSamples(),
			})
		}
		samples = samples[n:]
	}
	return out
}

// sample is a chunks.Sample.
type sample struct {
	t  int64
	f  float64
	h  *histogram.Histogram
	fh *histogram.FloatHistogram
}

func (s sample) T() int64                      { return s.t }
func (sample) ST() int64                       { return 0 }
func (s sample) F() float64                    { return s.f }
func (s sample) H() *histogram.Histogram       { return s.h }
func (s sample) FH() *histogram.FloatHistogram { return s.fh }
func (s sample) Copy() chunks.Sample           { return s }

func (s sample) Type() chunkenc.ValueType {
	switch {
	case s.h != nil:
		return chunkenc.ValHistogram
	case s.fh != nil:
		return chunkenc.ValFloatHistogram
	default:
		return chunkenc.ValFloat
	}
}
