package ingestrpc

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/duramendb/duramen/duramenpb"
)

// Readable is what is read of an ingester; *ingester.Ingester is one.
type Readable interface {
	Plan(ctx context.Context, tenantID string, view duramenpb.View, mint, maxt int64) (duramenpb.Held, error)
	ChunkQuerier(ctx context.Context, tenantID string, view duramenpb.View, mint, maxt int64) (
		storage.ChunkQuerier, duramenpb.Held, error)
	Exemplars(ctx context.Context, tenantID string, mint, maxt int64, matchers ...[]*labels.Matcher) (
		[]exemplar.QueryResult, error)
	Metadata(ctx context.Context, tenantID, family string) ([]duramenpb.Metadata, error)
	HeadStats(ctx context.Context, tenantID string, limit int) (duramenpb.HeadStats, error)
	UserStats(ctx context.Context, tenantID string) (duramenpb.UserStats, error)
}

// LocalReader answers what queries ask, from an ingester of this process. Safe for concurrent use.
type LocalReader struct{ ingester Readable }

// NewLocalReader returns a reader of what ingester has.
func NewLocalReader(ingester Readable) *LocalReader { return &LocalReader{ingester} }

// Plan says what a Select would say beside its answer, and keeps nothing open.
func (l *LocalReader) Plan(ctx context.Context, tenantID string, view duramenpb.View, mint, maxt int64) (
	duramenpb.Held, error,
) {
	return l.ingester.Plan(ctx, tenantID, view, mint, maxt)
}

// Select returns the series that match all matchers, and what the ingester owes of them to view. hints may be nil; its
// times, which may be narrower than mint and maxt, decide then.
//
// Until Close the ingester holds back cuts of the tenant.
func (l *LocalReader) Select(
	ctx context.Context, tenantID string, view duramenpb.View, mint, maxt int64, hints *storage.SelectHints,
	matchers ...*labels.Matcher,
) (duramenpb.Selection, error) {
	q, held, err := l.ingester.ChunkQuerier(ctx, tenantID, view, mint, maxt)
	if err != nil {
		return duramenpb.Selection{Held: held}, err
	}
	return duramenpb.Selection{
		Held: held, Series: q.Select(ctx, true, untrimmed(hints, mint, maxt), slices.Clone(matchers)...),
		Close: func() { _ = q.Close() },
	}, nil
}

// untrimmed returns hints by which chunks come as they are: to cut them at the borders would mean to encode two chunks of
// each series anew.
func untrimmed(hints *storage.SelectHints, mint, maxt int64) *storage.SelectHints {
	h := storage.SelectHints{Start: mint, End: maxt}
	if hints != nil {
		h = *hints
	}
	h.DisableTrimming = true
	return &h
}

// LabelValues returns the values of a label of series that match all matchers, in order. hints may be nil. The strings
// are copies.
func (l *LocalReader) LabelValues(
	ctx context.Context, tenantID string, view duramenpb.View, mint, maxt int64, name string, hints *storage.LabelHints,
	matchers ...*labels.Matcher,
) ([]string, duramenpb.Held, error) {
	return labelsOf(ctx, l.ingester, tenantID, view, mint, maxt, func(q storage.ChunkQuerier) ([]string, error) {
		values, _, err := q.LabelValues(ctx, name, hints, slices.Clone(matchers)...)
		return cloneAll(values), err
	})
}

// LabelNames is LabelValues for the names of labels.
func (l *LocalReader) LabelNames(
	ctx context.Context, tenantID string, view duramenpb.View, mint, maxt int64, hints *storage.LabelHints,
	matchers ...*labels.Matcher,
) ([]string, duramenpb.Held, error) {
	return labelsOf(ctx, l.ingester, tenantID, view, mint, maxt, func(q storage.ChunkQuerier) ([]string, error) {
		names, _, err := q.LabelNames(ctx, hints, slices.Clone(matchers)...)
		return cloneAll(names), err
	})
}

// labelsOf asks a querier that is open for this one question.
func labelsOf(
	ctx context.Context, ingester Readable, tenantID string, view duramenpb.View, mint, maxt int64,
	ask func(q storage.ChunkQuerier) ([]string, error),
) (values []string, held duramenpb.Held, err error) {
	q, held, err := ingester.ChunkQuerier(ctx, tenantID, view, mint, maxt)
	if err != nil {
		return nil, held, err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	values, err = ask(q)
	return values, held, err
}

// cloneAll copies strings that may lie in a mapped file.
func cloneAll(values []string) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = strings.Clone(v)
	}
	return out
}

// Exemplars returns those with mint ≤ t ≤ maxt, in milliseconds, of the series that match all matchers of one of the
// sets, by series.
func (l *LocalReader) Exemplars(
	ctx context.Context, tenantID string, mint, maxt int64, matchers ...[]*labels.Matcher,
) ([]exemplar.QueryResult, error) {
	return l.ingester.Exemplars(ctx, tenantID, mint, maxt, matchers...)
}

// Metadata returns that of one metric family or, when it is empty, of all of them by name; of each family the one that
// was told last comes first.
func (l *LocalReader) Metadata(ctx context.Context, tenantID, family string) ([]duramenpb.Metadata, error) {
	return l.ingester.Metadata(ctx, tenantID, family)
}

// HeadStats says what the series in memory consist of, with the limit largest of each list.
func (l *LocalReader) HeadStats(ctx context.Context, tenantID string, limit int) (duramenpb.HeadStats, error) {
	return l.ingester.HeadStats(ctx, tenantID, limit)
}

// UserStats says how much the tenant writes here.
func (l *LocalReader) UserStats(ctx context.Context, tenantID string) (duramenpb.UserStats, error) {
	return l.ingester.UserStats(ctx, tenantID)
}
