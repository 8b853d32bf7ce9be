package reader

import (
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
)

// external are labels that are added to each series of a block, sorted by name. They replace a series' own.
type external []labels.Label

func externalLabels(of map[string]string) external {
	var out external
	for name, value := range of {
		if value != "" {
			out = append(out, labels.Label{Name: name, Value: value})
		}
	}
	slices.SortFunc(out, func(a, b labels.Label) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (e external) value(name string) (string, bool) {
	for _, l := range e {
		if l.Name == name {
			return l.Value, true
		}
	}
	return "", false
}

// reduce returns the matchers that remain for the block's own labels; possible is not set when one of the others does not
// match, which then no series of the block can satisfy.
func (e external) reduce(matchers []*labels.Matcher) (own []*labels.Matcher, possible bool) {
	if len(e) == 0 {
		return matchers, true
	}
	for _, m := range matchers {
		value, ok := e.value(m.Name)
		switch {
		case !ok:
			own = append(own, m)
		case !m.Matches(value):
			return nil, false
		}
	}
	return own, true
}

// add returns lset with the labels, made with b.
func (e external) add(lset labels.Labels, b *labels.Builder) labels.Labels {
	b.Reset(lset)
	for _, l := range e {
		b.Set(l.Name, l.Value)
	}
	return b.Labels()
}
