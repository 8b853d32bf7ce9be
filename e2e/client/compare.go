package client

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
)

// Sort sorts series by their labels.
func Sort(series []Series) {
	slices.SortFunc(series, func(a, b Series) int {
		return cmp.Compare(labels.FromMap(a.Metric).String(), labels.FromMap(b.Metric).String())
	})
}

// Difference says in what two sorted matrices differ first, "" when in nothing.
func Difference(want, got []Series) string {
	if len(want) != len(got) {
		return fmt.Sprintf("%d series instead of %d", len(got), len(want))
	}
	for i, w := range want {
		name := labels.FromMap(w.Metric).String()
		if other := labels.FromMap(got[i].Metric).String(); other != name {
			return fmt.Sprintf("series %s instead of %s", other, name)
		}
		for _, p := range [][2][]Point{{w.Values, got[i].Values}, {w.Histograms, got[i].Histograms}} {
			if len(p[0]) != len(p[1]) {
				return fmt.Sprintf("%s has %d samples instead of %d", name, len(p[1]), len(p[0]))
			}
			for j := range p[0] {
				if text, other := fmt.Sprint(p[0][j].T, p[0][j].V, p[0][j].H), fmt.Sprint(p[1][j].T, p[1][j].V, p[1][j].H); text != other {
					return fmt.Sprintf("%s has %s instead of %s", name, other, text)
				}
			}
		}
	}
	return ""
}
