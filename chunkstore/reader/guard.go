package reader

import (
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// guard returns c so that a crafted or damaged histogram chunk gives an error where its decoder would panic. Float chunks
// are plain streams of bits whose decoders check their bounds: they pass as they are.
func guard(c chunkenc.Chunk) chunkenc.Chunk {
	switch c.Encoding() {
	case chunkenc.EncXOR, chunkenc.EncXOR2:
		return c
	default:
		return guardedChunk{c, func(err error) error { return err }}
	}
}

type guardedChunk struct {
	chunkenc.Chunk

	explain func(error) error // what a fault means
}

// Iterator implements chunkenc.Chunk.
func (c guardedChunk) Iterator(reuse chunkenc.Iterator) (it chunkenc.Iterator) {
	g, ok := reuse.(*guardedIterator)
	if !ok {
		g = &guardedIterator{}
	}
	g.err, g.explain = nil, c.explain
	defer func() {
		if p := recover(); p != nil {
			g.err, g.Iterator, it = panicError(p), chunkenc.NewNopIterator(), g
		}
	}()
	g.Iterator = c.Chunk.Iterator(g.Iterator)
	return g
}

// guardedIterator ends with an error where the iterator below panics.
type guardedIterator struct {
	chunkenc.Iterator

	err     error
	explain func(error) error
}

// Next implements chunkenc.Iterator.
func (g *guardedIterator) Next() (typ chunkenc.ValueType) {
	if g.err != nil {
		return chunkenc.ValNone
	}
	defer recovered(&g.err)
	return g.Iterator.Next()
}

// Seek implements chunkenc.Iterator.
func (g *guardedIterator) Seek(t milliseconds) (typ chunkenc.ValueType) {
	if g.err != nil {
		return chunkenc.ValNone
	}
	defer recovered(&g.err)
	return g.Iterator.Seek(t)
}

// AtHistogram implements chunkenc.Iterator. After a panic the histogram is empty, and Err says why.
func (g *guardedIterator) AtHistogram(h *histogram.Histogram) (t int64, out *histogram.Histogram) {
	out = &histogram.Histogram{}
	defer recovered(&g.err)
	return g.Iterator.AtHistogram(h)
}

// AtFloatHistogram implements chunkenc.Iterator. After a panic the histogram is empty, and Err says why.
func (g *guardedIterator) AtFloatHistogram(h *histogram.FloatHistogram) (t int64, out *histogram.FloatHistogram) {
	out = &histogram.FloatHistogram{}
	defer recovered(&g.err)
	return g.Iterator.AtFloatHistogram(h)
}

// Err implements chunkenc.Iterator.
func (g *guardedIterator) Err() error {
	err := g.err
	if err == nil {
		err = g.Iterator.Err()
	}
	if err != nil {
		return g.explain(err)
	}
	return nil
}
