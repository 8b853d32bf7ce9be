package reader

import (
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/duramendb/duramen/chunkstore/cache"
	"github.com/duramendb/duramen/chunkstore/index"
	"github.com/duramendb/duramen/internal/samplemerge"
)

// blockSet is the series of one block.
type blockSet struct {
	b       *blockSelection
	cursor  cursor
	scratch labels.ScratchBuilder
	built   labels.Labels // memory for the next series' labels

	next int // number of the next series
	at   int // position in picked of its page
	// position counts the series of sorted that were given, those that became one by their parts.
	position int
	current  storage.ChunkSeries
	err      error
}

var _ storage.ChunkSeriesSet = (*blockSet)(nil)

func (b *blockSelection) set() storage.ChunkSeriesSet {
	if b.count == 0 {
		return storage.EmptyChunkSeriesSet()
	}
	return &blockSet{b: b, cursor: cursor{b: b}}
}

// At implements storage.ChunkSeriesSet.
func (s *blockSet) At() storage.ChunkSeries { return s.current }

// Err implements storage.ChunkSeriesSet.
func (s *blockSet) Err() error { return s.err }

// Warnings implements storage.ChunkSeriesSet.
func (s *blockSet) Warnings() annotations.Annotations { return nil }

// Next implements storage.ChunkSeriesSet.
func (s *blockSet) Next() bool {
	limit := s.b.sel.hints.Limit
	if s.err != nil || limit > 0 && s.next >= limit {
		return false
	}
	if s.b.sorted != nil {
		return s.nextSorted()
	}
	if s.next >= s.b.count {
		return false
	}
	for s.at+1 < len(s.b.picked) && s.b.picked[s.at+1].first <= s.next {
		s.at++
	}
	lset, err := s.labels()
	if err != nil {
		s.err = err
		return false
	}
	s.current = &blockSeries{s.b, s.next, lset}
	s.next++
	return true
}

func (s *blockSet) labels() (lset labels.Labels, err error) {
	p := &s.b.picked[s.at]
	if p.page == nil {
		if err := s.b.sel.s.resume(s.b.sel.ctx); err != nil {
			return lset, err
		}
	}
	page, err := s.cursor.page(s.b.sel.ctx, s.at)
	if err != nil {
		return lset, err
	}
	defer func() { err = blockError(s.b.pages.tenant, s.b.pages.id, err) }()
	defer recovered(&err)
	i := int(p.series[s.next-p.first])
	page.BuildLabels(i, &s.scratch)
	s.scratch.Overwrite(&s.built)
	return s.b.sel.recent.share(page.Hash(i), s.built), nil
}

func (s *blockSet) nextSorted() bool {
	if s.next >= len(s.b.sorted) {
		return false
	}
	sorted := s.b.sorted[s.next]
	s.next++
	series := make([]storage.ChunkSeries, len(sorted.ordinals))
	for i := range series {
		series[i] = &blockSeries{s.b, s.position, sorted.lset}
		s.position++
	}
	s.current = samplemerge.ChunkSeries(series...)
	return true
}

// blockSeries is one series of a block.
type blockSeries struct {
	b       *blockSelection
	ordinal int // in the order in which the set gives them
	lset    labels.Labels
}

// Labels implements storage.ChunkSeries.
func (s *blockSeries) Labels() labels.Labels { return s.lset }

// Iterator implements storage.ChunkSeries.
func (s *blockSeries) Iterator(reuse chunks.Iterator) chunks.Iterator {
	it, ok := reuse.(*blockChunks)
	if !ok {
		it = &blockChunks{}
	}
	*it = blockChunks{s: s, metas: it.metas[:0]}
	return it
}

// blockChunks are the chunks of a series of a block that overlap the range, in order.
type blockChunks struct {
	s     *blockSeries
	metas []chunks.Meta
	at    int // of the next one
	begun bool
	// merged gives the chunks when those of the block are not one behind another.
	merged chunks.Iterator
	err    error
}

// At implements chunks.Iterator.
func (c *blockChunks) At() chunks.Meta {
	if c.merged != nil {
		return c.merged.At()
	}
	return c.metas[c.at-1]
}

// Err implements chunks.Iterator.
func (c *blockChunks) Err() error { return c.err }

// Next implements chunks.Iterator.
func (c *blockChunks) Next() bool {
	if !c.begun && c.s.b.sel.readsChunks() {
		c.begun = true
		c.metas, c.err = c.s.b.chunks(c.metas, c.s.ordinal)
		if c.err == nil && !follow(c.metas) {
			c.merged = samplemerge.ChunkSeries(lanes(c.metas)...).Iterator(nil)
		}
	}
	if c.err == nil && c.merged != nil {
		if c.merged.Next() {
			return true
		}
		c.err = blockError(c.s.b.pages.tenant, c.s.b.pages.id, c.merged.Err())
		return false
	}
	if c.err != nil || c.at >= len(c.metas) {
		return false
	}
	c.at++
	return true
}

// chunks appends copies of the chunks of a series.
func (b *blockSelection) chunks(dst []chunks.Meta, ordinal int) ([]chunks.Meta, error) {
	if b.sel.s.closed {
		return nil, ErrClosed
	}
	win, err := b.windows.series(ordinal)
	if err != nil {
		return nil, err
	}
	refs, size := win.chunks(ordinal), int64(0)
	for _, ref := range refs {
		size += int64(ref.Length)
	}
	own := make([]byte, 0, size)
	for _, ref := range refs {
		data, enc, err := b.record(win.bytes(ref), ref)
		if err != nil {
			return nil, err
		}
		begin := len(own)
		own = append(own, data...)
		chunk, err := newChunk(enc, own[begin:len(own):len(own)])
		if err != nil {
			return nil, b.chunkError(ref, err)
		}
		dst = append(dst, chunks.Meta{
			Ref:     chunks.ChunkRef(chunks.NewBlockChunkRef(uint64(ref.Segment), uint64(ref.Offset))),
			MinTime: ref.MinTime, MaxTime: ref.MaxTime, Chunk: chunk,
		})
	}
	b.sel.s.l.metrics.chunkBytes.Add(float64(size))
	return dst, nil
}

// record returns the content of a chunk's record, read once more past the caches when it is damaged.
func (b *blockSelection) record(data []byte, ref index.Chunk) ([]byte, chunkenc.Encoding, error) {
	out, enc, err := decodeRecord(data)
	if err == nil {
		return out, enc, nil
	}
	p := b.pages
	p.l.metrics.refetches.Inc()
	span := cache.Span{Offset: int64(ref.Offset), Length: int64(ref.Length)}
	bufs, err := p.l.readObject(b.sel.ctx, p.tenant, p.id, b.segment(ref.Segment), []cache.Span{span}, true)
	if err != nil {
		return nil, 0, err
	}
	if out, enc, err = decodeRecord(bufs[0]); err != nil {
		return nil, 0, b.chunkError(ref, err)
	}
	return out, enc, nil
}

func (b *blockSelection) chunkError(ref index.Chunk, err error) error {
	if !errors.Is(err, ErrDamaged) {
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	err = fmt.Errorf("chunk at byte %d: %w", ref.Offset, err)
	return b.pages.l.failed(objectError(b.pages.tenant, b.pages.id, b.segment(ref.Segment).Key, err))
}
