package querier

import (
	"context"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

const (
	// readSampleBytes is what a float costs that an unstreamed remote read holds: 16 bytes, as much again while lists grow,
	// and some 20 each in the message, in the body and in what is compressed.
	readSampleBytes = 100
	// readHistogramBytes and readBucketBytes are the same of a native histogram, beside its spans and buckets, and of one of
	// these.
	readHistogramBytes, readBucketBytes = 600, 40
)

// readWhole answers with all samples in one message. What that holds counts as the memory of a query: it takes the place of
// one, small or large.
func (q *Querier) readWhole(ctx context.Context, out *readAnswer, queries []*prompb.Query, id string, kind int) (err error) {
	s := &seat{q: q, tenantID: id, kind: kind}
	if s.release, err = q.slots.take(ctx, id, kind); err != nil {
		return err
	}
	defer s.leave()
	ctx = context.WithValue(ctx, seatKey{}, s)
	return q.fitting(ctx, func(bool) error {
		return q.again(ctx, func() bool { return out.sent == 0 }, func(ctx context.Context) error {
			return q.sendSamples(ctx, out, queries)
		})
	})
}

// heldSet counts what is made of the series and samples that are taken from a set.
type heldSet struct {
	storage.SeriesSet
	held *held
	err  error
}

// Next implements storage.SeriesSet.
func (s *heldSet) Next() bool {
	if s.err != nil || !s.SeriesSet.Next() {
		return false
	}
	s.err = s.held.add(s.SeriesSet.At())
	return s.err == nil
}

// At implements storage.SeriesSet.
func (s *heldSet) At() storage.Series { return heldSeries{s.SeriesSet.At(), s.held} }

// Err implements storage.SeriesSet.
func (s *heldSet) Err() error {
	if s.err != nil {
		return s.err
	}
	return s.SeriesSet.Err()
}

type heldSeries struct {
	storage.Series
	held *held
}

// Iterator implements storage.Series.
func (s heldSeries) Iterator(reuse chunkenc.Iterator) chunkenc.Iterator {
	it, ok := reuse.(*heldIterator)
	if !ok {
		it = &heldIterator{}
	}
	*it = heldIterator{Iterator: s.Series.Iterator(it.Iterator), held: s.held}
	return it
}

// heldIterator ends with an error when too much has been taken from it.
type heldIterator struct {
	chunkenc.Iterator
	held *held
	err  error
}

// Next implements chunkenc.Iterator.
func (it *heldIterator) Next() chunkenc.ValueType {
	if it.err != nil {
		return chunkenc.ValNone
	}
	typ := it.Iterator.Next()
	if typ == chunkenc.ValFloat {
		it.spend(readSampleBytes)
	}
	if it.err != nil {
		return chunkenc.ValNone
	}
	return typ
}

// AtHistogram implements chunkenc.Iterator.
func (it *heldIterator) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	t, h := it.Iterator.AtHistogram(h)
	it.spend(readHistogramBytes + readBucketBytes*int64(len(h.PositiveSpans)+len(h.NegativeSpans)+
		len(h.PositiveBuckets)+len(h.NegativeBuckets)+len(h.CustomValues)))
	return t, h
}

// AtFloatHistogram implements chunkenc.Iterator.
func (it *heldIterator) AtFloatHistogram(h *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	t, h := it.Iterator.AtFloatHistogram(h)
	it.spend(readHistogramBytes + readBucketBytes*int64(len(h.PositiveSpans)+len(h.NegativeSpans)+
		len(h.PositiveBuckets)+len(h.NegativeBuckets)+len(h.CustomValues)))
	return t, h
}

// Err implements chunkenc.Iterator.
func (it *heldIterator) Err() error {
	if it.err != nil {
		return it.err
	}
	return it.Iterator.Err()
}

func (it *heldIterator) spend(n int64) {
	if it.err == nil {
		it.err = it.held.spend(n)
	}
}
