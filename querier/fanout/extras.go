package fanout

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/duramendb/duramen/duramenpb"
)

// everything is where questions begin that are about no time: a zone that lost a disk is complete for those that are
// about now.
const everything = math.MaxInt64

// extra asks a quorum what belongs to no view.
func extra[T any](
	ctx context.Context, f *Fanout, tenantID, what string, mint int64, ask func(context.Context, Member) (T, error),
) (gathered[T], error) {
	got, err := gatherPatiently(ctx, f, question[T]{
		what: what, mint: mint, ask: ask,
		probe: func(ctx context.Context, m Member) error {
			_, err := m.Plan(ctx, tenantID, duramenpb.View{Cut: math.MinInt64}, math.MaxInt64, math.MaxInt64)
			return err
		},
	})
	if err != nil {
		return got, fmt.Errorf("%s of tenant %s: %w", what, tenantID, err)
	}
	return got, nil
}

// Exemplars implements querier.Extras. Those of replicas that are equal count once.
func (f *Fanout) Exemplars(
	ctx context.Context, tenantID string, mint, maxt int64, matchers ...[]*labels.Matcher,
) ([]exemplar.QueryResult, error) {
	got, err := extra(ctx, f, tenantID, "exemplars", everything,
		func(ctx context.Context, m Member) ([]exemplar.QueryResult, error) {
			return m.Exemplars(ctx, tenantID, mint, maxt, matchers...)
		})
	if err != nil {
		return nil, err
	}
	var all []exemplar.QueryResult
	for _, r := range got.replies {
		all = append(all, r.value...)
	}
	return mergeExemplars(all), nil
}

// mergeExemplars returns the series by labels, each once, with its distinct exemplars in order of time.
func mergeExemplars(all []exemplar.QueryResult) []exemplar.QueryResult {
	slices.SortStableFunc(all, func(a, b exemplar.QueryResult) int { return labels.Compare(a.SeriesLabels, b.SeriesLabels) })
	out := []exemplar.QueryResult{}
	for _, r := range all {
		if n := len(out) - 1; n >= 0 && labels.Equal(out[n].SeriesLabels, r.SeriesLabels) {
			out[n].Exemplars = append(slices.Clip(out[n].Exemplars), r.Exemplars...)
			continue
		}
		out = append(out, r)
	}
	for i := range out {
		es := slices.Clone(out[i].Exemplars)
		slices.SortStableFunc(es, func(a, b exemplar.Exemplar) int {
			if n := cmp.Compare(a.Ts, b.Ts); n != 0 {
				return n
			}
			if n := labels.Compare(a.Labels, b.Labels); n != 0 {
				return n
			}
			return cmp.Compare(math.Float64bits(a.Value), math.Float64bits(b.Value))
		})
		out[i].Exemplars = slices.CompactFunc(es, func(a, b exemplar.Exemplar) bool {
			return a.Ts == b.Ts && math.Float64bits(a.Value) == math.Float64bits(b.Value) && labels.Equal(a.Labels, b.Labels)
		})
	}
	return out
}

// Metadata implements querier.Extras. Ingesters do not say when they were told: what most of them were told last comes
// first.
func (f *Fanout) Metadata(ctx context.Context, tenantID, family string) ([]duramenpb.Metadata, error) {
	got, err := extra(ctx, f, tenantID, "metadata", everything,
		func(ctx context.Context, m Member) ([]duramenpb.Metadata, error) {
			return m.Metadata(ctx, tenantID, family)
		})
	if err != nil {
		return nil, err
	}
	var lists [][]duramenpb.Metadata
	for _, r := range got.replies {
		lists = append(lists, r.value)
	}
	return mergeMetadata(lists), nil
}

// told is what some ingesters know of a family.
type told struct {
	duramenpb.Metadata
	// place is the best that it has in a list of the family, from 0, which is the latest; by says how many lists have it
	// there.
	place, by int
}

// mergeMetadata merges lists that are by family, in each the latest first.
func mergeMetadata(lists [][]duramenpb.Metadata) []duramenpb.Metadata {
	known := map[duramenpb.Metadata]*told{}
	var all []*told
	for _, list := range lists {
		place := 0
		for i, m := range list {
			if place++; i == 0 || list[i-1].Family != m.Family {
				place = 0
			}
			t, ok := known[m]
			switch {
			case !ok:
				t = &told{m, place, 1}
				known[m], all = t, append(all, t)
			case place == t.place:
				t.by++
			case place < t.place:
				t.place, t.by = place, 1
			}
		}
	}
	slices.SortFunc(all, func(a, b *told) int {
		return cmp.Or(cmp.Compare(a.Family, b.Family), cmp.Compare(a.place, b.place), cmp.Compare(b.by, a.by),
			cmp.Compare(a.Type, b.Type), cmp.Compare(a.Help, b.Help), cmp.Compare(a.Unit, b.Unit))
	})
	out := make([]duramenpb.Metadata, len(all))
	for i, t := range all {
		out[i] = t.Metadata
	}
	return out
}
