package index

import (
	"slices"
	"sort"

	"github.com/prometheus/prometheus/model/labels"
)

// Candidates returns the numbers of the pages that can hold series which satisfy all matchers and have samples with
// mint ≤ t ≤ maxt, in order. Pages may turn out to hold none; none is missing.
func (d *Directory) Candidates(dec *Decoder, mint, maxt int64, matchers ...*labels.Matcher) ([]int, error) {
	left := newBitmap(len(d.pages))
	for i := range d.pages {
		if e := &d.pages[i]; e.Chunks > 0 && e.MinTime <= maxt && mint <= e.MaxTime {
			left.addRange(uint32(i), uint32(i)+1)
		}
	}
	for _, m := range matchers {
		var pages bitmap
		var err error
		if m.Name == labels.MetricName {
			pages = d.metricPages(m)
		} else if pages, err = d.labelPages(dec, m); err != nil {
			return nil, err
		}
		if pages != nil {
			left.and(pages)
		}
	}
	var out []int
	for i := range d.pages {
		if left.has(i) {
			out = append(out, i)
		}
	}
	return out, nil
}

// metricPages returns the pages of the metrics that m matches.
func (d *Directory) metricPages(m *labels.Matcher) bitmap {
	out := newBitmap(len(d.pages))
	add := func(x Metric) { out.addRange(uint32(x.First), uint32(x.First+x.Pages)) }
	if names := exact(m); names != nil {
		for _, name := range names {
			i := sort.Search(len(d.metrics), func(i int) bool { return d.metrics[i].Name >= name })
			if i < len(d.metrics) && d.metrics[i].Name == name {
				add(d.metrics[i])
			}
		}
		return out
	}
	for _, x := range d.metrics {
		if m.Matches(x.Name) {
			add(x)
		}
	}
	return out
}

// labelPages returns the pages with a series that m matches by its label alone, or nil for all pages.
func (d *Directory) labelPages(dec *Decoder, m *labels.Matcher) (bitmap, error) {
	l, empty := d.label(m.Name), m.Matches("")
	switch {
	case l == nil && empty:
		return nil, nil
	case l == nil:
		return newBitmap(len(d.pages)), nil
	case empty && (m.Type == labels.MatchNotEqual || m.Type == labels.MatchNotRegexp):
		return nil, nil // nearly everything matches; the pages themselves say what does not
	}
	v, err := d.decode(dec, l)
	if err != nil {
		return nil, err
	}
	out := newBitmap(len(d.pages))
	if empty {
		// Pages that no value occurs in have only series without the label.
		present := newBitmap(len(d.pages))
		present.add(v.runs)
		for i := range d.pages {
			if !present.has(i) {
				out.addRange(uint32(i), uint32(i)+1)
			}
		}
		out.add(l.absent)
	}
	if names := exact(m); names != nil {
		for _, name := range names {
			if i, ok := v.find(name); ok {
				out.add(v.runs[v.starts[i]:v.starts[i+1]])
			}
		}
		return out, nil
	}
	for i, name := range v.names {
		if m.Matches(name) {
			out.add(v.runs[v.starts[i]:v.starts[i+1]])
		}
	}
	return out, nil
}

// exact returns the values that m matches when they can be named, else nil.
func exact(m *labels.Matcher) []string {
	switch m.Type {
	case labels.MatchEqual:
		return []string{m.Value}
	case labels.MatchRegexp:
		if set := m.SetMatches(); len(set) > 0 {
			return slices.Clip(set)
		}
	default:
	}
	return nil
}
