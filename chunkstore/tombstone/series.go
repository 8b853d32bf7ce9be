package tombstone

import (
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tombstones"
)

// Series shows the series of a set without what is hidden of them. A series of which all is hidden stays, without samples:
// who lists series has to look.
func (s *Set) Series(set storage.SeriesSet) storage.SeriesSet {
	if s == nil {
		return set
	}
	return &seriesSet{set, s}
}

type seriesSet struct {
	storage.SeriesSet

	hidden *Set
}

// At implements storage.SeriesSet.
func (s *seriesSet) At() storage.Series {
	at := s.SeriesSet.At()
	if gaps := s.hidden.Intervals(at.Labels()); len(gaps) > 0 {
		return &series{at, gaps}
	}
	return at
}

type series struct {
	storage.Series

	gaps tombstones.Intervals
}

// Iterator implements storage.Series.
func (s *series) Iterator(reuse chunkenc.Iterator) chunkenc.Iterator {
	it, ok := reuse.(*iterator)
	if !ok {
		it = &iterator{}
	}
	it.Iterator, it.gaps, it.jumped = s.Series.Iterator(it.Iterator), s.gaps, false
	return it
}

// Sources is how many sources the series has, for who counts memory.
func (s *series) Sources() int {
	if counted, ok := s.Series.(interface{ Sources() int }); ok {
		return counted.Sources()
	}
	return 1
}

// Held is what the series holds besides its labels, in bytes, for who counts memory.
func (s *series) Held() int {
	if counted, ok := s.Series.(interface{ Held() int }); ok {
		return counted.Held()
	}
	return 0
}

// milliseconds since the Unix epoch. (As an alias it also keeps vet from taking Seek for an io.Seeker's.)
type milliseconds = int64

// iterator leaves out the samples in some gaps.
type iterator struct {
	chunkenc.Iterator

	gaps   tombstones.Intervals // that the current sample is not behind
	jumped bool                 // over samples, to the current one
}

// Next implements chunkenc.Iterator.
func (it *iterator) Next() chunkenc.ValueType {
	it.jumped = false
	return it.visible(it.Iterator.Next())
}

// Seek implements chunkenc.Iterator.
func (it *iterator) Seek(t milliseconds) chunkenc.ValueType {
	typ := it.Iterator.Seek(t)
	return it.visible(typ)
}

// visible goes on to the first sample that is in no gap.
func (it *iterator) visible(typ chunkenc.ValueType) chunkenc.ValueType {
	for typ != chunkenc.ValNone {
		t := it.AtT()
		for len(it.gaps) > 0 && it.gaps[0].Maxt < t {
			it.gaps = it.gaps[1:]
		}
		if len(it.gaps) == 0 || t < it.gaps[0].Mint {
			return typ
		}
		it.jumped = true
		typ = it.behind(it.gaps[0])
	}
	return typ
}

// behind goes to the first sample behind a gap. It is a Seek, which passes over chunks without reading them.
func (it *iterator) behind(gap tombstones.Interval) chunkenc.ValueType {
	if end := gap.Maxt + 1; end > gap.Maxt {
		return it.Iterator.Seek(end)
	}
	for it.Iterator.Next() != chunkenc.ValNone { // to the end, for an error on the way
	}
	return chunkenc.ValNone
}

// AtHistogram implements chunkenc.Iterator.
func (it *iterator) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	t, h := it.Iterator.AtHistogram(h)
	if it.jumped && h.CounterResetHint == histogram.NotCounterReset {
		// That is said of the sample before, which is hidden, and there may have been a reset before that.
		h = h.Copy() // it may be shared
		h.CounterResetHint = histogram.UnknownCounterReset
	}
	return t, h
}

// AtFloatHistogram implements chunkenc.Iterator.
func (it *iterator) AtFloatHistogram(h *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	t, h := it.Iterator.AtFloatHistogram(h)
	if it.jumped && h.CounterResetHint == histogram.NotCounterReset {
		h = h.Copy()
		h.CounterResetHint = histogram.UnknownCounterReset
	}
	return t, h
}
