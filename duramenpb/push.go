// Package duramenpb holds the messages that services exchange: one tenant's batch of samples on its way to an
// ingester, the ingester's verdict, and the bounds of a read of recent data. It imports nothing of ours and knows no
// transport. Read package distributor next for who builds a Batch, and package ingester for who stores it.
package duramenpb

import (
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
)

// Batch is a part of one tenant's remote write, decoded: series with the samples that belong to them.
//
// The samples of all series lie in shared slices, each series' after those of the one before it; a Series says where
// its own end. The receiver may keep label sets and histograms and nothing else: the slices are reused by their owner,
// the distributor, once Push returned.
type Batch struct {
	// Incarnation is the life of the tenant's TSDB to which the Refs belong; 0 when there are none.
	Incarnation uint64
	Series      []Series
	Floats      []Float
	Histograms  []Histogram
	Exemplars   []Exemplar
	// Metadata is per metric family and belongs to no series. It is kept in bounded memory only.
	Metadata []Metadata
}

// Series is one occurrence of a series in a Batch. A series may occur more than once.
type Series struct {
	// Ref is the reference that an earlier push to the same incarnation returned. 0 means: see Labels.
	Ref uint64
	// Labels is the label set, valid and sorted. Empty when Ref is set.
	Labels labels.Labels
	// FloatsEnd, HistogramsEnd and ExemplarsEnd are the indexes behind this series' last entry in the Batch's slices.
	FloatsEnd, HistogramsEnd, ExemplarsEnd int
}

// Float is a float sample. T and ST are milliseconds since the Unix epoch; ST is the start timestamp, 0 when unknown.
type Float struct {
	T, ST int64
	V     float64
}

// Histogram is a native histogram sample: H is set for integer histograms, FH for float ones, never both.
type Histogram struct {
	T, ST int64
	H     *histogram.Histogram
	FH    *histogram.FloatHistogram
}

// Exemplar is an example behind a sample of its series. T is in milliseconds since the Unix epoch.
type Exemplar struct {
	T      int64
	V      float64
	Labels labels.Labels
}

// Metadata describes a metric family. Type is Prometheus' lower-case name of the type ("counter", "gauge", …).
type Metadata struct {
	Family, Type, Help, Unit string
}

// PushResult is an ingester's verdict on a Batch, complete when Push returned no error: every sample is either stored,
// or refused by name in Refused, or belongs to a series in Stale.
type PushResult struct {
	// Incarnation names the TSDB's present life; references hold until it changes.
	Incarnation uint64
	// Restarts counts how often a TSDB among the replicas began a life, as far as this process has seen: metadata that was
	// passed on before may be known to nobody any more. It is of the process that answers, and does not travel.
	Restarts uint64
	// Refs has one reference for each Series of the Batch, in order; 0 where the ingester holds no such series. An answer
	// that came over the network tells references of series that went with labels only: it has 0 for the others, and no
	// Refs at all when there are no such series.
	Refs []uint64
	// Stale lists the indexes of series that came by reference and are unknown. Nothing of them was applied: send them
	// again with labels.
	Stale []int
	// Refused lists what can never be stored as it was sent, at most one entry for each series and reason.
	Refused []Refusal
	// Floats, Histograms and Exemplars count what is stored now, equal samples that were already held included.
	Floats, Histograms, Exemplars int
}

// Reset empties r and keeps its memory.
func (r *PushResult) Reset() {
	*r = PushResult{Refs: r.Refs[:0], Stale: r.Stale[:0], Refused: r.Refused[:0]}
}

// Refusal is a permanent refusal of samples of one series.
type Refusal struct {
	// Series is the index into the Batch's Series.
	Series int
	Reason Reason
	// Floats and Histograms count the samples refused for this reason.
	Floats, Histograms int
	// Samples names them: a float by its index in the Batch's Floats, a histogram by the complement (^) of its index in
	// Histograms. In no order.
	Samples []int32
	// Timestamp is the first refused sample's, in milliseconds since the Unix epoch.
	Timestamp int64
	// Detail says what was wrong, with the limit and the present value; it ends up in the answer to the sender.
	Detail string
}

// Reason is why samples were refused for good. It is a label value of a metric: the set is closed.
type Reason string

// Reasons that the distributor finds.
const (
	ReasonMissingName       Reason = "missing_metric_name"
	ReasonInvalidLabelName  Reason = "invalid_label_name"
	ReasonInvalidLabelValue Reason = "invalid_label_value"
	ReasonDuplicateLabel    Reason = "duplicate_label_name"
	ReasonTooManyLabels     Reason = "too_many_labels"
	ReasonLabelNameTooLong  Reason = "label_name_too_long"
	ReasonLabelValueTooLong Reason = "label_value_too_long"
	ReasonTooFarInFuture    Reason = "too_far_in_future"
	ReasonInvalidHistogram  Reason = "invalid_histogram"
	ReasonHistogramTooLarge Reason = "histogram_too_many_buckets"
)

// Reasons that the ingester finds.
const (
	ReasonTooOld      Reason = "too_old"
	ReasonOutOfOrder  Reason = "out_of_order"
	ReasonDuplicate   Reason = "duplicate_timestamp"
	ReasonSeriesLimit Reason = "series_limit"
)
