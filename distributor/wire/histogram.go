package wire

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/duramendb/duramen/duramenpb"
)

// Fields of a Histogram message. Both formats number them alike; only 2.0 has the last one.
const (
	histCountInt       = 1
	histCountFloat     = 2
	histSum            = 3
	histSchema         = 4
	histZeroThreshold  = 5
	histZeroCountInt   = 6
	histZeroCountFloat = 7
	histNegSpans       = 8
	histNegDeltas      = 9
	histNegCounts      = 10
	histPosSpans       = 11
	histPosDeltas      = 12
	histPosCounts      = 13
	histResetHint      = 14
	histTimestamp      = 15
	histCustomValues   = 16
	histStart          = 17
)

// rawHistogram is a histogram before it is known whether it is an integer or a float one.
type rawHistogram struct {
	t, st                int64
	isFloat, zeroIsFloat bool
	count, zeroCount     uint64 // integers, or the bits of doubles
	sum, zeroThreshold   uint64 // bits
	schema               int32
	hint                 histogram.CounterResetHint
	negSpans, posSpans   []histogram.Span
	negDeltas, posDeltas []int64
	negCounts, posCounts []float64
	customValues         []float64
}

func (r *Request) histogram(b []byte, i int, withStart bool) (duramenpb.Histogram, error) {
	var raw rawHistogram
	for i < len(b) {
		start := i
		field, typ, next, err := Tag(b, i)
		if err != nil {
			return duramenpb.Histogram{}, err
		}
		switch {
		case field > histStart || field == histStart && !withStart:
			i, err = Skip(b, start)
		case isRepeated(field):
			i, err = r.histogramList(&raw, b, next, field, typ)
		default:
			i, err = raw.scalar(b, next, field, typ)
		}
		if err != nil {
			return duramenpb.Histogram{}, err
		}
	}
	return raw.build(), nil
}

func isRepeated(field int32) bool {
	return field >= histNegSpans && field <= histPosCounts || field == histCustomValues
}

// scalar reads a field that holds one number; of several the last wins, also among the variants of a oneof.
func (raw *rawHistogram) scalar(b []byte, i int, field int32, typ int) (next int, err error) {
	want := Varint
	switch field {
	case histCountFloat, histSum, histZeroThreshold, histZeroCountFloat:
		want = Fixed64
	}
	if typ != want {
		return 0, WrongType(i, field, typ)
	}
	var v uint64
	if want == Fixed64 {
		v, next, err = Double(b, i)
	} else {
		v, next, err = ReadVarint(b, i)
	}
	switch field {
	case histCountInt, histCountFloat:
		raw.count, raw.isFloat = v, field == histCountFloat
	case histSum:
		raw.sum = v
	case histSchema:
		raw.schema = zigzag32(v)
	case histZeroThreshold:
		raw.zeroThreshold = v
	case histZeroCountInt, histZeroCountFloat:
		raw.zeroCount, raw.zeroIsFloat = v, field == histZeroCountFloat
	case histResetHint:
		raw.hint = histogram.CounterResetHint(v)
	case histTimestamp:
		raw.t = int64(v)
	case histStart:
		raw.st = int64(v)
	}
	return next, err
}

// histogramList reads one occurrence of a repeated field: a span, or one number, or a packed list of numbers.
func (r *Request) histogramList(raw *rawHistogram, b []byte, i int, field int32, typ int) (next int, err error) {
	switch field {
	case histNegSpans:
		raw.negSpans, next, err = r.span(raw.negSpans, b, i, field, typ)
	case histPosSpans:
		raw.posSpans, next, err = r.span(raw.posSpans, b, i, field, typ)
	case histNegDeltas:
		raw.negDeltas, next, err = r.deltas(raw.negDeltas, b, i, field, typ)
	case histPosDeltas:
		raw.posDeltas, next, err = r.deltas(raw.posDeltas, b, i, field, typ)
	case histNegCounts:
		raw.negCounts, next, err = r.doubles(raw.negCounts, b, i, field, typ)
	case histPosCounts:
		raw.posCounts, next, err = r.doubles(raw.posCounts, b, i, field, typ)
	default:
		raw.customValues, next, err = r.doubles(raw.customValues, b, i, field, typ)
	}
	return next, err
}

func (r *Request) span(dst []histogram.Span, b []byte, i int, field int32, typ int) ([]histogram.Span, int, error) {
	if typ != Bytes {
		return nil, 0, WrongType(i, field, typ)
	}
	i, end, err := Delimited(b, i)
	if err != nil {
		return nil, 0, err
	}
	if err := r.charge(2 * costElement); err != nil {
		return nil, 0, err
	}
	var s histogram.Span
	msg := b[:end]
	for i < end {
		start := i
		f, typ, next, err := Tag(msg, i)
		if err != nil {
			return nil, 0, err
		}
		if f > 2 {
			if i, err = Skip(msg, start); err != nil {
				return nil, 0, err
			}
			continue
		}
		if typ != Varint {
			return nil, 0, WrongType(start, f, typ)
		}
		v, next, err := ReadVarint(msg, next)
		if err != nil {
			return nil, 0, err
		}
		if f == 1 {
			s.Offset = zigzag32(v)
		} else {
			s.Length = uint32(v)
		}
		i = next
	}
	return append(dst, s), end, nil
}

func (r *Request) deltas(dst []int64, b []byte, i int, field int32, typ int) ([]int64, int, error) {
	switch typ {
	case Varint:
		v, next, err := ReadVarint(b, i)
		if err != nil {
			return nil, 0, err
		}
		return append(dst, zigzag64(v)), next, r.charge(2 * costElement)
	case Bytes:
	default:
		return nil, 0, WrongType(i, field, typ)
	}
	i, end, err := Delimited(b, i)
	if err != nil {
		return nil, 0, err
	}
	n := countVarints(b[i:end])
	if err := r.charge(n * costElement); err != nil {
		return nil, 0, err
	}
	if dst == nil && n > 0 {
		dst = make([]int64, 0, n)
	}
	for i < end {
		v, next := Uvarint(b[:end], i)
		if next < 0 {
			return nil, 0, Malformed(i, PackedCut)
		}
		dst = append(dst, zigzag64(v))
		i = next
	}
	return dst, end, nil
}

func (r *Request) doubles(dst []float64, b []byte, i int, field int32, typ int) ([]float64, int, error) {
	switch typ {
	case Fixed64:
		v, next, err := Double(b, i)
		if err != nil {
			return nil, 0, err
		}
		return append(dst, math.Float64frombits(v)), next, r.charge(2 * costElement)
	case Bytes:
	default:
		return nil, 0, WrongType(i, field, typ)
	}
	i, end, err := Delimited(b, i)
	if err != nil {
		return nil, 0, err
	}
	if (end-i)%8 != 0 {
		return nil, 0, Malformed(i, PackedCut)
	}
	if err := r.charge(end - i); err != nil {
		return nil, 0, err
	}
	if dst == nil && end > i {
		dst = make([]float64, 0, (end-i)/8)
	}
	for i < end {
		v, next, err := Double(b[:end], i)
		if err != nil {
			return nil, 0, err
		}
		dst = append(dst, math.Float64frombits(v))
		i = next
	}
	return dst, end, nil
}

func (raw *rawHistogram) build() duramenpb.Histogram {
	out := duramenpb.Histogram{T: raw.t, ST: raw.st}
	if raw.isFloat {
		fh := &histogram.FloatHistogram{
			CounterResetHint: raw.hint,
			Schema:           raw.schema,
			ZeroThreshold:    math.Float64frombits(raw.zeroThreshold),
			Count:            math.Float64frombits(raw.count),
			Sum:              math.Float64frombits(raw.sum),
			PositiveSpans:    raw.posSpans,
			NegativeSpans:    raw.negSpans,
			PositiveBuckets:  raw.posCounts,
			NegativeBuckets:  raw.negCounts,
			CustomValues:     raw.customValues,
		}
		if raw.zeroIsFloat {
			fh.ZeroCount = math.Float64frombits(raw.zeroCount)
		}
		out.FH = fh
		return out
	}
	h := &histogram.Histogram{
		CounterResetHint: raw.hint,
		Schema:           raw.schema,
		ZeroThreshold:    math.Float64frombits(raw.zeroThreshold),
		Count:            raw.count,
		Sum:              math.Float64frombits(raw.sum),
		PositiveSpans:    raw.posSpans,
		NegativeSpans:    raw.negSpans,
		PositiveBuckets:  raw.posDeltas,
		NegativeBuckets:  raw.negDeltas,
		CustomValues:     raw.customValues,
	}
	if !raw.zeroIsFloat {
		h.ZeroCount = raw.zeroCount
	}
	out.H = h
	return out
}

func countVarints(b []byte) (n int) {
	for _, c := range b {
		if c < 0x80 {
			n++
		}
	}
	return n
}

func zigzag32(v uint64) int32 {
	u := uint32(v)
	return int32(u>>1) ^ -int32(u&1)
}

func zigzag64(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }
