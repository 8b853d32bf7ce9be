package samplemerge

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// source is one input of the merge, standing at its current sample.
type source struct {
	it  chunkenc.Iterator
	t   int64
	typ chunkenc.ValueType
	// won is the number of the last output whose value this source held. An input sample continues the output without a
	// gap when the sample before it won the output before.
	won uint64
	// h and fh are the current histogram, loaded for a comparison. They may belong to the source; the scratch space,
	// which a source may fill, is ours.
	h         *histogram.Histogram
	fh        *histogram.FloatHistogram
	scratchH  *histogram.Histogram
	scratchFH *histogram.FloatHistogram
}

// milliseconds since the Unix epoch. (As an alias it also keeps vet from taking Seek for an io.Seeker's.)
type milliseconds = int64

// iterator merges its sources by time. BenchmarkSeries measures it; floats cost no allocation.
type iterator struct {
	sources []source
	// heap holds the sources that are ahead of the current sample, the earliest first.
	heap []*source
	// group holds the sources that stand at the current sample's time. The first one holds the value that won.
	group []*source

	started bool
	// output numbers the samples returned; a jump breaks the chain of counter resets.
	output uint64
	t      int64
	typ    chunkenc.ValueType
	st     int64
	// follows says that the current sample, of a single source, directly follows the one before it in that source.
	follows bool
	// hint is the counter reset hint of the current sample when several sources hold it.
	hint histogram.CounterResetHint
	err  error

	disputed Disputed
}

// reset prepares it for the given sources and reuses the iterators that it already has.
func (it *iterator) reset(sources []storage.Series) {
	if cap(it.sources) < len(sources) {
		grown := make([]source, len(sources))
		copy(grown, it.sources[:cap(it.sources)])
		it.sources = grown
	}
	it.sources = it.sources[:len(sources)]
	for i, s := range sources {
		src := &it.sources[i]
		src.it, src.t, src.typ, src.won = s.Iterator(src.it), math.MinInt64, chunkenc.ValNone, 0
	}
	it.heap, it.group = it.heap[:0], it.group[:0]
	it.started, it.output, it.typ, it.err = false, 1, chunkenc.ValNone, nil
}

// Next advances to the next distinct time.
func (it *iterator) Next() chunkenc.ValueType {
	if it.err != nil {
		return chunkenc.ValNone
	}
	if !it.started {
		it.started = true
		for i := range it.sources {
			it.push(&it.sources[i], it.sources[i].it.Next())
		}
		return it.gather()
	}
	if it.typ == chunkenc.ValNone {
		return chunkenc.ValNone
	}
	if len(it.group) == 1 {
		// The common case: one source for a while, the others far ahead or done.
		src := it.group[0]
		if typ := it.advance(src); typ != chunkenc.ValNone && (len(it.heap) == 0 || src.t < it.heap[0].t) {
			return it.single(src)
		}
	} else {
		for _, src := range it.group {
			it.advance(src)
		}
	}
	for _, src := range it.group {
		it.push(src, src.typ)
	}
	it.group = it.group[:0]
	return it.gather()
}

// Seek advances to the first sample at or after t. It stays where it is when the current sample qualifies.
func (it *iterator) Seek(t milliseconds) chunkenc.ValueType {
	if it.err != nil {
		return chunkenc.ValNone
	}
	if it.started {
		if it.typ == chunkenc.ValNone || it.t >= t {
			return it.typ
		}
	}
	it.output++ // What was returned before is not the direct predecessor of what comes.
	it.heap, it.group = it.heap[:0], it.group[:0]
	for i := range it.sources {
		src := &it.sources[i]
		typ := src.typ
		if !it.started || typ != chunkenc.ValNone && src.t < t {
			typ = src.it.Seek(t)
		}
		it.push(src, typ)
	}
	it.started = true
	return it.gather()
}

// advance moves src to its next sample behind the current time and returns its type.
func (it *iterator) advance(src *source) chunkenc.ValueType {
	for {
		src.typ = src.it.Next()
		if src.typ == chunkenc.ValNone {
			return chunkenc.ValNone
		}
		if src.t = src.it.AtT(); src.t > it.t {
			return src.typ
		}
	}
}

// push puts a source that stands at a sample of the given type into the heap. A source that is done is left out; one
// that failed fails the merge.
func (it *iterator) push(src *source, typ chunkenc.ValueType) {
	src.typ = typ
	if typ == chunkenc.ValNone {
		if err := src.it.Err(); err != nil && it.err == nil {
			it.err = err
		}
		return
	}
	src.t = src.it.AtT()
	h := append(it.heap, src)
	i := len(h) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if h[parent].t <= h[i].t {
			break
		}
		h[parent], h[i] = h[i], h[parent]
		i = parent
	}
	it.heap = h
}

// pop takes the earliest source off the heap, which is not empty.
func (it *iterator) pop() *source {
	h := it.heap
	src, last := h[0], len(h)-1
	h[0] = h[last]
	h = h[:last]
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			break
		}
		if child+1 < last && h[child+1].t < h[child].t {
			child++
		}
		if h[i].t <= h[child].t {
			break
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
	it.heap = h
	return src
}

// gather moves all sources with the earliest time from the heap to the group and decides the current sample.
func (it *iterator) gather() chunkenc.ValueType {
	if it.err != nil || len(it.heap) == 0 {
		it.typ = chunkenc.ValNone
		return chunkenc.ValNone
	}
	src := it.pop()
	it.group = append(it.group, src)
	for len(it.heap) > 0 && it.heap[0].t == src.t {
		it.group = append(it.group, it.pop())
	}
	switch {
	case len(it.group) == 1:
		return it.single(src)
	case it.unanimous():
		return it.typ
	default:
		return it.elect()
	}
}

// single makes the sample of the only source in the group the current one.
func (it *iterator) single(src *source) chunkenc.ValueType {
	it.follows = src.won == it.output
	it.output++
	src.won = it.output
	it.t, it.typ = src.t, src.typ
	return src.typ
}

// unanimous is the short way through elect for the most common overlap, equal floats: it halves the cost of a sample.
func (it *iterator) unanimous() bool {
	first := it.group[0]
	if first.typ != chunkenc.ValFloat {
		return false
	}
	_, v := first.it.At()
	st, differs := first.it.AtST(), false
	for _, src := range it.group[1:] {
		if src.typ != chunkenc.ValFloat {
			return false
		}
		if _, other := src.it.At(); math.Float64bits(other) != math.Float64bits(v) {
			return false
		}
		differs = differs || src.it.AtST() != st
	}
	it.output++
	for _, src := range it.group {
		src.won = it.output
	}
	if differs {
		st = startOf(it.group, it.output)
	}
	it.t, it.typ, it.st = first.t, chunkenc.ValFloat, st
	return true
}

// elect makes the winner among the group's values the current sample and moves a source that holds it to the front.
func (it *iterator) elect() chunkenc.ValueType {
	for _, src := range it.group {
		src.load()
	}
	best, bestVotes := it.group[0], it.votes(it.group[0])
	if bestVotes < len(it.group) {
		for _, src := range it.group[1:] {
			votes := it.votes(src)
			if votes > bestVotes || votes == bestVotes && src.compare(best) > 0 {
				best, bestVotes = src, votes
			}
		}
		if it.disputed != nil {
			if it.err = it.disputed(best.t); it.err != nil {
				it.typ = chunkenc.ValNone
				return chunkenc.ValNone
			}
		}
	}

	// Sources that hold the winning value may differ in what is not the value: layout of empty buckets, start timestamp
	// and hint. Each is chosen without regard to the order of the sources.
	it.hint = histogram.UnknownCounterReset
	front, hinted, gauge := -1, false, false
	for i, src := range it.group {
		if src.compare(best) != 0 {
			continue
		}
		if front < 0 || src.compareLayout(it.group[front]) > 0 {
			front = i
		}
		hint := src.hint()
		gauge = gauge || hint == histogram.GaugeType
		if src.won == it.output {
			if hinted && hint != it.hint {
				hint = histogram.UnknownCounterReset
			}
			it.hint, hinted = hint, true
		}
		src.won = it.output + 1
	}
	if gauge {
		it.hint = histogram.GaugeType
	}
	it.output++
	it.st = startOf(it.group, it.output)
	it.group[0], it.group[front] = it.group[front], it.group[0]
	it.t, it.typ = it.group[0].t, it.group[0].typ
	return it.typ
}

// votes counts the sources of the group that hold the value of src, itself included.
func (it *iterator) votes(src *source) int {
	n := 0
	for _, other := range it.group {
		if other == src || src.compare(other) == 0 {
			n++
		}
	}
	return n
}

// load decodes the source's current histogram into its scratch space.
func (s *source) load() {
	switch s.typ {
	case chunkenc.ValHistogram:
		if s.scratchH == nil {
			s.scratchH = &histogram.Histogram{}
		}
		_, s.h = s.it.AtHistogram(s.scratchH)
	case chunkenc.ValFloatHistogram:
		if s.scratchFH == nil {
			s.scratchFH = &histogram.FloatHistogram{}
		}
		_, s.fh = s.it.AtFloatHistogram(s.scratchFH)
	}
}

// compare orders the current values of two sources: by type, then by bits. Zero means that they are the same value.
func (s *source) compare(other *source) int {
	if s.typ != other.typ {
		return int(s.typ) - int(other.typ)
	}
	switch s.typ {
	case chunkenc.ValHistogram:
		return compareHistograms(s.h, other.h)
	case chunkenc.ValFloatHistogram:
		return compareFloatHistograms(s.fh, other.fh)
	default:
		_, a := s.it.At()
		_, b := other.it.At()
		return compareFloats(a, b)
	}
}

// compareLayout orders sources with the same value by how their buckets are laid out.
func (s *source) compareLayout(other *source) int {
	switch s.typ {
	case chunkenc.ValHistogram:
		return compareLayouts(s.h.PositiveSpans, other.h.PositiveSpans, s.h.NegativeSpans, other.h.NegativeSpans)
	case chunkenc.ValFloatHistogram:
		return compareLayouts(s.fh.PositiveSpans, other.fh.PositiveSpans, s.fh.NegativeSpans, other.fh.NegativeSpans)
	default:
		return 0
	}
}

// hint returns the counter reset hint of the loaded histogram.
func (s *source) hint() histogram.CounterResetHint {
	switch s.typ {
	case chunkenc.ValHistogram:
		return s.h.CounterResetHint
	case chunkenc.ValFloatHistogram:
		return s.fh.CounterResetHint
	default:
		return histogram.UnknownCounterReset
	}
}

// At returns the current float sample.
func (it *iterator) At() (int64, float64) { return it.group[0].it.At() }

// AtHistogram returns the current integer histogram. A counter's reset hint is kept only when the sample before it in
// the output is also the sample before it in the source: elsewhere it would speak of another sample.
func (it *iterator) AtHistogram(reuse *histogram.Histogram) (int64, *histogram.Histogram) {
	t, h := it.group[0].it.AtHistogram(reuse)
	if want := it.hintFor(h.CounterResetHint); h.CounterResetHint != want {
		if h != reuse {
			shared := h // A source may own what it returns.
			h = &histogram.Histogram{}
			*h = *shared
		}
		h.CounterResetHint = want
	}
	return t, h
}

// AtFloatHistogram is AtHistogram for float histograms; integer histograms are converted.
func (it *iterator) AtFloatHistogram(reuse *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	t, fh := it.group[0].it.AtFloatHistogram(reuse)
	if want := it.hintFor(fh.CounterResetHint); fh.CounterResetHint != want {
		if fh != reuse {
			shared := fh
			fh = &histogram.FloatHistogram{}
			*fh = *shared
		}
		fh.CounterResetHint = want
	}
	return t, fh
}

// hintFor returns the hint that the current histogram is returned with, given the one that its source has.
func (it *iterator) hintFor(own histogram.CounterResetHint) histogram.CounterResetHint {
	switch {
	case len(it.group) > 1:
		return it.hint
	case it.follows || own == histogram.GaugeType:
		return own
	default:
		return histogram.UnknownCounterReset
	}
}

// AtT returns the current time in milliseconds.
func (it *iterator) AtT() int64 { return it.t }

// AtST returns the current start timestamp, as startOf chooses it when several sources hold the sample.
func (it *iterator) AtST() int64 {
	if len(it.group) == 1 {
		return it.group[0].it.AtST()
	}
	return it.st
}

// Err returns the first error of any source. The merge ends there: the samples of the others are not returned alone.
func (it *iterator) Err() error { return it.err }
