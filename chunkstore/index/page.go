package index

import (
	"encoding/binary"
	"math"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"
)

// Page is a decoded page: series of one metric in label order. It is not changed after decoding, so any number of
// goroutines may read it.
type Page struct {
	columns []pageColumn
	hashes  []uint64
	starts  []uint32 // of each series' chunks, and the end of the last
	chunks  []Chunk
	bytes   int64
}

type pageColumn struct {
	name   string
	values []string
	refs   []uint16 // nil when every series has values[0]
}

func (c *pageColumn) ref(i int) uint16 {
	if c.refs == nil {
		return 1
	}
	return c.refs[i]
}

// DecodePage decodes the bytes of a page that d describes. mint is the directory's MinTime.
func (d *Directory) DecodePage(dec *Decoder, number int, packed []byte) (*Page, error) {
	e := &d.pages[number]
	raw, err := dec.unpack("a page", packed, e.raw, e.sum)
	if err != nil {
		return nil, err
	}
	return decodePage(raw, d.MinTime, int(e.Series), d.Segments)
}

func decodePage(raw []byte, mint int64, series int, segments []int64) (*Page, error) {
	s := &scanner{b: raw}
	n := s.count(9) // a hash and a count at least
	if n > maxSeriesRead {
		s.fail("more series than a page can have")
	}
	if s.err == nil && n != series {
		s.fail("the number of series differs from the directory's")
	}
	p := &Page{bytes: int64(unsafe.Sizeof(Page{}))}
	p.columns = make([]pageColumn, s.count(3))
	for i := range p.columns {
		p.columns[i] = s.column(n)
		if i > 0 && s.err == nil && p.columns[i-1].name >= p.columns[i].name {
			s.fail("labels are not in order")
		}
		p.bytes += p.columns[i].size()
	}
	p.hashes = s.hashes(n)
	s.chunkStarts(p, n)
	s.chunks(p, mint, segments)
	p.bytes += int64(8*len(p.hashes) + 4*len(p.starts) + int(unsafe.Sizeof(Chunk{}))*len(p.chunks))
	if err := s.end(); err != nil {
		return nil, err
	}
	return p, nil
}

func (c *pageColumn) size() int64 {
	n := int(unsafe.Sizeof(*c)) + len(c.name) + 2*len(c.refs)
	for _, v := range c.values {
		n += len(v) + int(unsafe.Sizeof(v))
	}
	return int64(n)
}

func (s *scanner) column(series int) pageColumn {
	c := pageColumn{name: s.string()}
	c.values = make([]string, s.count(1))
	for i := range c.values {
		c.values[i] = s.string()
		if i > 0 && s.err == nil && c.values[i-1] >= c.values[i] {
			s.fail("values of a label are not in order")
		}
	}
	width := s.bytes(1)
	switch {
	case s.err != nil:
		return c
	case width[0] == refsNone && len(c.values) == 1:
		return c
	case width[0] != refsByte && width[0] != refsShort:
		s.fail("references have an unknown width")
		return c
	}
	packed := s.bytes(uint64(series) * uint64(width[0]))
	if s.err != nil {
		return c
	}
	c.refs = make([]uint16, series)
	for i := range c.refs {
		if width[0] == refsByte {
			c.refs[i] = uint16(packed[i])
		} else {
			c.refs[i] = binary.LittleEndian.Uint16(packed[2*i:])
		}
		if int(c.refs[i]) > len(c.values) {
			s.fail("a reference points to no value")
			return c
		}
	}
	return c
}

func (s *scanner) hashes(n int) []uint64 {
	packed := s.bytes(8 * uint64(n))
	if s.err != nil {
		return nil
	}
	out := make([]uint64, n)
	for i := range out {
		out[i] = binary.LittleEndian.Uint64(packed[8*i:])
	}
	return out
}

func (s *scanner) chunkStarts(p *Page, n int) {
	p.starts = make([]uint32, n+1)
	total := uint64(0)
	for i := range n {
		total += s.uvarint()
		if s.err != nil || total > uint64(len(s.b)) {
			s.fail("a count of chunks is larger than what follows")
			return
		}
		p.starts[i+1] = uint32(total)
	}
	p.chunks = make([]Chunk, total)
}

func (s *scanner) chunks(p *Page, mint int64, segments []int64) {
	explicit := make([]bool, len(p.chunks))
	for i := range p.chunks {
		switch s.uvarint() {
		case 0:
			if i == 0 {
				s.fail("the first chunk has no place")
				return
			}
		case 1:
			explicit[i] = true
			p.chunks[i].Segment, p.chunks[i].Offset = s.u32(), s.u32()
		default:
			s.fail("a chunk has an unknown kind of place")
			return
		}
	}
	for i := range p.chunks {
		c := &p.chunks[i]
		c.Length = s.u32()
		if !explicit[i] && s.err == nil {
			last := &p.chunks[i-1]
			end := uint64(last.Offset) + uint64(last.Length)
			if end > math.MaxUint32 {
				s.fail("a chunk lies behind its segment")
				return
			}
			c.Segment, c.Offset = last.Segment, uint32(end)
		}
		if s.err == nil && (int(c.Segment) >= len(segments) || c.Length == 0 ||
			int64(c.Offset)+int64(c.Length) > segments[c.Segment]) {
			s.fail("a chunk lies behind its segment")
			return
		}
	}
	s.times(p, mint)
}

func (s *scanner) times(p *Page, mint int64) {
	for i := range p.chunks {
		p.chunks[i].MaxTime = int64(s.uvarint()) // how long it is, until the next loop knows where it begins
	}
	for i := range p.hashes {
		before := mint
		for j := p.starts[i]; j < p.starts[i+1]; j++ {
			c := &p.chunks[j]
			c.MinTime = before + s.varint()
			c.MaxTime += c.MinTime
			if c.MaxTime < c.MinTime {
				s.fail("a chunk ends before it begins")
				return
			}
			before = c.MaxTime
		}
	}
}

// Len returns the number of series.
func (p *Page) Len() int { return len(p.hashes) }

// Bytes returns roughly how much memory the page takes.
func (p *Page) Bytes() int64 { return p.bytes }

// Hash returns labels.StableHash of series i.
func (p *Page) Hash(i int) uint64 { return p.hashes[i] }

// Chunks returns the chunks of series i in the order of the block's index. Do not change them.
func (p *Page) Chunks(i int) []Chunk { return p.chunks[p.starts[i]:p.starts[i+1]] }

// Labels returns the labels of series i, made with b.
func (p *Page) Labels(i int, b *labels.ScratchBuilder) labels.Labels {
	p.BuildLabels(i, b)
	return b.Labels()
}

// BuildLabels puts the labels of series i into b, for who reuses memory with its Overwrite.
func (p *Page) BuildLabels(i int, b *labels.ScratchBuilder) {
	b.Reset()
	for c := range p.columns {
		if ref := p.columns[c].ref(i); ref > 0 {
			b.Add(p.columns[c].name, p.columns[c].values[ref-1])
		}
	}
}

// Value returns the value of a label of series i, empty when the series has none.
func (p *Page) Value(i int, name string) string {
	if c := p.column(name); c != nil {
		if ref := c.ref(i); ref > 0 {
			return c.values[ref-1]
		}
	}
	return ""
}

// LabelNames calls fn for the name of each label that one of the series at has.
func (p *Page) LabelNames(at []int, fn func(string)) {
	for c := range p.columns {
		for _, i := range at {
			if p.columns[c].ref(i) > 0 {
				fn(p.columns[c].name)
				break
			}
		}
	}
}

// Select appends to dst the series that satisfy all matchers, in label order. Each matcher is asked once for each value
// that occurs in the page.
func (p *Page) Select(dst []int, matchers []*labels.Matcher) []int {
	type filter struct {
		column *pageColumn
		pass   []bool // by ref
	}
	var filters []filter
	for _, m := range matchers {
		c := p.column(m.Name)
		if c == nil {
			if !m.Matches("") {
				return dst
			}
			continue
		}
		pass := make([]bool, len(c.values)+1)
		pass[0] = m.Matches("")
		all := pass[0]
		for i, v := range c.values {
			pass[i+1] = m.Matches(v)
			all = all && pass[i+1]
		}
		if !all {
			filters = append(filters, filter{c, pass})
		}
	}
series:
	for i := range p.hashes {
		for _, f := range filters {
			if !f.pass[f.column.ref(i)] {
				continue series
			}
		}
		dst = append(dst, i)
	}
	return dst
}

func (p *Page) column(name string) *pageColumn {
	for c := range p.columns {
		if p.columns[c].name == name {
			return &p.columns[c]
		}
	}
	return nil
}
