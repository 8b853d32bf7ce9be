package oracle

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
)

// ask is a random query.
type ask struct {
	seed       uint64
	mint, maxt int64
	matchers   []*labels.Matcher
	hints      *storage.SelectHints
	sorted     bool
	// reading is how the series are read, see read.
	reading int
}

// The ways to read series.
const (
	asTheyCome = iota // samples of each series before the next series
	expanded          // all series, then their samples in order, as the engine does
	shuffled          // all series, then their samples in random order
	seeking           // all series, then their samples by a mix of Next and Seek
	numReadings
)

func (a ask) String() string {
	h := "none"
	if a.hints != nil {
		h = fmt.Sprintf("%+v", *a.hints)
	}
	return fmt.Sprintf("%v in [%d, %d], sorted %t, read %d, hints %s", a.matchers, a.mint, a.maxt, a.sorted, a.reading, h)
}

// copied returns the matchers for one call: Prometheus sorts them in place.
func (a ask) copied() []*labels.Matcher { return slices.Clone(a.matchers) }

// selectHints returns the hints for one call.
func (a ask) selectHints() *storage.SelectHints {
	if a.hints == nil {
		return nil
	}
	h := *a.hints
	return &h
}

func (w *world) randomAsk(r *rand.Rand) ask {
	a := ask{seed: r.Uint64(), sorted: r.IntN(3) > 0, reading: r.IntN(numReadings)}
	length := w.MaxTime - w.MinTime
	a.mint = w.MinTime - 500 + r.Int64N(length+1000)
	switch r.IntN(4) {
	case 0:
		a.mint, a.maxt = w.MinTime-1, w.MaxTime+1
	case 1:
		a.maxt = a.mint + r.Int64N(100)
	default:
		a.maxt = a.mint + r.Int64N(length)
	}
	for range 1 + min(r.IntN(4), r.IntN(4)) {
		a.matchers = append(a.matchers, w.randomMatcher(r))
	}
	if r.IntN(4) > 0 {
		a.hints = &storage.SelectHints{Start: a.mint, End: a.maxt, Step: r.Int64N(2) * 60, DisableTrimming: r.IntN(3) == 0}
		switch r.IntN(5) {
		case 0:
			a.hints.ShardCount = 1 + r.Uint64N(4)
			a.hints.ShardIndex = r.Uint64N(a.hints.ShardCount)
		case 1:
			a.hints.Func = "series"
		}
	}
	return a
}

// randomMatcher is of any kind, with names and values that occur and some that do not.
func (w *world) randomMatcher(r *rand.Rand) *labels.Matcher {
	if r.IntN(4) == 0 {
		return labels.MustNewMatcher(labels.MatchRegexp, labels.MetricName, ".+")
	}
	names := []string{
		labels.MetricName, "Zone", "größe", "i", "mod", "pod", "rare0", "url", "z", "absent", "replica", "Cluster",
	}
	name := names[r.IntN(len(names))]
	if r.IntN(2) == 0 {
		name = labels.MetricName
	}
	value := func() string {
		for range 5 {
			if v := w.Labels[r.IntN(len(w.Labels))].Get(name); v != "" {
				return v
			}
		}
		return []string{"", "m0", "none"}[r.IntN(3)]
	}
	quoted := func() string { return regexp.QuoteMeta(value()) }
	types := []labels.MatchType{labels.MatchEqual, labels.MatchNotEqual, labels.MatchRegexp, labels.MatchNotRegexp}
	typ := types[r.IntN(len(types))]
	if typ == labels.MatchEqual || typ == labels.MatchNotEqual {
		v := value()
		if r.IntN(6) == 0 {
			v = ""
		}
		return labels.MustNewMatcher(typ, name, v)
	}
	var pattern string
	switch v := value(); r.IntN(9) {
	case 0:
		pattern = quoted() + "|" + quoted() + "|none"
	case 1:
		pattern = regexp.QuoteMeta(v[:len(v)/2]) + ".*"
	case 2:
		pattern = ".*" + regexp.QuoteMeta(v[len(v)/2:])
	case 3:
		pattern = ".*[02468]"
	case 4:
		pattern = quoted() + "|"
	case 5:
		pattern = ""
	case 6:
		pattern = ".*"
	case 7:
		pattern = ".+"
	default:
		pattern = "(?i:M[0-3].*|POD.*|[0-9]{1,2})"
	}
	return labels.MustNewMatcher(typ, name, pattern)
}
