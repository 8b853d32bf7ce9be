package fanout

import (
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/duramendb/duramen/duramenpb"
)

// listSlack is how much longer the lists are that ingesters are asked for: what is among the first of all need not be among
// the first of each.
const listSlack = 3

// HeadStats implements querier.Extras. A series counts once, though its replicas lie in several zones: numbers of series,
// chunks and bytes are added up by zone, and the largest zone counts; with more zones than copies, each of which has a part
// of the series, all zones count and the sum is divided by the copies. Numbers of values and of label pairs are those of
// the ingester that has most, since two may have the same: the truth is that or more. Lists are put together from those of
// the ingesters, so that what is large in all and in the list of none is missing.
func (f *Fanout) HeadStats(ctx context.Context, tenantID string, limit int) (duramenpb.HeadStats, error) {
	got, err := extra(ctx, f, tenantID, "statistics", everything,
		func(ctx context.Context, m Member) (duramenpb.HeadStats, error) {
			return m.HeadStats(ctx, tenantID, limit*listSlack)
		})
	if err != nil {
		return duramenpb.HeadStats{}, err
	}
	c := got.counting()
	sum := func(of func(duramenpb.HeadStats) uint64) uint64 {
		return uint64(math.Round(zoned(got, c, func(s duramenpb.HeadStats) float64 { return float64(of(s)) })))
	}
	out := duramenpb.HeadStats{
		Series: sum(func(s duramenpb.HeadStats) uint64 { return s.Series }),
		Chunks: int64(sum(func(s duramenpb.HeadStats) uint64 { return uint64(max(0, s.Chunks)) })), //nolint:gosec // a count
	}
	for _, r := range got.replies {
		s := r.value
		out.LabelPairs = max(out.LabelPairs, s.LabelPairs)
		if s.Series == 0 {
			continue
		}
		if out.MinTime == 0 || s.MinTime < out.MinTime {
			out.MinTime = s.MinTime
		}
		out.MaxTime = max(out.MaxTime, s.MaxTime)
	}
	list := func(most bool, of func(duramenpb.HeadStats) []duramenpb.Count) []duramenpb.Count {
		return largest(limit, most, c, got, of)
	}
	out.SeriesByMetric = list(false, func(s duramenpb.HeadStats) []duramenpb.Count { return s.SeriesByMetric })
	out.SeriesByPair = list(false, func(s duramenpb.HeadStats) []duramenpb.Count { return s.SeriesByPair })
	out.ValuesByLabel = list(true, func(s duramenpb.HeadStats) []duramenpb.Count { return s.ValuesByLabel })
	out.BytesByLabel = list(false, func(s duramenpb.HeadStats) []duramenpb.Count { return s.BytesByLabel })
	return out, nil
}

// UserStats says how much a tenant writes to the cluster. Series and samples count once, as in HeadStats.
func (f *Fanout) UserStats(ctx context.Context, tenantID string) (duramenpb.UserStats, error) {
	got, err := extra(ctx, f, tenantID, "statistics", everything,
		func(ctx context.Context, m Member) (duramenpb.UserStats, error) { return m.UserStats(ctx, tenantID) })
	if err != nil {
		return duramenpb.UserStats{}, err
	}
	c := got.counting()
	series := zoned(got, c, func(s duramenpb.UserStats) float64 { return float64(s.Series) })
	return duramenpb.UserStats{
		Series:           uint64(math.Round(series)),
		SamplesPerSecond: zoned(got, c, func(s duramenpb.UserStats) float64 { return s.SamplesPerSecond }),
	}, nil
}

// counting says how the numbers of zones become that of the cluster: the largest, or all of them times a factor.
type counting struct {
	all    bool
	factor float64
}

func (g gathered[T]) counting() counting {
	zones := len(g.ring.ReadZones())
	if zones <= g.ring.RF() {
		return counting{}
	}
	return counting{all: true, factor: float64(zones) / float64(len(g.zones)) / float64(g.ring.RF())}
}

// together brings the numbers of zones together.
func (c counting) together(byZone map[string]float64) float64 {
	var most, all float64
	for _, n := range byZone {
		most, all = max(most, n), all+n
	}
	if c.all {
		return all * c.factor
	}
	return most
}

// zoned adds up a number by zone, and brings the zones together.
func zoned[T any](g gathered[T], c counting, of func(T) float64) float64 {
	byZone := map[string]float64{}
	for _, r := range g.replies {
		byZone[r.zone] += of(r.value)
	}
	return c.together(byZone)
}

// largest returns the limit largest counts of lists, in falling order. most takes the largest of all ingesters for each
// name, else they are added up as zoned does.
func largest[T any](limit int, most bool, c counting, g gathered[T], of func(T) []duramenpb.Count) []duramenpb.Count {
	byName := map[string]map[string]float64{}
	for _, r := range g.replies {
		for _, n := range of(r.value) {
			byZone := byName[n.Name]
			if byZone == nil {
				byZone = map[string]float64{}
				byName[n.Name] = byZone
			}
			if most {
				byZone[r.zone] = max(byZone[r.zone], float64(n.Value))
			} else {
				byZone[r.zone] += float64(n.Value)
			}
		}
	}
	if most {
		c = counting{}
	}
	all := make([]duramenpb.Count, 0, len(byName))
	for name, byZone := range byName {
		all = append(all, duramenpb.Count{Name: name, Value: uint64(math.Round(c.together(byZone)))})
	}
	slices.SortFunc(all, func(a, b duramenpb.Count) int {
		return cmp.Or(cmp.Compare(b.Value, a.Value), cmp.Compare(a.Name, b.Name))
	})
	return all[:min(limit, len(all))]
}
