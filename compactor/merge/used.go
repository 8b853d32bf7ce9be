package merge

import (
	"context"
	"slices"

	"github.com/duramendb/duramen/chunkstore/rawblock"
)

// usedSymbols returns which symbols series have that may be left when all is deleted that is to be: a name or a value
// that only deleted series had shall not stay behind in the index. It reads the series of all inputs once more.
func (m *merger) usedSymbols(ctx context.Context) ([]bool, error) {
	used := make([]bool, len(m.symbols))
	var meant []int
	var hidden intervals
	err := m.walk(ctx, func(same []*input) error {
		refs := same[0].refs
		if !slices.ContainsFunc(refs, func(ref uint32) bool { return !used[ref] }) {
			return nil
		}
		meant = m.deletions.set.Meaning(m.labels(refs), meant[:0])
		if slices.ContainsFunc(same, func(in *input) bool {
			hidden = in.hidden(&m.deletions, meant, hidden)
			return slices.ContainsFunc(in.list, func(c rawblock.Chunk) bool { return !hidden.cover(c.MinTime, c.MaxTime) })
		}) {
			for _, ref := range refs {
				used[ref] = true
			}
		}
		return nil
	})
	for _, in := range m.inputs {
		in.rewind()
	}
	return used, err
}

// cover reports whether all of [mint, maxt] is deleted by one interval.
func (v intervals) cover(mint, maxt int64) bool {
	for _, i := range v {
		if i[0] <= mint && maxt <= i[1] {
			return true
		}
	}
	return false
}

// rewind goes back to the first series.
func (in *input) rewind() {
	if f := in.index.next; f != nil {
		<-f.done
	}
	in.index = stream{from: in.index.from, files: in.index.files, ahead: in.index.ahead, until: in.index.until}
	in.off, in.done = in.toc.Series, false
	in.refs, in.before, in.list = in.refs[:0], in.before[:0], in.list[:0]
	in.seriesRead, in.chunksRead = 0, 0
}
