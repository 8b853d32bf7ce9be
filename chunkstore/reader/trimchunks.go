package reader

import (
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

// chunkSet shows the chunks of one block; those that only overlap the range of the query are encoded again without the
// samples outside of it.
type chunkSet struct {
	set   storage.ChunkSeriesSet
	trim  trim
	fault func(chunks.Meta, error) error
}

var _ storage.ChunkSeriesSet = (*chunkSet)(nil)

func (s *chunkSet) Next() bool                        { return s.set.Next() }
func (s *chunkSet) Err() error                        { return s.set.Err() }
func (s *chunkSet) Warnings() annotations.Annotations { return s.set.Warnings() }
func (s *chunkSet) At() storage.ChunkSeries           { return &trimmedSeries{s.set.At(), s} }

type trimmedSeries struct {
	storage.ChunkSeries

	set *chunkSet
}

func (s *trimmedSeries) Iterator(reuse chunks.Iterator) chunks.Iterator {
	it, ok := reuse.(*trimmedChunks)
	if !ok {
		it = &trimmedChunks{}
	}
	it.chunks, it.set, it.encoded, it.err = s.ChunkSeries.Iterator(it.chunks), s.set, nil, nil
	return it
}

type trimmedChunks struct {
	chunks  chunks.Iterator
	set     *chunkSet
	encoded chunks.Iterator // what is left of a chunk that was encoded again
	current chunks.Meta
	err     error
}

// At implements chunks.Iterator.
func (c *trimmedChunks) At() chunks.Meta { return c.current }

// Err implements chunks.Iterator.
func (c *trimmedChunks) Err() error { return c.err }

// Next implements chunks.Iterator.
func (c *trimmedChunks) Next() bool {
	for c.err == nil {
		if c.encoded != nil {
			if c.encoded.Next() {
				c.current = c.encoded.At()
				return true
			}
			if err := c.encoded.Err(); err != nil {
				c.err = c.set.fault(c.chunks.At(), err)
				return false
			}
			c.encoded = nil
		}
		if !c.chunks.Next() {
			c.err = c.chunks.Err()
			return false
		}
		meta := c.chunks.At()
		if t := c.set.trim; t.off || meta.MinTime >= t.mint && meta.MaxTime <= t.maxt {
			c.current = meta
			c.current.Chunk = guardedChunk{meta.Chunk, func(err error) error { return c.set.fault(meta, err) }}
			return true
		}
		c.encoded = c.encode(meta)
	}
	return false
}

// encode returns the samples of a chunk within the range as chunks.
func (c *trimmedChunks) encode(meta chunks.Meta) chunks.Iterator {
	one := &sampleSet{trim: c.set.trim, fault: func(_ chunks.Meta, err error) error { return err }}
	series := &sampleSeries{set: one, chunks: &storage.ChunkSeriesEntry{
		Lset:            labels.EmptyLabels(),
		ChunkIteratorFn: func(chunks.Iterator) chunks.Iterator { return storage.NewListChunkSeriesIterator(meta) },
	}}
	return storage.NewSeriesToChunkEncoderWithFloatEncoding(series, floatEncoding(meta.Chunk)).Iterator(nil)
}

func floatEncoding(c chunkenc.Chunk) chunkenc.Encoding {
	if c.Encoding() == chunkenc.EncXOR2 {
		return chunkenc.EncXOR2
	}
	return chunkenc.EncXOR
}
