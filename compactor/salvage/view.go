package salvage

import (
	"errors"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/index"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

// series is what is proven of one.
type series struct {
	lset   labels.Labels
	chunks []chunkPlace
}

// view is what can be proven of the series of a block: each by its index, its sidecar, or the postings.
type view struct {
	*folder

	entry *manifest.Block
	x     *indexFile
	s     *sidecarFile
	dec   *index.Decoder
	fault func(file string) faults

	// main is where most series come from, in label order; extra are the others, in label order, in memory.
	main  source
	extra []series
	// unnamed are series whose labels cannot be proven.
	unnamed []series

	// whole is set when the index is proven to have all series of the block, each with all of its chunks.
	whole bool

	gaps    []gap
	ordered bool // chunks lie in the order of the series, as far as the index can be read
}

type source uint8

const (
	fromNothing source = iota
	fromIndex
	fromSidecar
)

// gap is a series of the index that cannot be read.
type gap struct {
	off int64
	// before is the last chunk of the series before it, after the first of the one behind. They are nil where that is not
	// known or not intact, apart from the two ends of the index.
	before, after *chunkPlace
	first, last   bool
	lset          labels.Labels
	found         bool
}

// openView reads index and sidecar of a block.
//
// ErrTooLarge: it would take more than most bytes of memory.
func openView(f *folder, entry *manifest.Block, most int64, fault func(file string) faults) (*view, error) {
	ix, err := f.fetch(block.IndexName)
	if err != nil {
		return nil, err
	}
	sidecar, err := f.fetch(block.SidecarName)
	if err != nil {
		return nil, err
	}
	dec, err := index.NewDecoder()
	if err != nil {
		return nil, err
	}
	v := &view{folder: f, entry: entry, dec: dec, fault: fault}
	v.x = layOutIndex(ix, fault(block.IndexName))
	if err := v.x.fits(entry, most); err != nil {
		dec.Close()
		return nil, err
	}
	v.x.open()
	v.s = openSidecar(sidecar, entry, dec, fault(block.SidecarName))
	return v, v.resolve()
}

func (v *view) close() error {
	v.dec.Close()
	return v.folder.close()
}

// resolve finds out where each series comes from.
func (v *view) resolve() error {
	readable, err := v.scan()
	if err != nil {
		return err
	}
	switch {
	case v.x.symbols != nil:
		v.main = fromIndex
	case v.s.d != nil && v.s.d.Ordered:
		v.main = fromSidecar
	}
	v.whole = v.main == fromIndex && v.x.refs != nil && len(v.gaps) == 0 && len(v.unnamed) == 0
	if v.main == fromIndex && len(v.gaps) == 0 && len(v.unnamed) == 0 &&
		(v.entry.Series == 0 || v.entry.Series == readable) {
		return v.sorted()
	}
	if err := v.complete(); err != nil {
		return err
	}
	v.whole = v.whole && len(v.extra) == 0
	return v.sorted()
}

// scan looks for series of the index that cannot be read, and counts the others.
func (v *view) scan() (readable uint64, err error) {
	v.ordered = true
	var last *chunkPlace // of the series before
	var symbols []uint64
	var chunks []chunkPlace
	first := true
	err = v.x.entries(func(e entry) error {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		if e.content == nil {
			v.x.fault(e.off, "", "checksum of a series differs")
			v.gaps = append(v.gaps, gap{off: e.off, before: last, first: first})
			last, first = nil, false
			return nil
		}
		readable++
		symbols, chunks, _ = decodeEntry(e.content, symbols, chunks)
		if len(chunks) == 0 {
			return nil
		}
		if n := len(v.gaps); n > 0 && last == nil && v.gaps[n-1].after == nil {
			c := chunks[0]
			v.gaps[n-1].after = &c
		}
		for i, c := range chunks {
			if last != nil && c.key() <= last.key() || i > 0 && c.key() <= chunks[i-1].key() {
				v.ordered = false
			}
		}
		c := chunks[len(chunks)-1]
		last, first = &c, false
		if v.x.symbols != nil {
			if _, ok := v.x.labels(symbols); !ok {
				v.x.fault(e.off, "", "the labels of a series are none that can be")
				v.unnamed = append(v.unnamed, series{chunks: slices.Clone(chunks)})
			}
		}
		return nil
	})
	if n := len(v.gaps); n > 0 && last == nil {
		v.gaps[n-1].last = true
	}
	return readable, err
}

// labels returns the labels of a series by the numbers of its symbols.
func (x *indexFile) labels(symbols []uint64) (labels.Labels, bool) {
	pairs := make([]labels.Label, 0, len(symbols)/2)
	for i := 0; i+1 < len(symbols); i += 2 {
		n, v := symbols[i], symbols[i+1]
		if n >= uint64(len(x.symbols)) || v >= uint64(len(x.symbols)) {
			return labels.EmptyLabels(), false
		}
		pairs = append(pairs, labels.Label{Name: x.symbol(n), Value: x.symbol(v)})
	}
	return sane(pairs)
}

// complete finds the series that main has not, in the sidecar and by the postings.
func (v *view) complete() error {
	inIndex := map[uint64]struct{}{}
	if err := v.firstChunks(inIndex); err != nil {
		return err
	}
	v.nameGaps()
	inSidecar := map[uint64]struct{}{}
	err := v.s.each(func(lset labels.Labels, chunks []chunkPlace) error {
		for i := range v.gaps {
			if g := &v.gaps[i]; !g.lset.IsEmpty() && labels.Equal(g.lset, lset) {
				g.found = true
			}
		}
		if len(chunks) == 0 {
			return nil
		}
		key := chunks[0].key()
		inSidecar[key] = struct{}{}
		_, indexed := inIndex[key]
		if v.main == fromNothing || v.main == fromIndex && !indexed {
			v.extra = append(v.extra, series{lset.Copy(), slices.Clone(chunks)})
		}
		return v.ctx.Err()
	})
	if err != nil {
		return err
	}
	if v.main == fromIndex {
		v.unnamed = slices.DeleteFunc(v.unnamed, func(s series) bool {
			_, ok := inSidecar[s.chunks[0].key()]
			return ok
		})
	} else if err := v.nameRest(inSidecar); err != nil {
		return err
	}
	return v.fillGaps()
}

// firstChunks notes the first chunk of each series of the index that can be named by its symbols.
func (v *view) firstChunks(keys map[uint64]struct{}) error {
	if v.x.symbols == nil {
		return nil
	}
	var symbols []uint64
	var chunks []chunkPlace
	err := v.x.entries(func(e entry) error {
		if e.content == nil {
			return nil
		}
		symbols, chunks, _ = decodeEntry(e.content, symbols, chunks)
		if len(chunks) > 0 {
			keys[chunks[0].key()] = struct{}{}
		}
		return nil
	})
	for _, s := range v.unnamed {
		delete(keys, s.chunks[0].key())
	}
	return err
}

// nameRest finds the labels of series that are in the index, whose symbols are damaged, and not in the sidecar.
func (v *view) nameRest(inSidecar map[uint64]struct{}) error {
	want, rest := map[int64]int{}, map[int64][]chunkPlace{}
	var symbols []uint64
	var chunks []chunkPlace
	err := v.x.entries(func(e entry) error {
		if e.content == nil {
			return nil
		}
		symbols, chunks, _ = decodeEntry(e.content, symbols, chunks)
		if len(chunks) == 0 {
			return nil
		}
		if _, ok := inSidecar[chunks[0].key()]; !ok {
			want[e.off], rest[e.off] = len(symbols)/2, slices.Clone(chunks)
		}
		return nil
	})
	if err != nil {
		return err
	}
	names := v.x.named(want)
	for off, chunks := range rest {
		if lset, ok := names[off]; ok {
			v.extra = append(v.extra, series{lset, chunks})
		} else {
			v.x.fault(off, "", "the labels of a series cannot be proven")
			v.unnamed = append(v.unnamed, series{chunks: chunks})
		}
	}
	slices.SortFunc(v.unnamed, func(a, b series) int { return compareKeys(a.chunks[0], b.chunks[0]) })
	return nil
}

func compareKeys(a, b chunkPlace) int {
	switch {
	case a.key() < b.key():
		return -1
	case a.key() > b.key():
		return 1
	default:
		return 0
	}
}

// maxGaps bounds the series whose labels are looked for one by one.
const maxGaps = 10_000

// nameGaps finds the labels of the series that cannot be read.
func (v *view) nameGaps() {
	if len(v.gaps) == 0 || len(v.gaps) > maxGaps || v.x.refs == nil {
		return
	}
	want := map[int64]int{}
	for _, g := range v.gaps {
		want[g.off] = -1
	}
	names := v.x.named(want)
	for i := range v.gaps {
		v.gaps[i].lset = names[v.gaps[i].off]
	}
}

// fillGaps finds the chunks of series of which only the labels are known. The files have the chunks in the order of the
// series, so that those between the chunks of two neighbours belong to the one series between these.
func (v *view) fillGaps() error {
	if !v.ordered {
		return nil
	}
	for i := range v.gaps {
		g := &v.gaps[i]
		if g.lset.IsEmpty() || g.found || g.before == nil && !g.first || g.after == nil && !g.last {
			continue
		}
		chunks, err := v.between(g.before, g.after)
		if err != nil {
			return err
		}
		if len(chunks) > 0 {
			v.extra = append(v.extra, series{g.lset, chunks})
		}
	}
	return nil
}

// between returns the chunks that lie between two: those that are intact, and pieces that are not, each as one chunk of
// which only the place is known.
func (v *view) between(before, after *chunkPlace) (found []chunkPlace, err error) {
	segment, off, known := uint32(0), int64(segmentHeader), true
	if before != nil && after != nil && before.key() >= after.key() {
		return nil, nil
	}
	if before != nil {
		r, _, err := v.read(before.segment, int64(before.offset), v.segmentSize(before.segment), false)
		if err != nil {
			return nil, err
		}
		segment, off = before.segment, int64(before.offset)+1 // within it is no other one that is intact
		if known = r != nil; known {
			off += r.length - 1
		}
	}
	last := int64(math.MinInt64)
	for ; int(segment) < v.segments(); segment, off, known = segment+1, segmentHeader, true {
		end, done := v.segmentSize(segment), false
		if after != nil && segment == after.segment {
			end, done = min(end, int64(after.offset)), true
		}
		piece := func(to int64) {
			if known && off < to && to-off <= maxRecordBytes {
				found = append(found, chunkPlace{
					mint: v.entry.MinTime, maxt: v.entry.MaxTime - 1, segment: segment, offset: uint32(off), length: uint32(to - off),
					piece: true,
				})
			}
		}
		err := v.intactIn(segment, off, end, func(at int64, r *record) {
			piece(at)
			off, known = at+r.length, true
			if r.mint > last {
				found = append(found, chunkPlace{
					mint: r.mint, maxt: r.maxt, segment: segment, offset: uint32(at), length: uint32(r.length),
				})
				last = r.maxt
			}
		})
		piece(end)
		if err != nil || done {
			return found, err
		}
	}
	return found, nil
}

// segmentHeader is what a chunk file begins with.
const segmentHeader = 8

// errOrder means that series do not come in label order.
var errOrder = errors.New("series are not in label order")

// sorted brings the series that are in memory in order, and all of them when main is not.
func (v *view) sorted() error {
	v.sortExtra()
	err := v.each(func(series) error { return v.ctx.Err() })
	if !errors.Is(err, errOrder) {
		return err
	}
	err = v.eachMain(func(s series) error {
		v.extra = append(v.extra, series{s.lset.Copy(), slices.Clone(s.chunks)})
		return v.ctx.Err()
	})
	v.main = fromNothing
	v.sortExtra()
	return err
}

func (v *view) sortExtra() {
	slices.SortStableFunc(v.extra, func(a, b series) int { return labels.Compare(a.lset, b.lset) })
	out := v.extra[:0]
	for _, s := range v.extra {
		if n := len(out); n > 0 && labels.Equal(out[n-1].lset, s.lset) {
			out[n-1] = union(out[n-1], s)
			continue
		}
		out = append(out, s)
	}
	v.extra = out
}

// union is a series by two sources.
func union(a, b series) series {
	chunks := slices.Concat(a.chunks, b.chunks)
	slices.SortFunc(chunks, func(x, y chunkPlace) int {
		if by := compareKeys(x, y); by != 0 {
			return by
		}
		return int(y.length) - int(x.length)
	})
	return series{a.lset, slices.CompactFunc(chunks, func(x, y chunkPlace) bool { return x.key() == y.key() })}
}

// each calls fn for each series in label order, each once. What fn gets is valid until it returns.
func (v *view) each(fn func(series) error) error {
	i := 0
	var last labels.Labels
	began := false
	err := v.eachMain(func(s series) error {
		if began && labels.Compare(last, s.lset) >= 0 {
			return errOrder
		}
		last, began = s.lset, true
		for i < len(v.extra) && labels.Compare(v.extra[i].lset, s.lset) < 0 {
			i++
			if err := fn(v.extra[i-1]); err != nil {
				return err
			}
		}
		if i < len(v.extra) && labels.Equal(v.extra[i].lset, s.lset) {
			s = union(s, v.extra[i])
			i++
		}
		return fn(s)
	})
	for ; i < len(v.extra) && err == nil; i++ {
		err = fn(v.extra[i])
	}
	return err
}

// eachMain calls fn for each series of main.
func (v *view) eachMain(fn func(series) error) error {
	switch v.main {
	case fromIndex:
		var symbols []uint64
		var chunks []chunkPlace
		return v.x.entries(func(e entry) error {
			if e.content == nil {
				return nil
			}
			symbols, chunks, _ = decodeEntry(e.content, symbols, chunks)
			lset, ok := v.x.labels(symbols)
			if !ok {
				return nil // it is among unnamed, or extra
			}
			return fn(series{lset, chunks})
		})
	case fromSidecar:
		return v.s.each(func(lset labels.Labels, chunks []chunkPlace) error { return fn(series{lset, chunks}) })
	default:
		return nil
	}
}
