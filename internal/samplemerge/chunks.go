package samplemerge

import (
	"bytes"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// ChunkSeries merges the chunks of one series from distinct sources. It is a storage.VerticalChunkSeriesMergeFunc.
//
// A chunk that overlaps no other passes as it is, and so does one that all sources which overlap it hold to the byte.
// Other overlapping chunks are decoded, merged as Series merges them, and encoded again. Unlike Prometheus' compacting
// merger it drops no duplicate before the vote: two equal chunks outvote a third here as well.
func ChunkSeries(sources ...storage.ChunkSeries) storage.ChunkSeries {
	return Disputed(nil).ChunkSeries(sources...)
}

// ChunkSeries is the function of that name for one who wants to know of disputes.
func (d Disputed) ChunkSeries(sources ...storage.ChunkSeries) storage.ChunkSeries {
	switch len(sources) {
	case 0:
		return nil
	case 1:
		return sources[0]
	}
	return &storage.ChunkSeriesEntry{
		Lset: sources[0].Labels(),
		ChunkIteratorFn: func(chunks.Iterator) chunks.Iterator {
			it := &chunkIterator{sources: make([]chunkSource, len(sources)), disputed: d}
			for i, s := range sources {
				it.sources[i].it = s.Iterator(nil)
			}
			return it
		},
	}
}

// chunkSource is one input, standing at its next chunk.
type chunkSource struct {
	it   chunks.Iterator
	next chunks.Meta
	done bool
	// taken are the chunks of the current overlap, in order of time.
	taken []chunks.Meta
}

type chunkIterator struct {
	sources []chunkSource
	started bool
	merged  chunks.Iterator // what is left of an overlap that was encoded again
	current chunks.Meta
	err     error

	disputed Disputed
}

// At returns the current chunk, valid until the following Next.
func (c *chunkIterator) At() chunks.Meta { return c.current }

// Err returns the first error of any source or of the encoding.
func (c *chunkIterator) Err() error { return c.err }

// Next advances to the next chunk. Chunks come in order of time and do not overlap.
func (c *chunkIterator) Next() bool {
	if c.err != nil {
		return false
	}
	if !c.started {
		c.started = true
		for i := range c.sources {
			c.sources[i].advance()
		}
	}
	if c.merged != nil {
		if c.merged.Next() {
			c.current = c.merged.At()
			return true
		}
		if c.err = c.merged.Err(); c.err != nil {
			return false
		}
		c.merged = nil
	}
	for i := range c.sources {
		if c.err = c.sources[i].it.Err(); c.err != nil && c.sources[i].done {
			return false
		}
		c.err = nil
	}
	if !c.take() {
		return false
	}
	return c.emit()
}

// advance moves a source to its next chunk.
func (s *chunkSource) advance() {
	if s.done = !s.it.Next(); !s.done {
		s.next = s.it.At()
	}
}

// take collects the earliest chunk and, transitively, all that overlap it.
func (c *chunkIterator) take() bool {
	var first *chunkSource
	for i := range c.sources {
		s := &c.sources[i]
		s.taken = s.taken[:0]
		if !s.done && (first == nil || s.next.MinTime < first.next.MinTime) {
			first = s
		}
	}
	if first == nil {
		return false
	}
	maxt := first.next.MaxTime
	for grown := true; grown; {
		grown = false
		for i := range c.sources {
			s := &c.sources[i]
			for !s.done && s.next.MinTime <= maxt {
				maxt = max(maxt, s.next.MaxTime)
				s.taken = append(s.taken, s.next)
				s.advance()
				grown = true
			}
		}
	}
	return true
}

// emit turns the taken chunks into the current one, or into merged ones with the first of them current.
func (c *chunkIterator) emit() bool {
	if chunk, same := c.same(); same {
		c.current = chunk
		return true
	}
	var series []storage.Series
	for i := range c.sources {
		series = appendDecoders(series, c.sources[i].taken)
	}
	c.merged = storage.NewSeriesToChunkEncoder(c.disputed.Series(series...)).Iterator(nil)
	if !c.merged.Next() {
		c.err = c.merged.Err()
		return false
	}
	c.current = c.merged.At()
	return true
}

// same returns the chunk that all sources of the overlap hold, if it is one and the same.
func (c *chunkIterator) same() (chunk chunks.Meta, same bool) {
	for i := range c.sources {
		taken := c.sources[i].taken
		switch {
		case len(taken) == 0:
			continue
		case len(taken) > 1:
			return chunk, false
		case chunk.Chunk == nil:
			chunk = taken[0]
			continue
		}
		if taken[0].MinTime != chunk.MinTime || taken[0].MaxTime != chunk.MaxTime ||
			taken[0].Chunk.Encoding() != chunk.Chunk.Encoding() || !bytes.Equal(taken[0].Chunk.Bytes(), chunk.Chunk.Bytes()) {
			return chunk, false
		}
	}
	return chunk, true
}

// appendDecoders appends the samples of one source's chunks as one series, so that a source has one vote. Chunks of one
// source that overlap each other, which no stored block has, count as sources of their own.
func appendDecoders(dst []storage.Series, taken []chunks.Meta) []storage.Series {
	for start := 0; start < len(taken); {
		end := start + 1
		for end < len(taken) && taken[end].MinTime > taken[end-1].MaxTime {
			end++
		}
		dst = append(dst, decoder(taken[start:end:end]))
		start = end
	}
	return dst
}

// decoder returns the samples of chunks that follow each other without overlap.
func decoder(metas []chunks.Meta) storage.Series {
	series := make([]storage.Series, 0, len(metas))
	for _, m := range metas {
		series = append(series, &storage.SeriesEntry{Lset: labels.EmptyLabels(), SampleIteratorFn: m.Chunk.Iterator})
	}
	return Series(series...)
}
