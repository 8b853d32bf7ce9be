package querier

import (
	"context"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

// list reads the labels of all series before it returns, so that it can begin anew when a block is gone or
// when it is too large for its seat.
func (q *sampleQuerier) list(
	ctx context.Context, sortSeries bool, hints *storage.SelectHints, matchers []*labels.Matcher,
) storage.SeriesSet {
	var (
		found    []storage.Series
		warnings annotations.Annotations
	)
	n, bytes := q.count.n, q.count.held.bytes
	attempt := func(ctx context.Context) error {
		found, q.count.n, q.count.held = nil, n, held{bytes, seatOf(ctx).bytes()}
		set := timedSeries{q.selectOnce(ctx, sortSeries, hints, matchers), ctx}
		for set.Next() {
			found = append(found, storage.NewListSeries(set.At().Labels(), nil))
		}
		warnings = set.Warnings()
		return set.Err()
	}
	err := q.q.fitting(ctx, func(bool) error { return q.q.again(ctx, always, attempt) })
	if err != nil {
		return storage.ErrSeriesSet(err)
	}
	return &seriesList{left: found, warnings: warnings}
}

// seriesList is a set of series in memory.
type seriesList struct {
	at       storage.Series
	left     []storage.Series
	warnings annotations.Annotations
}

// Next implements storage.SeriesSet.
func (l *seriesList) Next() bool {
	if len(l.left) == 0 {
		return false
	}
	l.at, l.left = l.left[0], l.left[1:]
	return true
}

// At implements storage.SeriesSet.
func (l *seriesList) At() storage.Series { return l.at }

// Err implements storage.SeriesSet.
func (l *seriesList) Err() error { return nil }

// Warnings implements storage.SeriesSet.
func (l *seriesList) Warnings() annotations.Annotations { return l.warnings }
