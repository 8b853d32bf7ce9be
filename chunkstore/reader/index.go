package reader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/duramendb/duramen/internal/errkind"
)

// blockIndex is the index of one block, whole and in memory. It is immutable and shared.
type blockIndex struct {
	*index.Reader
	// bytes is the size of the index object. What is built beside it, a thirty-second of the label values, is not counted.
	bytes int64
}

// byteSlice is a []byte as the index reader wants it.
type byteSlice []byte

func (b byteSlice) Len() int                    { return len(b) }
func (b byteSlice) Range(start, end int) []byte { return b[start:end] }

// loadIndex fetches and checks the index of a block: magic, table of contents, symbols and the postings table by their
// checksums now, series and postings by theirs when they are read.
func (r *Reader) loadIndex(ctx context.Context, tenant string, id ulid.ULID) (*blockIndex, error) {
	key, start := indexKey(tenant, id), time.Now()
	ix, err := r.fetchIndex(ctx, tenant, id, key)
	if errors.Is(err, ErrDamaged) { // perhaps only on its way
		r.metrics.refetches.WithLabelValues("index").Inc()
		ix, err = r.fetchIndex(ctx, tenant, id, key)
	}
	if err != nil {
		err = objectError(tenant, id, key, err)
		r.metrics.failures.WithLabelValues(errkind.Of(err).String()).Inc()
		return nil, err
	}
	r.metrics.indexSeconds.Observe(time.Since(start).Seconds())
	return ix, nil
}

func (r *Reader) fetchIndex(ctx context.Context, tenant string, id ulid.ULID, key string) (_ *blockIndex, err error) {
	r.metrics.fetches.WithLabelValues("index").Inc()
	body, err := r.bkt.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	r.metrics.fetchedBytes.WithLabelValues("index").Add(float64(len(data)))

	defer recovered(tenant, id, &err)
	ix, err := index.NewReader(byteSlice(data), index.DecodePostingsRaw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return &blockIndex{Reader: ix, bytes: int64(len(data))}, nil
}

// indexReader is a query's view of a blockIndex. It adds what the index reader of Prometheus leaves to the block above
// it, label values and names under matchers.
type indexReader struct{ *blockIndex }

var _ tsdb.IndexReader = indexReader{}

// Close does nothing: the handle of the cache is the querier's.
func (indexReader) Close() error { return nil }

// SortedLabelValues returns the values of a label, in order, of the series that match.
func (r indexReader) SortedLabelValues(
	ctx context.Context, name string, hints *storage.LabelHints, matchers ...*labels.Matcher,
) ([]string, error) {
	if len(matchers) == 0 {
		return r.Reader.SortedLabelValues(ctx, name, hints)
	}
	all, err := r.Reader.SortedLabelValues(ctx, name, nil)
	if err != nil {
		return nil, err
	}
	values, err := r.valuesUnder(ctx, name, all, matchers)
	if err != nil {
		return nil, err
	}
	if hints != nil && hints.Limit > 0 && len(values) > hints.Limit {
		values = values[:hints.Limit]
	}
	return values, nil
}

// LabelValues is SortedLabelValues.
func (r indexReader) LabelValues(
	ctx context.Context, name string, hints *storage.LabelHints, matchers ...*labels.Matcher,
) ([]string, error) {
	return r.SortedLabelValues(ctx, name, hints, matchers...)
}

// LabelNames returns the names of all labels, in order, of the series that match.
func (r indexReader) LabelNames(ctx context.Context, matchers ...*labels.Matcher) ([]string, error) {
	if len(matchers) == 0 {
		return r.Reader.LabelNames(ctx)
	}
	p, err := tsdb.PostingsForMatchers(ctx, r, matchers...)
	if err != nil {
		return nil, err
	}
	return r.LabelNamesFor(ctx, p)
}

// valuesUnder returns those of the sorted values of a label that occur in series that match.
func (r indexReader) valuesUnder(
	ctx context.Context, name string, values []string, matchers []*labels.Matcher,
) ([]string, error) {
	others := false
	for _, m := range matchers {
		if m.Name == name {
			values = slices.DeleteFunc(values, func(v string) bool { return !m.Matches(v) })
		} else {
			others = true
		}
	}
	if !others || len(values) == 0 {
		return values, nil
	}

	matching, err := tsdb.PostingsForMatchers(ctx, r, matchers...)
	if err != nil {
		return nil, err
	}
	candidates := make([]index.Postings, len(values))
	for i, v := range values {
		if candidates[i], err = r.Postings(ctx, name, v); err != nil {
			return nil, err
		}
	}
	found, err := index.FindIntersectingPostings(matching, candidates)
	if err != nil {
		return nil, err
	}
	slices.Sort(found)
	out := make([]string, len(found))
	for i, at := range found {
		out[i] = values[at]
	}
	return out, nil
}
