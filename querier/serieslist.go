package querier

import (
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
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
	attempt := func(ctx context.Context) (err error) {
		q.count.n, q.count.held = n, held{bytes, seatOf(ctx).bytes()}
		found, warnings, err = q.listOnce(ctx, sortSeries, hints, matchers)
		if err != nil || q.tiers.hidden.Empty() {
			return err
		}
		shown, err := q.withoutHidden(ctx, found, hints, matchers)
		if err == nil && len(shown) < len(found) && hints.Limit > 0 {
			// The limit counted what is hidden: once more, and it is applied to what is shown.
			every := *hints
			every.Limit = 0
			if found, warnings, err = q.listOnce(ctx, true, &every, matchers); err != nil {
				return err
			}
			shown, err = q.withoutHidden(ctx, found, &every, matchers)
			shown = shown[:min(len(shown), hints.Limit)]
		}
		found = shown
		return err
	}
	err := q.q.fitting(ctx, func(bool) error { return q.q.again(ctx, always, attempt) })
	if err != nil {
		return storage.ErrSeriesSet(err)
	}
	return &seriesList{left: found, warnings: warnings}
}

func (q *sampleQuerier) listOnce(
	ctx context.Context, sortSeries bool, hints *storage.SelectHints, matchers []*labels.Matcher,
) (found []storage.Series, _ annotations.Annotations, _ error) {
	set := timedSeries{q.selectOnce(ctx, sortSeries, hints, matchers), ctx}
	for set.Next() {
		found = append(found, storage.NewListSeries(set.At().Labels(), nil))
	}
	return found, set.Warnings(), set.Err()
}

// fewSelectors is how many selectors of deletions are asked about one by one.
const fewSelectors = 8

// withoutHidden returns the listed series without those whose samples in the range of the hints are all deleted. Lists come
// from indexes, which do not know that. The samples of series that a deletion means are read for it, and of no others
// unless many selectors mean some.
func (q *sampleQuerier) withoutHidden(
	ctx context.Context, listed []storage.Series, hints *storage.SelectHints, matchers []*labels.Matcher,
) ([]storage.Series, error) {
	hidden := q.tiers.hidden
	var meant []labels.Labels
	for _, s := range listed {
		if len(hidden.Intervals(s.Labels())) > 0 {
			meant = append(meant, s.Labels())
		}
	}
	if len(meant) == 0 {
		return listed, nil
	}
	asked := hidden.SelectorsOf(meant)
	if len(asked) > fewSelectors {
		asked = [][]*labels.Matcher{nil}
	}
	read := *hints
	read.Func, read.Limit = "", 0
	shown := map[string]bool{} // by the labels of those that are meant
	for _, also := range asked {
		n, bytes := q.count.n, q.count.held.bytes // they have been counted
		set := timedSeries{q.selectOnce(ctx, false, &read, slices.Concat(matchers, also)), ctx}
		var it chunkenc.Iterator
		for set.Next() {
			it = set.At().Iterator(it)
			if it.Next() != chunkenc.ValNone {
				shown[string(set.At().Labels().Bytes(nil))] = true
			} else if err := it.Err(); err != nil {
				return nil, err
			}
		}
		if err := set.Err(); err != nil {
			return nil, err
		}
		q.count.n, q.count.held.bytes = n, bytes
	}
	return slices.DeleteFunc(slices.Clone(listed), func(s storage.Series) bool {
		lset := s.Labels()
		return len(hidden.Intervals(lset)) > 0 && !shown[string(lset.Bytes(nil))]
	}), nil
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
