package distributor

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/duramendb/duramen/duramenpb"
)

// maxStringBytes is the longest label name or value that labels.Labels can hold, limits or not.
const maxStringBytes = 1<<24 - 1

// maxShown bounds what of a refused name or value stands in an answer, in bytes.
const maxShown = 128

// labelLimits are a tenant's limits on labels, asked for once per request that needs them. 0 means none.
type labelLimits struct{ names, nameLength, valueLength int }

// problem says why labels are refused, without the cost of a sentence that nobody may want.
type problem struct {
	reason         duramenpb.Reason
	name, value    string
	present, limit int
}

// checkLabels judges the labels of a series as Prometheus 3 does on remote write, with UTF-8 names, and by the limits.
// It sorts them when they are not, as Prometheus does, and drops those with an empty value, as its TSDB does. ls is
// changed in place; the result shares its memory.
func checkLabels(ls []labels.Label, limits labelLimits) ([]labels.Label, *problem) {
	ls, p := checkPairs(ls, limits)
	if p != nil {
		return nil, p
	}
	if !slices.ContainsFunc(ls, func(l labels.Label) bool { return l.Name == model.MetricNameLabel }) {
		return nil, &problem{reason: duramenpb.ReasonMissingName}
	}
	if limits.names > 0 && len(ls) > limits.names {
		return nil, &problem{reason: duramenpb.ReasonTooManyLabels, present: len(ls), limit: limits.names}
	}
	return ls, nil
}

// checkPairs is checkLabels for what needs no metric name: the labels of an exemplar.
func checkPairs(ls []labels.Label, limits labelLimits) ([]labels.Label, *problem) {
	byName := func(a, b labels.Label) int { return strings.Compare(a.Name, b.Name) }
	if !slices.IsSortedFunc(ls, byName) {
		slices.SortStableFunc(ls, byName)
	}
	for i, l := range ls {
		if i > 0 && l.Name == ls[i-1].Name {
			return nil, &problem{reason: duramenpb.ReasonDuplicateLabel, name: l.Name}
		}
		if p := checkLabel(l, limits); p != nil {
			return nil, p
		}
	}
	return slices.DeleteFunc(ls, func(l labels.Label) bool { return l.Value == "" }), nil
}

func checkLabel(l labels.Label, limits labelLimits) *problem {
	nameLimit, valueLimit := effective(limits.nameLength), effective(limits.valueLength)
	switch {
	case l.Name == "" || !utf8.ValidString(l.Name):
		return &problem{reason: duramenpb.ReasonInvalidLabelName, name: l.Name, value: l.Value}
	case len(l.Name) > nameLimit:
		return &problem{
			reason: duramenpb.ReasonLabelNameTooLong, name: l.Name, present: len(l.Name), limit: nameLimit,
		}
	case len(l.Value) > valueLimit:
		return &problem{
			reason: duramenpb.ReasonLabelValueTooLong, name: l.Name, value: l.Value,
			present: len(l.Value), limit: valueLimit,
		}
	case !utf8.ValidString(l.Value):
		return &problem{reason: duramenpb.ReasonInvalidLabelValue, name: l.Name, value: l.Value}
	}
	return nil
}

func effective(limit int) int {
	if limit <= 0 {
		return maxStringBytes
	}
	return min(limit, maxStringBytes)
}

// text says what is wrong, with the limit and the present number.
func (p *problem) text() string {
	switch p.reason {
	case duramenpb.ReasonMissingName:
		return "no label " + model.MetricNameLabel
	case duramenpb.ReasonInvalidLabelName:
		if p.name == "" {
			return fmt.Sprintf("a label with the value %s has no name", show(p.value))
		}
		return fmt.Sprintf("the label name %s is not valid UTF-8", show(p.name))
	case duramenpb.ReasonInvalidLabelValue:
		return fmt.Sprintf("the value %s of label %s is not valid UTF-8", show(p.value), show(p.name))
	case duramenpb.ReasonDuplicateLabel:
		return fmt.Sprintf("the label %s occurs more than once", show(p.name))
	case duramenpb.ReasonTooManyLabels:
		return fmt.Sprintf("%d labels, the limit max_label_names is %d", p.present, p.limit)
	case duramenpb.ReasonLabelNameTooLong:
		return fmt.Sprintf("the label name %s has %d bytes, the limit max_label_name_length is %d", show(p.name),
			p.present, p.limit)
	default:
		return fmt.Sprintf("the value %s of label %s has %d bytes, the limit max_label_value_length is %d",
			show(p.value), show(p.name), p.present, p.limit)
	}
}

func show(s string) string {
	if len(s) > maxShown {
		return fmt.Sprintf("%q…", s[:maxShown])
	}
	return fmt.Sprintf("%q", s)
}

// checkHistogram judges a histogram as Prometheus' remote write receiver does: a resolution above the highest stored
// schema is reduced, everything inconsistent is refused. maxBuckets 0 means no limit.
func checkHistogram(h *duramenpb.Histogram, maxBuckets int) (duramenpb.Reason, string) {
	var (
		err     error
		buckets int
	)
	switch {
	case h.H != nil:
		if tooFine(h.H.Schema) {
			err = h.H.ReduceResolution(histogram.ExponentialSchemaMax)
		}
		if err == nil {
			err = h.H.Validate()
		}
		buckets = len(h.H.PositiveBuckets) + len(h.H.NegativeBuckets)
	case h.FH != nil:
		if tooFine(h.FH.Schema) {
			err = h.FH.ReduceResolution(histogram.ExponentialSchemaMax)
		}
		if err == nil {
			err = h.FH.Validate()
		}
		buckets = len(h.FH.PositiveBuckets) + len(h.FH.NegativeBuckets)
	}
	switch {
	case err != nil:
		return duramenpb.ReasonInvalidHistogram, err.Error()
	case maxBuckets > 0 && buckets > maxBuckets:
		return duramenpb.ReasonHistogramTooLarge,
			fmt.Sprintf("%d buckets, the limit max_histogram_buckets is %d", buckets, maxBuckets)
	}
	return "", ""
}

func tooFine(schema int32) bool {
	return histogram.IsExponentialSchemaReserved(schema) && schema > histogram.ExponentialSchemaMax
}
