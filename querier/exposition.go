package querier

import (
	"cmp"
	"slices"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
)

// exposed groups samples by metric name for the exposition of /federate, in the order of names and within one of labels.
// Floats are untyped: a label set does not say what they are. A name that has floats and histograms gets a family for
// each, which Prometheus' parsers take. Histograms with exponential buckets are left out unless native ones can be told.
func exposed(samples []promql.Sample, native bool) []*dto.MetricFamily {
	type entry struct {
		name   string
		typ    dto.MetricType
		sample *promql.Sample
	}
	entries := make([]entry, 0, len(samples))
	for i := range samples {
		s := &samples[i]
		name := s.Metric.Get(labels.MetricName)
		if name == "" || s.H != nil && !native && !s.H.UsesCustomBuckets() {
			continue
		}
		entries = append(entries, entry{name, exposedType(s.H), s})
	}
	slices.SortStableFunc(entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.typ, b.typ))
	})
	var out []*dto.MetricFamily
	for i, e := range entries {
		if i == 0 || entries[i-1].name != e.name || entries[i-1].typ != e.typ {
			out = append(out, &dto.MetricFamily{Name: new(e.name), Type: e.typ.Enum()})
		}
		last := out[len(out)-1]
		last.Metric = append(last.Metric, exposedMetric(e.sample))
	}
	return out
}

func exposedType(h *histogram.FloatHistogram) dto.MetricType {
	switch {
	case h == nil:
		return dto.MetricType_UNTYPED
	case h.CounterResetHint == histogram.GaugeType:
		return dto.MetricType_GAUGE_HISTOGRAM
	default:
		return dto.MetricType_HISTOGRAM
	}
}

// exposedMetric is one line of the exposition. A series without the label instance gets an empty one, so that the
// Prometheus which scrapes it does not put the name of the server in its place.
func exposedMetric(s *promql.Sample) *dto.Metric {
	m := &dto.Metric{TimestampMs: new(s.T)}
	s.Metric.Range(func(l labels.Label) {
		if l.Name != labels.MetricName && l.Value != "" {
			m.Label = append(m.Label, &dto.LabelPair{Name: new(l.Name), Value: new(l.Value)})
		}
	})
	if !s.Metric.Has(model.InstanceLabel) {
		m.Label = append(m.Label, &dto.LabelPair{Name: new(model.InstanceLabel), Value: new("")})
	}
	switch {
	case s.H == nil:
		m.Untyped = &dto.Untyped{Value: new(s.F)}
	case s.H.UsesCustomBuckets():
		m.Histogram = classicHistogram(s.H)
	default:
		m.Histogram = nativeHistogram(s.H)
	}
	return m
}

// nativeHistogram is a histogram with exponential buckets. Its counts are floats, whatever was stored.
func nativeHistogram(h *histogram.FloatHistogram) *dto.Histogram {
	return &dto.Histogram{
		SampleCountFloat: new(h.Count), SampleSum: new(h.Sum), Schema: new(h.Schema),
		ZeroThreshold: new(h.ZeroThreshold), ZeroCountFloat: new(h.ZeroCount),
		PositiveSpan: spans(h.PositiveSpans), PositiveCount: h.PositiveBuckets,
		NegativeSpan: spans(h.NegativeSpans), NegativeCount: h.NegativeBuckets,
	}
}

func spans(in []histogram.Span) []*dto.BucketSpan {
	var out []*dto.BucketSpan
	for _, s := range in {
		out = append(out, &dto.BucketSpan{Offset: new(s.Offset), Length: new(s.Length)})
	}
	return out
}

// classicHistogram is a histogram with custom buckets as a classic one, which every format can tell: cumulative counts up
// to each bound. The bucket up to infinity is the count.
func classicHistogram(h *histogram.FloatHistogram) *dto.Histogram {
	counts := make([]float64, len(h.CustomValues)+1)
	for it := h.PositiveBucketIterator(); it.Next(); {
		b := it.At()
		counts[b.Index] = b.Count
	}
	out, sum := &dto.Histogram{SampleCountFloat: new(h.Count), SampleSum: new(h.Sum)}, 0.0
	for i, bound := range h.CustomValues {
		sum += counts[i]
		out.Bucket = append(out.Bucket, &dto.Bucket{UpperBound: new(bound), CumulativeCountFloat: new(sum)})
	}
	return out
}
