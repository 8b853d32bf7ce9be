// Package samplemerge owns the merge of one series' samples from several sources, with the one tie-break that the
// ingester, the store and the compactor share. It refuses to prefer a source for its age, name or place: what is
// returned depends on the samples alone, never on the order in which the sources were given. Read package
// chunkstore/reader next for a caller.
package samplemerge

import (
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Series merges the samples of one series from distinct sources into one stream in ascending order of time. It is a
// storage.VerticalSeriesMergeFunc.
//
// Samples of equal time and equal value become one. When values differ at one time, the value that most sources hold
// wins, then the larger by (value type, bits), as compareFloats and compareHistograms define it. Values are compared to
// the bit: a stale marker, another NaN, 0 and -0 are four values.
//
// A start timestamp is no part of the value. Among the sources that hold the value that won, the start timestamp that
// most of them have wins, then the latest; sources that have none are not counted.
//
// The sources keep their own labels, which must be equal; a single source is returned as it is.
func Series(sources ...storage.Series) storage.Series { return Disputed(nil).Series(sources...) }

// Disputed is told of each time at which sources hold different values, in milliseconds since the Unix epoch, before one
// of them wins. An error that it returns ends the merge. It is called by whoever reads the merge; nil is told nothing.
type Disputed func(t int64) error

// Series is the function of that name for one who wants to know of disputes.
func (d Disputed) Series(sources ...storage.Series) storage.Series {
	switch len(sources) {
	case 0:
		return nil
	case 1:
		return sources[0]
	}
	return &mergedSeries{sources, d}
}

// mergedSeries is a series of more than one source.
type mergedSeries struct {
	sources  []storage.Series
	disputed Disputed
}

// Labels implements storage.Series.
func (m *mergedSeries) Labels() labels.Labels { return m.sources[0].Labels() }

// Iterator implements storage.Series.
func (m *mergedSeries) Iterator(reuse chunkenc.Iterator) chunkenc.Iterator {
	it, ok := reuse.(*iterator)
	if !ok {
		it = &iterator{}
	}
	it.reset(m.sources)
	it.disputed = m.disputed
	return it
}

// Sources returns how many sources the series has, those of its sources counted, for those who ask what it costs.
func (m *mergedSeries) Sources() (n int) {
	for _, s := range m.sources {
		if s, ok := s.(*mergedSeries); ok {
			n += s.Sources()
		} else {
			n++
		}
	}
	return n
}

// Held returns the bytes of chunks that the sources keep in memory, as far as they say so.
func (m *mergedSeries) Held() (bytes int) {
	for _, s := range m.sources {
		if s, ok := s.(interface{ Held() int }); ok {
			bytes += s.Held()
		}
	}
	return bytes
}
