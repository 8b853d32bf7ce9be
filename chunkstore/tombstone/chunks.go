package tombstone

import (
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/tombstones"
)

// Chunks shows the series of a set without what is hidden of them. A chunk that is outside of all that is hidden passes as
// it is, one that is inside is left out, and one that is partly so is encoded again without it. A series of which all is
// hidden stays, without chunks.
func (s *Set) Chunks(set storage.ChunkSeriesSet) storage.ChunkSeriesSet {
	if s == nil {
		return set
	}
	return &chunkSeriesSet{set, s}
}

type chunkSeriesSet struct {
	storage.ChunkSeriesSet

	hidden *Set
}

// At implements storage.ChunkSeriesSet.
func (s *chunkSeriesSet) At() storage.ChunkSeries {
	at := s.ChunkSeriesSet.At()
	if gaps := s.hidden.Intervals(at.Labels()); len(gaps) > 0 {
		return &chunkSeries{at, gaps}
	}
	return at
}

type chunkSeries struct {
	storage.ChunkSeries

	gaps tombstones.Intervals
}

// Iterator implements storage.ChunkSeries.
func (s *chunkSeries) Iterator(reuse chunks.Iterator) chunks.Iterator {
	it, ok := reuse.(*chunkIterator)
	if !ok {
		it = &chunkIterator{}
	}
	*it = chunkIterator{chunks: s.ChunkSeries.Iterator(it.chunks), gaps: s.gaps}
	return it
}

// chunkIterator leaves out what is in some gaps.
type chunkIterator struct {
	chunks  chunks.Iterator
	gaps    tombstones.Intervals
	encoded chunks.Iterator // what is left of a chunk that was encoded again
	current chunks.Meta
	err     error
}

// At implements chunks.Iterator.
func (it *chunkIterator) At() chunks.Meta { return it.current }

// Err implements chunks.Iterator.
func (it *chunkIterator) Err() error { return it.err }

// Next implements chunks.Iterator.
func (it *chunkIterator) Next() bool {
	for it.err == nil {
		if it.encoded != nil {
			if it.encoded.Next() {
				it.current = it.encoded.At()
				return true
			}
			if it.err = it.encoded.Err(); it.err != nil {
				return false
			}
			it.encoded = nil
		}
		if !it.chunks.Next() {
			it.err = it.chunks.Err()
			return false
		}
		it.current = it.chunks.At()
		span := tombstones.Interval{Mint: it.current.MinTime, Maxt: it.current.MaxTime}
		switch {
		case !overlaps(it.gaps, span):
			return true
		case !span.IsSubrange(it.gaps):
			it.encoded = without(it.current, it.gaps)
		}
	}
	return false
}

func overlaps(gaps tombstones.Intervals, span tombstones.Interval) bool {
	for _, gap := range gaps {
		if gap.Mint <= span.Maxt && span.Mint <= gap.Maxt {
			return true
		}
	}
	return false
}

// without returns the samples of a chunk outside of some gaps as chunks.
func without(meta chunks.Meta, gaps tombstones.Intervals) chunks.Iterator {
	encoding := chunkenc.EncXOR
	if meta.Chunk.Encoding() == chunkenc.EncXOR2 {
		encoding = chunkenc.EncXOR2
	}
	visible := &series{Series: chunkSamples{meta.Chunk}, gaps: gaps}
	return storage.NewSeriesToChunkEncoderWithFloatEncoding(visible, encoding).Iterator(nil)
}

// chunkSamples is a series of one chunk without labels.
type chunkSamples struct{ chunk chunkenc.Chunk }

// Labels implements storage.Series.
func (chunkSamples) Labels() labels.Labels { return labels.EmptyLabels() }

// Iterator implements storage.Series.
func (s chunkSamples) Iterator(chunkenc.Iterator) chunkenc.Iterator { return s.chunk.Iterator(nil) }
