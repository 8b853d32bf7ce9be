package reader

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

// milliseconds since the Unix epoch. (As an alias it also keeps vet from taking Seek for an io.Seeker's.)
type milliseconds = int64

// trim is which samples a query wants of chunks that only overlap its range.
type trim struct {
	mint, maxt int64 // both inclusive
	off        bool  // all samples of the chunks
}

// sampleSet shows the chunks of one block as samples.
type sampleSet struct {
	set   storage.ChunkSeriesSet
	trim  trim
	fault func(chunks.Meta, error) error // names the block in errors of decoding
}

var _ storage.SeriesSet = (*sampleSet)(nil)

func (s *sampleSet) Next() bool                        { return s.set.Next() }
func (s *sampleSet) Err() error                        { return s.set.Err() }
func (s *sampleSet) Warnings() annotations.Annotations { return s.set.Warnings() }
func (s *sampleSet) At() storage.Series                { return &sampleSeries{s.set.At(), s} }

type sampleSeries struct {
	chunks storage.ChunkSeries
	set    *sampleSet
}

func (s *sampleSeries) Labels() labels.Labels { return s.chunks.Labels() }

func (s *sampleSeries) Iterator(reuse chunkenc.Iterator) chunkenc.Iterator {
	it, ok := reuse.(*sampleIterator)
	if !ok {
		it = &sampleIterator{}
	}
	it.chunks, it.set, it.err, it.done = s.chunks.Iterator(it.chunks), s.set, nil, false
	it.current, it.typ, it.seek = nil, chunkenc.ValNone, s.set.trim.mint
	if s.set.trim.off {
		it.seek = math.MinInt64
	}
	return it
}

// sampleIterator yields the samples of a series of one block. Unlike Prometheus' own it stops for good at a chunk that
// does not decode to its end: the samples behind it alone would be a shorter answer. BenchmarkSamples measures it.
type sampleIterator struct {
	chunks  chunks.Iterator
	set     *sampleSet
	current chunkenc.Iterator // of the current chunk; nil before the first
	reuse   chunkenc.Iterator
	typ     chunkenc.ValueType
	// seek is the least time that is wanted.
	seek int64
	done bool // behind the last sample that is wanted
	err  error
}

var _ chunkenc.Iterator = (*sampleIterator)(nil)

// Next implements chunkenc.Iterator.
func (it *sampleIterator) Next() chunkenc.ValueType {
	for it.current != nil || it.nextChunk() {
		it.typ = it.current.Next()
		for it.typ != chunkenc.ValNone && it.current.AtT() < it.seek {
			it.typ = it.current.Next()
		}
		if it.typ != chunkenc.ValNone {
			return it.cut()
		}
		it.endChunk()
	}
	return chunkenc.ValNone
}

// Seek implements chunkenc.Iterator. Chunks that end before t are not decoded.
func (it *sampleIterator) Seek(t milliseconds) chunkenc.ValueType {
	it.seek = max(it.seek, t)
	if it.current != nil {
		if it.typ != chunkenc.ValNone && it.current.AtT() >= t {
			return it.typ
		}
		if it.typ = it.current.Seek(it.seek); it.typ != chunkenc.ValNone {
			return it.cut()
		}
		it.endChunk()
	}
	return it.Next()
}

// cut returns the type of the current sample, or ends the iteration when it and so all others are behind the range.
func (it *sampleIterator) cut() chunkenc.ValueType {
	if !it.set.trim.off && it.current.AtT() > it.set.trim.maxt {
		it.done = true
		it.reuse, it.current, it.typ = it.current, nil, chunkenc.ValNone
	}
	return it.typ
}

// nextChunk goes to the next chunk that can hold what is wanted.
func (it *sampleIterator) nextChunk() bool {
	it.typ = chunkenc.ValNone
	if it.done || it.err != nil {
		return false
	}
	for it.chunks.Next() {
		meta := it.chunks.At()
		if meta.MaxTime < it.seek {
			continue
		}
		it.current = guard(meta.Chunk).Iterator(it.reuse)
		return true
	}
	it.done, it.err = true, it.chunks.Err()
	return false
}

// endChunk leaves the current chunk, and notes why it ended if that was a fault.
func (it *sampleIterator) endChunk() {
	if err := it.current.Err(); err != nil {
		it.err = it.set.fault(it.chunks.At(), err)
	}
	it.reuse, it.current = it.current, nil
}

// At implements chunkenc.Iterator.
func (it *sampleIterator) At() (int64, float64) { return it.current.At() }

// AtT implements chunkenc.Iterator.
func (it *sampleIterator) AtT() int64 { return it.current.AtT() }

// AtST implements chunkenc.Iterator.
func (it *sampleIterator) AtST() int64 { return it.current.AtST() }

// AtHistogram implements chunkenc.Iterator.
func (it *sampleIterator) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	return it.current.AtHistogram(h)
}

// AtFloatHistogram implements chunkenc.Iterator.
func (it *sampleIterator) AtFloatHistogram(h *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	return it.current.AtFloatHistogram(h)
}

// Err implements chunkenc.Iterator. A fault shows when it is met, also in the middle of a chunk.
func (it *sampleIterator) Err() error {
	if it.err == nil && it.current != nil {
		if err := it.current.Err(); err != nil {
			it.err = it.set.fault(it.chunks.At(), err)
		}
	}
	return it.err
}
