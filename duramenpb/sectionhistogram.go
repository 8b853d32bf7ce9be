package duramenpb

import (
	"encoding/binary"

	"github.com/prometheus/prometheus/model/histogram"
)

// The first byte of a histogram: its counter reset hint, and which of the optional parts follow.
const (
	hintMask     = 3
	partPositive = 1 << 2 // spans and buckets of positive values
	partNegative = 1 << 3
	partCustom   = 1 << 4 // custom bounds
	partZero     = 1 << 5 // threshold and count of the zero bucket
	knownParts   = hintMask | partPositive | partNegative | partCustom | partZero
)

// appendHistogram appends a histogram of integers: counts of buckets are deltas, as they are in memory.
func appendHistogram(dst []byte, h *histogram.Histogram) []byte {
	at := len(dst)
	dst = append(dst, byte(h.CounterResetHint)&hintMask)
	dst = binary.AppendVarint(dst, int64(h.Schema))
	dst = binary.AppendUvarint(dst, h.Count)
	dst = appendFloat(dst, h.Sum)
	if isSet(h.ZeroThreshold) || h.ZeroCount != 0 {
		dst[at] |= partZero
		dst = binary.AppendUvarint(appendFloat(dst, h.ZeroThreshold), h.ZeroCount)
	}
	if len(h.PositiveSpans)+len(h.PositiveBuckets) > 0 {
		dst[at] |= partPositive
		dst = appendDeltas(appendSpans(dst, h.PositiveSpans), h.PositiveBuckets)
	}
	if len(h.NegativeSpans)+len(h.NegativeBuckets) > 0 {
		dst[at] |= partNegative
		dst = appendDeltas(appendSpans(dst, h.NegativeSpans), h.NegativeBuckets)
	}
	if len(h.CustomValues) > 0 {
		dst[at] |= partCustom
		dst = appendFloats(dst, h.CustomValues)
	}
	return dst
}

// appendFloatHistogram appends a histogram of floats: counts of buckets are absolute, as they are in memory.
func appendFloatHistogram(dst []byte, h *histogram.FloatHistogram) []byte {
	at := len(dst)
	dst = append(dst, byte(h.CounterResetHint)&hintMask)
	dst = binary.AppendVarint(dst, int64(h.Schema))
	dst = appendFloat(appendFloat(dst, h.Count), h.Sum)
	if isSet(h.ZeroThreshold) || isSet(h.ZeroCount) {
		dst[at] |= partZero
		dst = appendFloat(appendFloat(dst, h.ZeroThreshold), h.ZeroCount)
	}
	if len(h.PositiveSpans)+len(h.PositiveBuckets) > 0 {
		dst[at] |= partPositive
		dst = appendFloats(appendSpans(dst, h.PositiveSpans), h.PositiveBuckets)
	}
	if len(h.NegativeSpans)+len(h.NegativeBuckets) > 0 {
		dst[at] |= partNegative
		dst = appendFloats(appendSpans(dst, h.NegativeSpans), h.NegativeBuckets)
	}
	if len(h.CustomValues) > 0 {
		dst[at] |= partCustom
		dst = appendFloats(dst, h.CustomValues)
	}
	return dst
}

func appendSpans(dst []byte, spans []histogram.Span) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(spans)))
	for _, s := range spans {
		dst = binary.AppendUvarint(binary.AppendVarint(dst, int64(s.Offset)), uint64(s.Length))
	}
	return dst
}

func appendDeltas(dst []byte, deltas []int64) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(deltas)))
	for _, d := range deltas {
		dst = binary.AppendVarint(dst, d)
	}
	return dst
}

func appendFloats(dst []byte, values []float64) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(values)))
	for _, v := range values {
		dst = appendFloat(dst, v)
	}
	return dst
}

// histogram reads what appendHistogram wrote into memory of its own.
func (d *decoder) histogram() *histogram.Histogram {
	parts := d.byte()
	h := &histogram.Histogram{
		CounterResetHint: histogram.CounterResetHint(parts & hintMask),
		Schema:           d.int32(), Count: d.uvarint(), Sum: d.float(),
	}
	if parts&partZero != 0 {
		h.ZeroThreshold, h.ZeroCount = d.float(), d.uvarint()
	}
	if parts&partPositive != 0 {
		h.PositiveSpans, h.PositiveBuckets = d.spans(), d.deltas()
	}
	if parts&partNegative != 0 {
		h.NegativeSpans, h.NegativeBuckets = d.spans(), d.deltas()
	}
	if parts&partCustom != 0 {
		h.CustomValues = d.floats()
	}
	if parts&^knownParts != 0 {
		d.fail("histogram of unknown parts")
	}
	return h
}

// floatHistogram reads what appendFloatHistogram wrote into memory of its own.
func (d *decoder) floatHistogram() *histogram.FloatHistogram {
	parts := d.byte()
	h := &histogram.FloatHistogram{
		CounterResetHint: histogram.CounterResetHint(parts & hintMask),
		Schema:           d.int32(), Count: d.float(), Sum: d.float(),
	}
	if parts&partZero != 0 {
		h.ZeroThreshold, h.ZeroCount = d.float(), d.float()
	}
	if parts&partPositive != 0 {
		h.PositiveSpans, h.PositiveBuckets = d.spans(), d.floats()
	}
	if parts&partNegative != 0 {
		h.NegativeSpans, h.NegativeBuckets = d.spans(), d.floats()
	}
	if parts&partCustom != 0 {
		h.CustomValues = d.floats()
	}
	if parts&^knownParts != 0 {
		d.fail("histogram of unknown parts")
	}
	return h
}

func (d *decoder) spans() []histogram.Span {
	n := d.count(2)
	if n == 0 {
		return nil
	}
	spans := make([]histogram.Span, n)
	for i := range spans {
		spans[i] = histogram.Span{Offset: d.int32(), Length: d.uint32()}
	}
	return spans
}

func (d *decoder) deltas() []int64 {
	n := d.count(1)
	if n == 0 {
		return nil
	}
	deltas := make([]int64, n)
	for i := range deltas {
		deltas[i] = d.varint()
	}
	return deltas
}

func (d *decoder) floats() []float64 {
	n := d.count(1)
	if n == 0 {
		return nil
	}
	values := make([]float64, n)
	for i := range values {
		values[i] = d.float()
	}
	return values
}
