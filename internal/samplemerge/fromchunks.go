package samplemerge

import (
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// FromChunks merges the chunks of one series from distinct sources into its samples with mint ≤ t ≤ maxt, as Series merges
// samples. A chunk that all sources which overlap it hold to the byte is decoded once, and only one of them is kept in
// memory; the chunks of all sources are listed, not decoded, before it returns. It keeps what the sources' iterators return,
// so that must stay valid. BenchmarkFromChunks measures it.
func FromChunks(mint, maxt int64, sources ...storage.ChunkSeries) *ChunkSamples {
	return Disputed(nil).FromChunks(mint, maxt, sources...)
}

// FromChunks is the function of that name for one who wants to know of disputes.
func (d Disputed) FromChunks(mint, maxt int64, sources ...storage.ChunkSeries) *ChunkSamples {
	s := &ChunkSamples{lset: sources[0].Labels(), mint: mint, maxt: maxt, disputed: d}
	c := &chunkIterator{sources: make([]chunkSource, len(sources)), started: true}
	for i, src := range sources {
		c.sources[i].it = src.Iterator(nil)
		c.sources[i].advance()
	}
	for c.take() {
		run, ok := c.run(mint, maxt)
		if ok {
			s.runs = append(s.runs, run)
		}
	}
	for i := range c.sources {
		if err := c.sources[i].it.Err(); err != nil && s.err == nil {
			s.err = err
		}
	}
	return s
}

// ChunkSamples is a series whose samples lie in chunks. It is a storage.Series.
type ChunkSamples struct {
	lset       labels.Labels
	mint, maxt int64
	runs       []run // in order of time, without overlap
	err        error
	disputed   Disputed
}

// run is a chunk that overlaps no other, or what its sources come to of chunks that do.
type run struct {
	mint, maxt int64
	chunk      chunkenc.Chunk
	sources    []storage.Series // instead of chunk
	bytes      int
}

// run returns what was taken; ok is false when none of it is within the times.
func (c *chunkIterator) run(mint, maxt int64) (r run, ok bool) {
	first := true
	for i := range c.sources {
		for _, m := range c.sources[i].taken {
			if first {
				r.mint, r.maxt, first = m.MinTime, m.MaxTime, false
			}
			r.mint, r.maxt = min(r.mint, m.MinTime), max(r.maxt, m.MaxTime)
			r.bytes += len(m.Chunk.Bytes())
		}
	}
	if r.maxt < mint || r.mint > maxt {
		return r, false
	}
	if chunk, same := c.same(); same {
		r.chunk, r.bytes = chunk.Chunk, len(chunk.Chunk.Bytes())
		return r, true
	}
	for i := range c.sources {
		r.sources = appendDecoders(r.sources, slices.Clone(c.sources[i].taken))
	}
	return r, true
}

// Labels implements storage.Series.
func (s *ChunkSamples) Labels() labels.Labels { return s.lset }

// Held returns the bytes of chunks that the series keeps in memory.
func (s *ChunkSamples) Held() (bytes int) {
	for i := range s.runs {
		bytes += s.runs[i].bytes
	}
	return bytes
}

// Iterator implements storage.Series.
func (s *ChunkSamples) Iterator(reuse chunkenc.Iterator) chunkenc.Iterator {
	it, ok := reuse.(*runIterator)
	if !ok {
		it = &runIterator{}
	}
	*it = runIterator{series: s, next: 0, single: it.single, merged: it.merged, err: s.err}
	return it
}

// runIterator reads one run after the other.
type runIterator struct {
	series *ChunkSamples
	next   int               // run that follows the current one
	at     chunkenc.Iterator // of the current run; nil before the first and behind the last
	typ    chunkenc.ValueType
	err    error

	single, merged chunkenc.Iterator // to be used again
}

var _ chunkenc.Iterator = (*runIterator)(nil)

// Next advances to the next sample.
func (it *runIterator) Next() chunkenc.ValueType {
	if it.at == nil {
		return it.open(it.series.mint)
	}
	if it.typ = it.at.Next(); it.typ != chunkenc.ValNone {
		return it.bound()
	}
	return it.open(it.series.mint)
}

// Seek advances to the first sample at or after t. It stays where it is when the current sample qualifies.
func (it *runIterator) Seek(t milliseconds) chunkenc.ValueType {
	t = max(t, it.series.mint)
	if it.at != nil {
		if it.typ != chunkenc.ValNone && it.at.AtT() >= t {
			return it.typ
		}
		if it.series.runs[it.next-1].maxt >= t {
			if it.typ = it.at.Seek(t); it.typ != chunkenc.ValNone {
				return it.bound()
			}
		}
	}
	return it.open(t)
}

// open advances to the first sample at or after t of the runs that follow.
func (it *runIterator) open(t int64) chunkenc.ValueType {
	it.typ = chunkenc.ValNone
	for it.err == nil {
		if it.at != nil {
			if it.err = it.at.Err(); it.err != nil {
				break
			}
		}
		if it.next == len(it.series.runs) {
			break
		}
		r := &it.series.runs[it.next]
		it.next++
		if it.at = nil; r.maxt < t {
			continue
		}
		if r.sources == nil {
			it.single = r.chunk.Iterator(it.single)
			it.at = it.single
		} else {
			it.merged = it.series.disputed.Series(r.sources...).Iterator(it.merged)
			it.at = it.merged
		}
		if r.mint < t {
			it.typ = it.at.Seek(t)
		} else {
			it.typ = it.at.Next()
		}
		if it.typ != chunkenc.ValNone {
			return it.bound()
		}
	}
	it.at, it.next = nil, len(it.series.runs)
	return chunkenc.ValNone
}

// bound ends the series behind its last time.
func (it *runIterator) bound() chunkenc.ValueType {
	if it.at.AtT() > it.series.maxt {
		it.typ, it.at, it.next = chunkenc.ValNone, nil, len(it.series.runs)
	}
	return it.typ
}

// At implements chunkenc.Iterator.
func (it *runIterator) At() (int64, float64) { return it.at.At() }

// AtHistogram implements chunkenc.Iterator.
func (it *runIterator) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	return it.at.AtHistogram(h)
}

// AtFloatHistogram implements chunkenc.Iterator.
func (it *runIterator) AtFloatHistogram(fh *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	return it.at.AtFloatHistogram(fh)
}

// AtT implements chunkenc.Iterator.
func (it *runIterator) AtT() int64 { return it.at.AtT() }

// AtST implements chunkenc.Iterator.
func (it *runIterator) AtST() int64 { return it.at.AtST() }

// Err implements chunkenc.Iterator.
func (it *runIterator) Err() error { return it.err }
