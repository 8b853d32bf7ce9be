package loadverify

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"

	"github.com/duramendb/duramen/internal/seriesgen"
)

// sample is a sample as an answer shows it: a float V, or one of the histograms.
type sample struct {
	t        int64 // milliseconds since the Unix epoch
	v        float64
	h        *histogram.Histogram
	fh       *histogram.FloatHistogram
	rendered *rendered
}

// rendered is a histogram as the query API shows it: neither its schema nor the type of its counts can be told.
type rendered struct {
	count, sum float64
	buckets    []bucket
}

// bucket is one bucket that is not empty. Rule says which bounds belong to it, as the query API numbers them.
type bucket struct {
	rule                int
	lower, upper, count float64
}

// The rules of bounds in the query API.
const (
	openLeft   = 0
	openRight  = 1
	openBoth   = 2
	closedBoth = 3
)

// sameBits compares a sample with what was sent, bit by bit: floats with the payload of their NaN, histograms with type,
// schema and buckets. Counter reset hints are not part of what was sent; the TSDB makes them.
func sameBits(want seriesgen.Sample, got *sample) bool {
	switch {
	case got.rendered != nil:
		return false
	case want.H != nil:
		return got.h != nil && got.fh == nil && got.h.Equals(want.H)
	case want.FH != nil:
		return got.fh != nil && got.h == nil && got.fh.Equals(want.FH)
	default:
		return got.h == nil && got.fh == nil && math.Float64bits(got.v) == math.Float64bits(want.V)
	}
}

// sameShown compares a sample with what the query API shows of what was sent. All NaN look alike there, and stale markers
// are not shown at all.
func sameShown(want seriesgen.Sample, got *sample) bool {
	fh := want.FH
	if want.H != nil {
		fh = want.H.ToFloat(nil)
	}
	if fh == nil {
		return got.rendered == nil && got.h == nil && got.fh == nil && !want.Stale() &&
			(got.v == want.V || math.IsNaN(got.v) && math.IsNaN(want.V))
	}
	return got.rendered != nil && got.rendered.same(render(fh))
}

// render does what the query API does with a histogram.
func render(fh *histogram.FloatHistogram) *rendered {
	r := &rendered{count: fh.Count, sum: fh.Sum}
	for it := fh.AllBucketIterator(); it.Next(); {
		b := it.At()
		if b.Count == 0 {
			continue
		}
		rule := openBoth
		switch {
		case b.LowerInclusive && b.UpperInclusive:
			rule = closedBoth
		case b.LowerInclusive:
			rule = openRight
		case b.UpperInclusive:
			rule = openLeft
		}
		r.buckets = append(r.buckets, bucket{rule, b.Lower, b.Upper, b.Count})
	}
	return r
}

func (r *rendered) same(o *rendered) bool {
	if math.Float64bits(r.count) != math.Float64bits(o.count) || math.Float64bits(r.sum) != math.Float64bits(o.sum) ||
		len(r.buckets) != len(o.buckets) {
		return false
	}
	for i, b := range r.buckets {
		if b != o.buckets[i] {
			return false
		}
	}
	return true
}

// String returns the histogram in one line.
func (r *rendered) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "{count:%v, sum:%v", r.count, r.sum)
	for _, b := range r.buckets {
		fmt.Fprintf(&s, ", %c%v,%v%c:%v", "([(["[b.rule&3], b.lower, b.upper, "]))]"[b.rule&3], b.count)
	}
	return s.String() + "}"
}

// String returns the value, with the bits of a NaN.
func (s *sample) String() string {
	switch {
	case s.rendered != nil:
		return "histogram " + s.rendered.String()
	case s.h != nil:
		return "integer histogram " + s.h.String()
	case s.fh != nil:
		return "float histogram " + s.fh.String()
	case value.IsStaleNaN(s.v):
		return "stale marker"
	case math.IsNaN(s.v):
		return fmt.Sprintf("NaN (%016x)", math.Float64bits(s.v))
	default:
		return strconv.FormatFloat(s.v, 'g', -1, 64)
	}
}

// wanted returns what was sent, for messages.
func wanted(s seriesgen.Sample) string {
	return (&sample{v: s.V, h: s.H, fh: s.FH}).String()
}
