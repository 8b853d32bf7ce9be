package index

import (
	"encoding/binary"
	"slices"
	"strings"
)

// column is one label of the series of a page: refs has 0 for a series without it, else the position in values plus one.
type column struct {
	name   string
	values []string
	known  map[string]uint16 // ref of a value, while building
	refs   []uint16
}

// pageBuilder collects the series of one page. All are of one metric and come in label order.
type pageBuilder struct {
	metric  string
	columns map[string]*column
	hashes  []uint64
	counts  []int
	chunks  []Chunk
	bytes   int // rough memory, for the bound on open pages
}

func newPageBuilder(metric string) *pageBuilder {
	return &pageBuilder{metric: metric, columns: map[string]*column{}}
}

func (p *pageBuilder) full() bool {
	return len(p.hashes) >= maxPageSeries || len(p.chunks) >= maxPageChunks ||
		len(p.hashes)*len(p.columns) >= maxPageCells
}

// label notes a label of the series that is being added. The strings are retained.
func (p *pageBuilder) label(name, value string) {
	c := p.columns[name]
	if c == nil {
		c = &column{name: name, known: map[string]uint16{}}
		p.columns[name] = c
		p.bytes += len(name) + 64
	}
	ref, ok := c.known[value]
	if !ok {
		c.values = append(c.values, value)
		ref = uint16(len(c.values)) // at most maxPageSeries
		c.known[value] = ref
		p.bytes += len(value) + 64
	}
	for len(c.refs) < len(p.hashes) { // the series before have no such label
		c.refs = append(c.refs, 0)
	}
	c.refs = append(c.refs, ref)
}

// add ends the series whose labels were given.
func (p *pageBuilder) add(hash uint64, chunks []Chunk) {
	p.hashes = append(p.hashes, hash)
	p.counts = append(p.counts, len(chunks))
	p.chunks = append(p.chunks, chunks...)
	p.bytes += 32*len(chunks) + 16 + 2*len(p.columns)
}

// sorted returns the columns by name, each with a ref for every series and its values in order.
func (p *pageBuilder) sorted() []*column {
	out := make([]*column, 0, len(p.columns))
	for _, c := range p.columns {
		for len(c.refs) < len(p.hashes) {
			c.refs = append(c.refs, 0)
		}
		c.sortValues()
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b *column) int { return strings.Compare(a.name, b.name) })
	return out
}

func (c *column) sortValues() {
	sorted := slices.Clone(c.values)
	slices.Sort(sorted)
	moved := make([]uint16, len(c.values)+1)
	for i, v := range sorted {
		moved[c.known[v]] = uint16(i + 1)
	}
	for i, ref := range c.refs {
		c.refs[i] = moved[ref]
	}
	c.values = sorted
}

// someAbsent reports whether a series of the page lacks the label.
func (c *column) someAbsent() bool { return slices.Contains(c.refs, 0) }

// encode appends the page's bytes, before compression; see ../docs/format.md. Times are relative to mint.
func (p *pageBuilder) encode(b []byte, columns []*column, mint int64) []byte {
	b = binary.AppendUvarint(b, uint64(len(p.hashes)))
	b = binary.AppendUvarint(b, uint64(len(columns)))
	for _, c := range columns {
		b = c.encode(b)
	}
	for _, h := range p.hashes {
		b = binary.LittleEndian.AppendUint64(b, h)
	}
	for _, n := range p.counts {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return p.encodeChunks(b, mint)
}

// The widths of a column's refs, in bytes: none when every series has the one value.
const (
	refsNone  = 0
	refsByte  = 1
	refsShort = 2
)

func (c *column) encode(b []byte) []byte {
	b = appendString(b, c.name)
	b = binary.AppendUvarint(b, uint64(len(c.values)))
	for _, v := range c.values {
		b = appendString(b, v)
	}
	switch {
	case len(c.values) == 1 && !c.someAbsent():
		return append(b, refsNone)
	case len(c.values) < 256:
		b = append(b, refsByte)
		for _, ref := range c.refs {
			b = append(b, byte(ref))
		}
	default:
		b = append(b, refsShort)
		for _, ref := range c.refs {
			b = binary.LittleEndian.AppendUint16(b, ref)
		}
	}
	return b
}

// encodeChunks writes the chunks column by column, because each column repeats itself: places are mostly "behind the one
// before", durations mostly equal.
func (p *pageBuilder) encodeChunks(b []byte, mint int64) []byte {
	var last Chunk
	for i, c := range p.chunks {
		if i > 0 && c.Segment == last.Segment && c.Offset == last.Offset+last.Length {
			b = append(b, 0)
		} else {
			b = binary.AppendUvarint(append(b, 1), uint64(c.Segment))
			b = binary.AppendUvarint(b, uint64(c.Offset))
		}
		last = c
	}
	for _, c := range p.chunks {
		b = binary.AppendUvarint(b, uint64(c.Length))
	}
	for _, c := range p.chunks {
		b = binary.AppendUvarint(b, uint64(c.MaxTime-c.MinTime))
	}
	i := 0
	for _, n := range p.counts {
		before := mint
		for _, c := range p.chunks[i : i+n] {
			b = binary.AppendVarint(b, c.MinTime-before)
			before = c.MaxTime
		}
		i += n
	}
	return b
}
