package merge

import "context"

// usedSymbols returns which symbols series have that may be left when all is deleted that is to be: a name or a value
// that only deleted series had shall not stay behind in the index. It reads the series of all inputs once more.
func (m *merger) usedSymbols(ctx context.Context) ([]bool, error) {
	used := make([]bool, len(m.symbols))
	for _, in := range m.inputs {
		if err := m.markUsed(ctx, in, used); err != nil {
			return nil, err
		}
		in.rewind()
	}
	return used, nil
}

func (m *merger) markUsed(ctx context.Context, in *input, used []bool) error {
	for n := 0; ; n++ {
		if n%1024 == 0 {
			if m.rest(); ctx.Err() != nil {
				return ctx.Err()
			}
		}
		if err := in.advance(); err != nil || in.done {
			return err
		}
		hidden := in.hidden(m.labels(in.refs))
		for _, c := range in.list {
			if !hidden.cover(c.MinTime, c.MaxTime) {
				for _, ref := range in.refs {
					used[ref] = true
				}
				break
			}
		}
	}
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
