package salvage

import (
	"encoding/binary"
	"slices"
	"sort"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
)

// fewRefs is up to where looking references up in each list costs less than reading all lists.
const fewRefs = 64

// named finds the labels of series by the lists of postings that have them: a copy of what the series say, with checksums
// of its own. want has the number of labels of each series by its offset, -1 where that is not known either; then all lists
// have to be intact. Series of which not all labels are proven are left out.
func (x *indexFile) named(want map[int64]int) map[int64]labels.Labels {
	if len(want) == 0 || x.lists == nil {
		return nil
	}
	refs := make([]uint32, 0, len(want))
	for off := range want {
		refs = append(refs, uint32(off/seriesAlign))
	}
	slices.Sort(refs)
	found := make(map[uint32][]labels.Label, len(refs))
	whole := true
	for _, l := range x.lists {
		if len(l.name) == 0 {
			continue // of all series
		}
		b := x.postingsAt(l.at)
		if b == nil {
			whole = false
			x.fault(l.at, "", "postings of %s=%q are damaged", l.name, l.value)
			continue
		}
		each(b, refs, func(ref uint32) {
			found[ref] = append(found[ref], labels.Label{Name: string(l.name), Value: string(l.value)})
		})
	}
	out := make(map[int64]labels.Labels, len(found))
	for ref, pairs := range found {
		off := int64(ref) * seriesAlign
		n := want[off]
		if n < 0 && !whole || n >= 0 && n != len(pairs) {
			continue
		}
		slices.SortFunc(pairs, func(a, b labels.Label) int { return strings.Compare(a.Name, b.Name) })
		if lset, ok := sane(pairs); ok {
			out[off] = lset
		}
	}
	return out
}

// each calls fn for the references that are in a list, both in order.
func each(list []byte, refs []uint32, fn func(uint32)) {
	n := len(list) / 4
	at := func(i int) uint32 { return binary.BigEndian.Uint32(list[4*i:]) }
	if len(refs) <= fewRefs {
		for _, ref := range refs {
			if i := sort.Search(n, func(i int) bool { return at(i) >= ref }); i < n && at(i) == ref {
				fn(ref)
			}
		}
		return
	}
	for i, j := 0, 0; i < n && j < len(refs); {
		switch ref := at(i); {
		case ref == refs[j]:
			fn(ref)
			i, j = i+1, j+1
		case ref < refs[j]:
			i++
		default:
			j++
		}
	}
}

// sane returns labels, which come by name, unless they can be none of a series.
func sane(pairs []labels.Label) (labels.Labels, bool) {
	for i, l := range pairs {
		if l.Name == "" || l.Value == "" || i > 0 && pairs[i-1].Name >= l.Name {
			return labels.EmptyLabels(), false
		}
	}
	return labels.New(pairs...), len(pairs) > 0
}
