package tombstone

import (
	"cmp"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
)

// Matchers returns the selectors of a deletion as matchers. A series is meant when it satisfies all of one selector. An
// error is of kind Corrupt: what is recorded was read before.
func Matchers(d *manifest.Deletion) ([][]*labels.Matcher, error) {
	p := parser.NewParser(parser.Options{})
	out := make([][]*labels.Matcher, 0, len(d.Selectors))
	for _, selector := range d.Selectors {
		matchers, err := p.ParseMetricSelector(selector)
		if err != nil {
			return nil, errkind.New(errkind.Corrupt, "selector %q of deletion %d: %w", selector, d.ID, err)
		}
		out = append(out, matchers)
	}
	return out, nil
}

// Set is some deletions, ready to be asked about series. It is immutable and safe for concurrent use; nil is the empty
// set.
type Set struct {
	deletions []manifest.Deletion
	selectors []selector // of deletions[i] those with deletion i, in the order of the deletions
	// byValue are the numbers of selectors that demand a label to have a value, or one of some values, by both; others are
	// all the rest. A series is compared with the few that it can match, however many metrics were deleted.
	byValue map[labels.Label][]int
	names   []string // of the labels in byValue
	others  []int
}

type selector struct {
	deletion int
	matchers []*labels.Matcher
}

// New returns the set of deletions, nil when there are none. Errors are as for Matchers.
func New(deletions []manifest.Deletion) (*Set, error) {
	if len(deletions) == 0 {
		return nil, nil
	}
	var selectors []selector
	for i := range deletions {
		matchers, err := Matchers(&deletions[i])
		if err != nil {
			return nil, err
		}
		for _, m := range matchers {
			selectors = append(selectors, selector{i, m})
		}
	}
	return newSet(deletions, selectors), nil
}

func newSet(deletions []manifest.Deletion, selectors []selector) *Set {
	s := &Set{deletions: deletions, selectors: selectors, byValue: map[labels.Label][]int{}}
	for i := range selectors {
		name, values := demand(selectors[i].matchers)
		if len(values) == 0 {
			s.others = append(s.others, i)
			continue
		}
		for _, value := range values {
			l := labels.Label{Name: name, Value: value}
			s.byValue[l] = append(s.byValue[l], i)
		}
		if !slices.Contains(s.names, name) {
			s.names = append(s.names, name)
		}
	}
	return s
}

// mostValues bounds the places at which one selector is noted.
const mostValues = 1000

// demand returns a label of which all series that satisfy the matchers have one of some values, which are distinct: the
// name of the metric, if possible. There are no values when nothing is demanded.
func demand(matchers []*labels.Matcher) (name string, values []string) {
	for _, m := range matchers {
		var of []string
		switch m.Type {
		case labels.MatchEqual:
			of = []string{m.Value}
		case labels.MatchRegexp:
			of = slices.Compact(slices.Sorted(slices.Values(m.SetMatches())))
		}
		if len(of) == 0 || len(of) > mostValues || slices.Contains(of, "") { // a label that is not there is empty
			continue
		}
		if len(values) == 0 || m.Name == labels.MetricName && name != labels.MetricName || m.Name == name && len(of) < len(values) {
			name, values = m.Name, of
		}
	}
	return name, values
}

// Of returns the deletions that concern a block.
func (s *Set) Of(b *manifest.Block) *Set {
	return s.where(func(d *manifest.Deletion) bool { return d.Concerns(b) })
}

// In returns the deletions of times that touch mint ≤ t ≤ maxt, in milliseconds since the Unix epoch.
func (s *Set) In(mint, maxt int64) *Set {
	return s.where(func(d *manifest.Deletion) bool { return d.MinTime <= maxt && mint <= d.MaxTime })
}

func (s *Set) where(wanted func(*manifest.Deletion) bool) *Set {
	if s == nil {
		return nil
	}
	var selectors []selector
	for _, each := range s.selectors {
		if wanted(&s.deletions[each.deletion]) {
			selectors = append(selectors, each)
		}
	}
	switch len(selectors) {
	case 0:
		return nil
	case len(s.selectors):
		return s
	default:
		return newSet(s.deletions, selectors)
	}
}

// Empty reports whether the set hides nothing.
func (s *Set) Empty() bool { return s == nil }

// SelectorsOf returns the matchers of the selectors that one of some series matches, each once as far as they are written
// alike. They are the set's.
func (s *Set) SelectorsOf(series []labels.Labels) (out [][]*labels.Matcher) {
	seen := map[int]bool{}
	for _, lset := range series {
		s.each(lset, func(i int) {
			matchers := s.selectors[i].matchers
			if !seen[i] && !slices.ContainsFunc(out, func(other []*labels.Matcher) bool { return equal(matchers, other) }) {
				out = append(out, matchers)
			}
			seen[i] = true
		})
	}
	return out
}

func equal(a, b []*labels.Matcher) bool {
	return slices.EqualFunc(a, b, func(m, n *labels.Matcher) bool {
		return m.Type == n.Type && m.Name == n.Name && m.Value == n.Value
	})
}

// Intervals returns the times of which a series' samples are hidden, both ends inclusive, in order and apart from one
// another. BenchmarkIntervals measures it.
func (s *Set) Intervals(lset labels.Labels) (out tombstones.Intervals) {
	s.each(lset, func(i int) {
		d := &s.deletions[s.selectors[i].deletion]
		out = append(out, tombstones.Interval{Mint: d.MinTime, Maxt: d.MaxTime})
	})
	return joined(out)
}

// Meaning appends the numbers of the deletions that mean a series, whatever the times, as they were given to New; each once
// and in order. BenchmarkMeaning measures it.
func (s *Set) Meaning(lset labels.Labels, dst []int) []int {
	first := len(dst)
	s.each(lset, func(i int) { dst = append(dst, s.selectors[i].deletion) })
	found := dst[first:]
	if len(found) > 1 {
		slices.Sort(found)
		found = slices.Compact(found)
	}
	return dst[:first+len(found)]
}

// each calls fn with the number of each selector that a series matches.
func (s *Set) each(lset labels.Labels, fn func(int)) {
	if s == nil {
		return
	}
	among := func(selectors []int) {
		for _, i := range selectors {
			if matches(s.selectors[i].matchers, lset) {
				fn(i)
			}
		}
	}
	for _, name := range s.names {
		if value := lset.Get(name); value != "" {
			among(s.byValue[labels.Label{Name: name, Value: value}])
		}
	}
	among(s.others)
}

// joined sorts intervals and joins those that overlap or touch, in their memory. (Prometheus' Intervals.Add cannot take
// one that reaches to the end of time.)
func joined(in tombstones.Intervals) tombstones.Intervals {
	if len(in) < 2 {
		return in
	}
	slices.SortFunc(in, func(a, b tombstones.Interval) int { return cmp.Compare(a.Mint, b.Mint) })
	out := in[:1]
	for _, next := range in[1:] {
		last := &out[len(out)-1]
		if last.Maxt < math.MaxInt64 && next.Mint > last.Maxt+1 {
			out = append(out, next)
			continue
		}
		last.Maxt = max(last.Maxt, next.Maxt)
	}
	return out
}

func matches(matchers []*labels.Matcher, lset labels.Labels) bool {
	for _, m := range matchers {
		if !m.Matches(lset.Get(m.Name)) {
			return false
		}
	}
	return true
}
