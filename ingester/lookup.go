package ingester

import (
	"context"
	"errors"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/duramendb/duramen/internal/errkind"
)

// verdict is what a lookup found at a series and timestamp.
type verdict uint8

const (
	heldNot verdict = iota
	heldEqual
	heldOther
)

// sample is a sample of any type: a histogram when h or fh is set.
type sample struct {
	t  int64
	v  float64
	h  *histogram.Histogram
	fh *histogram.FloatHistogram
}

// lookup finds single samples in everything that a tenant's TSDB holds. It sees what is committed, so the caller commits
// first and holds appendMu until it has acted on the answers.
//
// A series that is in the head is read by its reference, about 2 µs a sample: a retried request is 2,000 of them. That
// takes readers of the head that no one tracks, while stock frees chunks under whoever is not tracked. Two things make it
// safe: the tracked querier, which any truncation that begins later waits for, and that no cut was under way once it was
// open. During a cut, and for what is in blocks, the tracked querier itself selects by labels, at about 30 µs.
type lookup struct {
	tracked storage.Querier
	direct  bool // no cut was under way: the head may be read by reference
	index   tsdb.IndexReader
	chunks  tsdb.ChunkReader
	blocks  []*tsdb.Block

	metas   []chunks.Meta
	builder labels.ScratchBuilder
	it      chunkenc.Iterator

	byRef, bySelect int
}

// openLookup begins lookups of samples with lo ≤ t ≤ hi. Close it soon: cuts wait for it.
func (l *life) openLookup(lo, hi int64) (*lookup, error) {
	q, err := l.db.Querier(lo, hi)
	if err != nil {
		return nil, err
	}
	head := l.db.Head()
	k := &lookup{
		tracked: q,
		direct:  !l.cutting.Load(),
		index:   tsdb.NewHeadAndOOOIndexReader(head, lo, lo, hi, 0),
		chunks:  tsdb.NewHeadAndOOOChunkReader(head, lo, hi, nil, nil, 0),
	}
	for _, b := range l.db.Blocks() {
		if b.OverlapsClosedInterval(lo, hi) {
			k.blocks = append(k.blocks, b)
		}
	}
	return k, nil
}

func (k *lookup) close() { _ = k.tracked.Close() }

// find says what is held at s.t in the series with the reference or, when ref is 0, the label set. lset may be empty when
// there is a reference; errVanished then says that the series left the head.
func (k *lookup) find(ref storage.SeriesRef, lset labels.Labels, s sample) (verdict, error) {
	if ref == 0 {
		return k.selectSeries(lset, s)
	}
	metas := &k.metas
	if !k.direct {
		metas = nil
	}
	err := k.index.Series(ref, &k.builder, metas)
	if errors.Is(err, storage.ErrNotFound) {
		return k.selectSeries(lset, s)
	}
	if err != nil {
		return heldNot, err
	}
	if !k.direct {
		return k.selectSeries(k.builder.Labels(), s)
	}
	k.byRef++
	for _, m := range k.metas {
		if s.t < m.MinTime || s.t > m.MaxTime {
			continue
		}
		found, err := k.inChunk(m, s)
		if found != heldNot || err != nil {
			return found, err
		}
	}
	for _, b := range k.blocks {
		if b.MinTime() <= s.t && s.t < b.MaxTime() {
			return k.selectSeries(k.builder.Labels(), s)
		}
	}
	return heldNot, nil
}

func (k *lookup) inChunk(m chunks.Meta, s sample) (verdict, error) {
	chunk, iterable, err := k.chunks.ChunkOrIterable(m)
	if errors.Is(err, storage.ErrNotFound) {
		return heldNot, nil // outside of the span
	}
	if err != nil {
		return heldNot, err
	}
	if chunk != nil {
		k.it = chunk.Iterator(k.it)
	} else {
		k.it = iterable.Iterator(k.it)
	}
	return compareAt(k.it, s)
}

// selectSeries asks the tracked querier, which covers head and blocks.
func (k *lookup) selectSeries(lset labels.Labels, s sample) (verdict, error) {
	k.bySelect++
	if lset.IsEmpty() {
		return heldNot, errkind.Wrap(errkind.Unavailable, errVanished)
	}
	matchers := make([]*labels.Matcher, 0, lset.Len())
	lset.Range(func(l labels.Label) {
		matchers = append(matchers, &labels.Matcher{Type: labels.MatchEqual, Name: l.Name, Value: l.Value})
	})
	set := k.tracked.Select(context.Background(), false, &storage.SelectHints{Start: s.t, End: s.t}, matchers...)
	for set.Next() {
		series := set.At()
		if !labels.Equal(series.Labels(), lset) {
			continue // it has more labels
		}
		k.it = series.Iterator(k.it)
		if found, err := compareAt(k.it, s); found != heldNot || err != nil {
			return found, err
		}
	}
	return heldNot, set.Err()
}

// compareAt says whether it has a sample at s.t and whether it equals s.
func compareAt(it chunkenc.Iterator, s sample) (verdict, error) {
	kind := it.Seek(s.t)
	if kind == chunkenc.ValNone {
		return heldNot, it.Err()
	}
	if it.AtT() != s.t {
		return heldNot, nil
	}
	held := sample{t: s.t}
	switch kind {
	case chunkenc.ValFloat:
		_, held.v = it.At()
	case chunkenc.ValHistogram:
		_, held.h = it.AtHistogram(nil)
	case chunkenc.ValFloatHistogram:
		_, held.fh = it.AtFloatHistogram(nil)
	}
	if equalSamples(held, s) {
		return heldEqual, nil
	}
	return heldOther, nil
}

// equalSamples compares by type and bits. Stale markers are equal whatever their type, because stock gives a marker the
// type of the series. Buckets that hold nothing do not count, because stock adds them when the layout of a chunk grows.
func equalSamples(a, b sample) bool {
	if a.stale() || b.stale() {
		return a.stale() && b.stale()
	}
	switch {
	case a.h != nil && b.h != nil:
		return a.h.Equals(b.h) || a.h.Copy().Compact(0).Equals(b.h.Copy().Compact(0))
	case a.fh != nil && b.fh != nil:
		return a.fh.Equals(b.fh) || a.fh.Copy().Compact(0).Equals(b.fh.Copy().Compact(0))
	default:
		return a.h == nil && a.fh == nil && b.h == nil && b.fh == nil && math.Float64bits(a.v) == math.Float64bits(b.v)
	}
}

func (s sample) stale() bool {
	switch {
	case s.h != nil:
		return value.IsStaleNaN(s.h.Sum)
	case s.fh != nil:
		return value.IsStaleNaN(s.fh.Sum)
	default:
		return value.IsStaleNaN(s.v)
	}
}
