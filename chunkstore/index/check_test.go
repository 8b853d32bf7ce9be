package index

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// checkPages has a Checker see all pages of a fixture, of which change has one.
func (f *fixture) checkPages(t *testing.T, change func(number int, p *Page)) error {
	t.Helper()
	c := NewChecker(f.directory, f.dec)
	numbers := make([]int, f.directory.Pages())
	for i := range numbers {
		numbers[i] = i
	}
	slices.SortFunc(numbers, func(a, b int) int { return int(f.directory.Page(a).Offset - f.directory.Page(b).Offset) })
	for _, i := range numbers {
		p := f.page(t, i)
		if change != nil {
			change(i, p)
		}
		if err := c.Page(i, p); err != nil {
			return err
		}
	}
	return c.End()
}

func TestCheckerFindsBuiltSidecarsSound(t *testing.T) {
	for _, style := range []string{"plain", "upper", "nameless"} {
		f := newFixture(t, rand.New(rand.NewPCG(1, 2)), style, 3000, 4)
		require.NoError(t, f.checkPages(t, nil), style)
	}
}

// TestCheckerFindsContradictions: each of them would make a query miss a series, or read what it does not need.
func TestCheckerFindsContradictions(t *testing.T) {
	pod := func(f *fixture) *label {
		l := f.directory.label("pod")
		_, err := f.directory.decode(f.dec, l)
		require.NoError(t, err)
		return l
	}
	for name, change := range map[string]func(f *fixture){
		"fewer series":           func(f *fixture) { f.directory.pages[1].Series-- },
		"fewer chunks":           func(f *fixture) { f.directory.pages[1].Chunks-- },
		"other bytes":            func(f *fixture) { f.directory.pages[1].ChunkBytes++ },
		"a later begin":          func(f *fixture) { f.directory.pages[1].MinTime++ },
		"an earlier end":         func(f *fixture) { f.directory.pages[1].MaxTime-- },
		"a shorter span":         func(f *fixture) { f.directory.pages[1].Spans[0].End-- },
		"another span":           func(f *fixture) { f.directory.pages[1].Spans[0].Segment++ },
		"another metric":         func(f *fixture) { f.directory.metrics[1].Name += "x" },
		"a value less":           func(f *fixture) { pod(f).decoded.names[3] = "other" },
		"a value in fewer pages": func(f *fixture) { pod(f).decoded.runs[0].to-- },
		"a value in no page":     func(f *fixture) { d := pod(f).decoded; d.starts[len(d.starts)-1] = d.starts[len(d.starts)-2] },
		"series without it":      func(f *fixture) { pod(f).absent = nil },
		"a label less":           func(f *fixture) { f.directory.label("pod").name = "poc" },
		"a value too much": func(f *fixture) {
			d := pod(f).decoded
			d.names = append(d.names, "zzz")
			d.runs = append(d.runs, pageRun{0, 1})
			d.starts = append(d.starts, uint32(len(d.runs)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, rand.New(rand.NewPCG(1, 2)), "plain", 500, 2)
			f.page(t, 1)
			pages := map[int]*Page{}
			for i := range f.directory.Pages() {
				pages[i] = f.page(t, i)
			}
			change(f)
			c := NewChecker(f.directory, f.dec)
			err := error(nil)
			for i := 0; i < len(pages) && err == nil; i++ {
				err = c.Page(i, pages[i])
			}
			if err == nil {
				err = c.End()
			}
			require.ErrorIs(t, err, errContradiction)
		})
	}
}

func TestCheckerFindsWrongSeries(t *testing.T) {
	f := newFixture(t, rand.New(rand.NewPCG(1, 2)), "plain", 500, 2)
	for name, change := range map[string]func(p *Page){
		"a hash":   func(p *Page) { p.hashes[0]++ },
		"an order": func(p *Page) { c := p.column("i"); c.refs[0], c.refs[1] = c.refs[1], c.refs[0] },
		"a label":  func(p *Page) { p.column("const").values[0] = "2" },
	} {
		err := f.checkPages(t, func(number int, p *Page) {
			if number == 1 {
				change(p)
			}
		})
		require.ErrorIs(t, err, errContradiction, name)
	}
}
