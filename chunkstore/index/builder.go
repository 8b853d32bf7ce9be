package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/prometheus/model/labels"
)

// Builder writes the sidecar of one block: pages while series come, the directory at the end. It holds the distinct
// label values and two numbers for each page in memory, and the pages that are being filled.
type Builder struct {
	w          io.Writer
	z          *zstd.Encoder
	mint, maxt int64
	segments   []int64
	// late is set when segments are not known before Finish; ends is then where the last chunk in each of them ends.
	late bool
	ends []int64

	offset  int64
	series  uint64
	chunks  uint64
	last    labels.Labels
	open    map[string]*pageBuilder
	pages   []builtPage // in the order of their bytes
	labels  map[string]*labelBuilder
	ordered bool
	metric  string // of the last series
	scratch []byte
	err     error
}

type builtPage struct {
	entry  pageEntry
	metric string
}

// labelBuilder collects the values of a label and in which pages they occur. Pages are numbered in the order of their
// bytes until Finish.
type labelBuilder struct {
	name   string
	values map[string]*valueBuilder
	absent []uint32 // pages in which some series has the label and some other has not
}

type valueBuilder struct {
	value string
	pages []uint32
}

// NewBuilder returns a builder that writes to w. mint and maxt are those of the block's meta.json, segments the sizes of
// its chunk files in bytes, by number.
func NewBuilder(w io.Writer, mint, maxt int64, segments []int64) (*Builder, error) {
	z, err := newEncoder()
	if err != nil {
		return nil, err
	}
	b := &Builder{
		w: w, z: z, mint: mint, maxt: maxt, segments: segments, ordered: true,
		open: map[string]*pageBuilder{}, labels: map[string]*labelBuilder{},
	}
	return b, b.write([]byte(magic))
}

// NewStreamBuilder is NewBuilder for a block whose chunk files are still being written: Segments says their sizes.
func NewStreamBuilder(w io.Writer, mint, maxt int64) (*Builder, error) {
	b, err := NewBuilder(w, mint, maxt, nil)
	if err == nil {
		b.late = true
	}
	return b, err
}

// Segments sets the sizes of the chunk files of a builder that NewStreamBuilder has made, before Finish.
func (b *Builder) Segments(sizes []int64) error {
	if b.err != nil {
		return b.err
	}
	for i, end := range b.ends {
		if i >= len(sizes) || end > sizes[i] {
			return b.fail(fmt.Errorf("a chunk ends at %d of file %d, and the files have %v", end, i+1, sizes))
		}
	}
	b.segments, b.late = sizes, false
	return nil
}

var errOrder = errors.New("series are not in label order")

// Add adds a series. Series come in label order, each once, as in the block's index. Labels and chunks are copied.
func (b *Builder) Add(lset labels.Labels, chunks []Chunk) error {
	if b.err != nil {
		return b.err
	}
	if b.series > 0 && labels.Compare(b.last, lset) >= 0 {
		return b.fail(fmt.Errorf("%w: %s after %s", errOrder, lset, b.last))
	}
	for _, c := range chunks {
		if c.Length == 0 || c.MaxTime < c.MinTime || !b.fits(c) {
			return b.fail(fmt.Errorf("chunk of %s is impossible: %+v", lset, c))
		}
	}
	b.last = lset.Copy()
	metric := lset.Get(labels.MetricName)
	if b.series > 0 && metric < b.metric {
		b.ordered = false
	}
	b.series++
	b.chunks += uint64(len(chunks))
	p, err := b.page(metric)
	if err != nil {
		return b.fail(err)
	}
	lset.Range(func(l labels.Label) { p.label(b.intern(l.Name, l.Value)) })
	p.add(labels.StableHash(lset), chunks)
	if p.full() {
		return b.flush(p)
	}
	return nil
}

// fits reports whether a chunk lies within its file, as far as the file is known.
func (b *Builder) fits(c Chunk) bool {
	end := int64(c.Offset) + int64(c.Length)
	if !b.late {
		return int(c.Segment) < len(b.segments) && end <= b.segments[c.Segment]
	}
	for int(c.Segment) >= len(b.ends) {
		if len(b.ends) >= maxSegments {
			return false
		}
		b.ends = append(b.ends, 0)
	}
	b.ends[c.Segment] = max(b.ends[c.Segment], end)
	return true
}

// maxSegments bounds what an impossible number costs: no block comes near it.
const maxSegments = 1 << 20

func (b *Builder) fail(err error) error {
	b.err = fmt.Errorf("build sidecar: %w", err)
	return b.err
}

// page returns the open page of a metric. Mostly the metric is that of the series before; others stay open as long as
// there is room, because a label that sorts before the name of the metric makes metrics alternate.
func (b *Builder) page(metric string) (*pageBuilder, error) {
	if p, ok := b.open[metric]; ok {
		b.metric = p.metric
		return p, nil
	}
	used := 0
	for _, p := range b.open {
		used += p.bytes
	}
	if used > maxOpenBytes || b.ordered {
		if err := b.flushAll(); err != nil {
			return nil, err
		}
	}
	metric = strings.Clone(metric)
	p := newPageBuilder(metric)
	b.open[metric], b.metric = p, metric
	return p, nil
}

// intern returns own copies of a label's strings.
func (b *Builder) intern(name, value string) (ownName, ownValue string) {
	l := b.labels[name]
	if l == nil {
		l = &labelBuilder{name: strings.Clone(name), values: map[string]*valueBuilder{}}
		b.labels[l.name] = l
	}
	v := l.values[value]
	if v == nil {
		v = &valueBuilder{value: strings.Clone(value)}
		l.values[v.value] = v
	}
	return l.name, v.value
}

func (b *Builder) flushAll() error {
	open := make([]*pageBuilder, 0, len(b.open))
	for _, p := range b.open {
		open = append(open, p)
	}
	slices.SortFunc(open, func(x, y *pageBuilder) int { return strings.Compare(x.metric, y.metric) })
	for _, p := range open {
		if err := b.flush(p); err != nil {
			return err
		}
	}
	return nil
}

// flush writes a page and notes what occurs in it.
func (b *Builder) flush(p *pageBuilder) error {
	delete(b.open, p.metric)
	columns := p.sorted()
	number := uint32(len(b.pages))
	for _, c := range columns {
		l := b.labels[c.name]
		for _, v := range c.values {
			values := l.values[v]
			values.pages = append(values.pages, number)
		}
		if c.someAbsent() {
			l.absent = append(l.absent, number)
		}
	}
	b.scratch = p.encode(b.scratch[:0], columns, b.mint)
	e := p.entry()
	e.raw, e.Offset = uint64(len(b.scratch)), b.offset
	packed := b.z.EncodeAll(b.scratch, nil)
	e.Length, e.sum = int64(len(packed)), crc32.Checksum(packed, castagnoli)
	b.pages = append(b.pages, builtPage{e, p.metric})
	return b.write(packed)
}

// entry is what the directory says of the page apart from its place.
func (p *pageBuilder) entry() pageEntry {
	e := pageEntry{PageEntry: PageEntry{Series: uint32(len(p.hashes)), Chunks: uint32(len(p.chunks))}}
	for i, c := range p.chunks {
		e.ChunkBytes += int64(c.Length)
		if i == 0 || c.MinTime < e.MinTime {
			e.MinTime = c.MinTime
		}
		if i == 0 || c.MaxTime > e.MaxTime {
			e.MaxTime = c.MaxTime
		}
		e.Spans = addSpan(e.Spans, c)
	}
	return e
}

// addSpan widens the span of the chunk's segment, of which there is one at most.
func addSpan(spans []Span, c Chunk) []Span {
	end := c.Offset + c.Length
	for i := range spans {
		if s := &spans[i]; s.Segment == c.Segment {
			s.Start, s.End = min(s.Start, c.Offset), max(s.End, end)
			return spans
		}
	}
	return append(spans, Span{Segment: c.Segment, Start: c.Offset, End: end})
}

func (b *Builder) write(p []byte) error {
	n, err := b.w.Write(p)
	b.offset += int64(n)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return b.fail(err)
	}
	return nil
}

// Finish writes the last pages and the directory. It returns the sizes of the whole object and of the directory at its
// end in bytes. The builder is done then.
func (b *Builder) Finish() (size, directory int64, err error) {
	if b.err != nil {
		return 0, 0, b.err
	}
	if b.late {
		return 0, 0, b.fail(errors.New("the sizes of its chunk files are not known"))
	}
	if err := b.flushAll(); err != nil {
		return 0, 0, err
	}
	moved := b.number()
	var sections []byte
	core := b.core(moved, &sections)
	packed := b.z.EncodeAll(core, nil)
	begin := b.offset
	footer := appendFooter(nil, uint32(len(packed)), uint32(len(core)), crc32.Checksum(packed, castagnoli),
		uint32(len(packed)+len(sections)+footerSize))
	for _, part := range [][]byte{packed, sections, footer} {
		if err := b.write(part); err != nil {
			return 0, 0, err
		}
	}
	b.err = errors.New("build sidecar: it is finished")
	return b.offset, b.offset - begin, b.z.Close()
}

// number gives the pages their numbers, by metric and then in order, and returns the number of each by its old one.
func (b *Builder) number() []uint32 {
	order := make([]uint32, len(b.pages))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortStableFunc(order, func(x, y uint32) int { return strings.Compare(b.pages[x].metric, b.pages[y].metric) })
	moved, pages := make([]uint32, len(order)), make([]builtPage, len(order))
	for i, old := range order {
		moved[old], pages[i] = uint32(i), b.pages[old]
	}
	b.pages = pages
	return moved
}

// core returns the part of the directory that every query needs, and appends the labels' sections to sections.
func (b *Builder) core(moved []uint32, sections *[]byte) []byte {
	out := binary.AppendUvarint(nil, version)
	out = binary.AppendVarint(out, b.mint)
	out = binary.AppendVarint(out, b.maxt)
	out = binary.AppendUvarint(out, b.series)
	out = binary.AppendUvarint(out, b.chunks)
	if b.ordered {
		out = append(out, 1)
	} else {
		out = append(out, 0)
	}
	out = binary.AppendUvarint(out, uint64(len(b.segments)))
	for _, size := range b.segments {
		out = binary.AppendUvarint(out, uint64(size))
	}
	out = b.metricTable(out)
	out = b.pageTable(out)
	names := make([]string, 0, len(b.labels))
	for name := range b.labels {
		names = append(names, name)
	}
	slices.Sort(names)
	out = binary.AppendUvarint(out, uint64(len(names)))
	for _, name := range names {
		out = b.label(out, b.labels[name], moved, sections)
	}
	return out
}

func (b *Builder) metricTable(out []byte) []byte {
	var table []byte
	metrics := 0
	for i := 0; i < len(b.pages); {
		j := i
		for j < len(b.pages) && b.pages[j].metric == b.pages[i].metric {
			j++
		}
		table = appendString(table, b.pages[i].metric)
		table = binary.AppendUvarint(table, uint64(j-i))
		metrics++
		i = j
	}
	return append(binary.AppendUvarint(out, uint64(metrics)), table...)
}

func (b *Builder) pageTable(out []byte) []byte {
	end := int64(len(magic))
	out = binary.AppendUvarint(out, uint64(len(b.pages)))
	for _, p := range b.pages {
		e := &p.entry
		out = binary.AppendVarint(out, e.Offset-end)
		end = e.Offset + e.Length
		out = binary.AppendUvarint(out, uint64(e.Length))
		out = binary.AppendUvarint(out, e.raw)
		out = binary.LittleEndian.AppendUint32(out, e.sum)
		out = binary.AppendUvarint(out, uint64(e.Series))
		out = binary.AppendUvarint(out, uint64(e.Chunks))
		out = binary.AppendUvarint(out, uint64(e.ChunkBytes))
		out = binary.AppendVarint(out, e.MinTime-b.mint)
		out = binary.AppendUvarint(out, uint64(e.MaxTime-e.MinTime))
		out = binary.AppendUvarint(out, uint64(len(e.Spans)))
		for _, s := range e.Spans {
			out = binary.AppendUvarint(out, uint64(s.Segment))
			out = binary.AppendUvarint(out, uint64(s.Start))
			out = binary.AppendUvarint(out, uint64(s.End-s.Start))
		}
	}
	return out
}

// label appends the label's line to out and its section, the values with their pages, to sections. The metric's name has
// no section: the table of metrics says it.
func (b *Builder) label(out []byte, l *labelBuilder, moved []uint32, sections *[]byte) []byte {
	values := make([]*valueBuilder, 0, len(l.values))
	bytes := 0
	for _, v := range l.values {
		values = append(values, v)
		bytes += len(v.value)
	}
	slices.SortFunc(values, func(x, y *valueBuilder) int { return strings.Compare(x.value, y.value) })
	out = appendString(out, l.name)
	out = binary.AppendUvarint(out, uint64(len(values)))
	out = binary.AppendUvarint(out, uint64(bytes))
	out = appendRuns(out, renumber(l.absent, moved))
	var section []byte
	before := ""
	for _, v := range values {
		if l.name == labels.MetricName {
			break
		}
		shared := sharedPrefix(before, v.value)
		section = binary.AppendUvarint(section, uint64(shared))
		section = appendString(section, v.value[shared:])
		section = appendRuns(section, renumber(v.pages, moved))
		before = v.value
	}
	var packed []byte
	if len(section) > 0 {
		packed = b.z.EncodeAll(section, nil)
	}
	*sections = append(*sections, packed...)
	out = binary.AppendUvarint(out, uint64(len(packed)))
	out = binary.AppendUvarint(out, uint64(len(section)))
	return binary.LittleEndian.AppendUint32(out, crc32.Checksum(packed, castagnoli))
}

func renumber(pages, moved []uint32) []uint32 {
	for i, p := range pages {
		pages[i] = moved[p]
	}
	slices.Sort(pages)
	return pages
}

func sharedPrefix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// appendFooter appends the end of the object: sizes of the core, packed and raw, its checksum, the size of the directory
// with this footer, the checksum of those, and the magic.
func appendFooter(b []byte, packed, raw, sum, directory uint32) []byte {
	begin := len(b)
	for _, v := range []uint32{packed, raw, sum, directory} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[begin:], castagnoli))
	return append(b, magic...)
}
