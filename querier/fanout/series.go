package fanout

import (
	"context"
	"math"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/duramendb/duramen/internal/samplemerge"
)

// sampleQuerier is a storage.Querier over a session.
type sampleQuerier struct{ *session }

// Select returns the series of a quorum, merged by one merge. They come in the order of labels, whether that is asked for
// or not, and are valid until Close.
func (q *sampleQuerier) Select(
	ctx context.Context, _ bool, hints *storage.SelectHints, matchers ...*labels.Matcher,
) storage.SeriesSet {
	sel, err := q.start(ctx, hints, matchers)
	if err != nil {
		return storage.ErrSeriesSet(err)
	}
	mint, maxt := q.times(hints)
	return &seriesSet{selecting: sel, mint: mint, maxt: maxt}
}

// times are those of a Select: hints may narrow what the querier was opened for.
func (s *session) times(hints *storage.SelectHints) (mint, maxt int64) {
	if hints == nil {
		return s.mint, s.maxt
	}
	return max(s.mint, hints.Start), min(s.maxt, hints.End)
}

type seriesSet struct {
	*selecting

	mint, maxt int64
	series     *samplemerge.ChunkSamples
}

// Next implements storage.SeriesSet.
func (s *seriesSet) Next() bool {
	if !s.step() {
		return false
	}
	s.series = samplemerge.Disputed(s.s.disputed).FromChunks(s.mint, s.maxt, s.current...)
	return true
}

// At implements storage.SeriesSet.
func (s *seriesSet) At() storage.Series { return s.series }

// Err implements storage.SeriesSet. It is nil only when the answers of all were whole.
func (s *seriesSet) Err() error { return s.err }

// Warnings implements storage.SeriesSet.
func (s *seriesSet) Warnings() annotations.Annotations { return s.warnings() }

// chunkQuerier is a storage.ChunkQuerier over a session.
type chunkQuerier struct{ *session }

// Select is sampleQuerier.Select for chunks. Those at the borders are cut unless hints say that it is not needed.
func (q *chunkQuerier) Select(
	ctx context.Context, _ bool, hints *storage.SelectHints, matchers ...*labels.Matcher,
) storage.ChunkSeriesSet {
	sel, err := q.start(ctx, hints, matchers)
	if err != nil {
		return storage.ErrChunkSeriesSet(err)
	}
	set := &chunkSet{selecting: sel, mint: math.MinInt64, maxt: math.MaxInt64}
	if hints == nil || !hints.DisableTrimming {
		set.mint, set.maxt = q.times(hints)
	}
	return set
}

type chunkSet struct {
	*selecting

	mint, maxt int64
	series     storage.ChunkSeries
}

// Next implements storage.ChunkSeriesSet.
func (s *chunkSet) Next() bool {
	if !s.step() {
		return false
	}
	s.series = &trimmedSeries{samplemerge.Disputed(s.s.disputed).ChunkSeries(s.current...), s.mint, s.maxt}
	return true
}

// At implements storage.ChunkSeriesSet.
func (s *chunkSet) At() storage.ChunkSeries { return s.series }

// Err implements storage.ChunkSeriesSet. It is nil only when the answers of all were whole.
func (s *chunkSet) Err() error { return s.err }

// Warnings implements storage.ChunkSeriesSet.
func (s *chunkSet) Warnings() annotations.Annotations { return s.warnings() }

// trimmedSeries cuts the chunks of a series to the times that were asked for, as a TSDB does.
type trimmedSeries struct {
	storage.ChunkSeries

	mint, maxt int64
}

// Iterator implements storage.ChunkSeries.
func (s *trimmedSeries) Iterator(chunks.Iterator) chunks.Iterator {
	return &trimming{Iterator: s.ChunkSeries.Iterator(nil), series: s}
}

type trimming struct {
	chunks.Iterator

	series *trimmedSeries
	cut    chunks.Iterator // what is left of a chunk at a border
	at     chunks.Meta
	err    error
}

// Next implements chunks.Iterator.
func (c *trimming) Next() bool {
	for c.err == nil {
		if c.cut != nil {
			if c.cut.Next() {
				c.at = c.cut.At()
				return true
			}
			c.err, c.cut = c.cut.Err(), nil
			continue
		}
		if !c.Iterator.Next() {
			return false
		}
		c.at = c.Iterator.At()
		mint, maxt := c.series.mint, c.series.maxt
		switch {
		case mint <= c.at.MinTime && c.at.MaxTime <= maxt:
			return true
		case c.at.MinTime <= maxt && mint <= c.at.MaxTime:
			one := &storage.ChunkSeriesEntry{Lset: c.series.Labels(), ChunkIteratorFn: func(chunks.Iterator) chunks.Iterator {
				return storage.NewListChunkSeriesIterator(c.at)
			}}
			c.cut = storage.NewSeriesToChunkEncoder(samplemerge.FromChunks(mint, maxt, one)).Iterator(nil)
		}
	}
	return false
}

// At implements chunks.Iterator.
func (c *trimming) At() chunks.Meta { return c.at }

// Err implements chunks.Iterator.
func (c *trimming) Err() error {
	if c.err != nil {
		return c.err
	}
	return c.Iterator.Err()
}

var (
	_ storage.Querier      = (*sampleQuerier)(nil)
	_ storage.ChunkQuerier = (*chunkQuerier)(nil)
)
