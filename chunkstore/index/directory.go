package index

import (
	"encoding/binary"
	"hash/crc32"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"
)

// Span is a piece of a chunk file: bytes [Start, End) of segment Segment.
type Span struct{ Segment, Start, End uint32 }

// PageEntry is what the directory says of a page.
type PageEntry struct {
	// Offset and Length are the page's bytes in the sidecar.
	Offset, Length int64
	// Series and Chunks count what is in the page, ChunkBytes is the sum of the chunks' lengths.
	Series, Chunks uint32
	ChunkBytes     int64
	// MinTime and MaxTime bound the chunks' samples, both inclusive, in milliseconds.
	MinTime, MaxTime int64
	// Spans hold all chunks of the page, one span for each chunk file. They may hold other pages' chunks, too.
	Spans []Span

	memory int64
}

// Memory returns about what the decoded page takes, rather more than less. Page.Bytes is exact.
func (e *PageEntry) Memory() int64 { return e.memory }

type pageEntry struct {
	PageEntry

	raw uint64
	sum uint32
}

// Metric is a metric of the block and its pages, [First, First+Pages).
type Metric struct {
	Name         string
	First, Pages int
}

// Directory is the end of a sidecar: which pages there are and what occurs in each. It is safe for concurrent use.
type Directory struct {
	// MinTime and MaxTime are the block's, half-open [MinTime, MaxTime), in milliseconds.
	MinTime, MaxTime int64
	Series, Chunks   uint64
	// Segments are the sizes of the chunk files in bytes.
	Segments []int64
	// Ordered is set when the pages, by number, hold all series in label order. Otherwise only each metric's pages do,
	// and a reader of several metrics merges them.
	Ordered bool

	metrics []Metric
	pages   []pageEntry
	labels  []*label
	bytes   int64        // without decoded labels
	decoded atomic.Int64 // of decoded labels
}

// label is a line of the directory with its section, which is decoded when it is first asked for.
type label struct {
	name   string
	values int
	text   int64     // bytes of the values
	absent []pageRun // pages with series that have the label and series that have not
	packed []byte
	raw    uint64
	sum    uint32

	mu      sync.Mutex
	decoded *values
}

// values are the values of a label in order; those of pages of value i are runs[starts[i]:starts[i+1]].
type values struct {
	names  []string
	starts []uint32
	runs   []pageRun
}

// FooterSize is how many bytes at the end of a sidecar DirectorySize needs.
const FooterSize = footerSize

// DirectorySize returns the size of the directory from the last bytes of a sidecar, at least FooterSize of them.
func DirectorySize(tail []byte) (int64, error) {
	f, err := parseFooter(tail)
	return int64(f.directory), err
}

type footer struct{ packed, raw, sum, directory uint32 }

func parseFooter(tail []byte) (footer, error) {
	if len(tail) < footerSize || string(tail[len(tail)-len(magic):]) != magic {
		return footer{}, damaged("no footer")
	}
	tail = tail[len(tail)-footerSize:]
	word := func(i int) uint32 { return binary.LittleEndian.Uint32(tail[4*i:]) }
	if crc32.Checksum(tail[:16], castagnoli) != word(4) {
		return footer{}, damaged("checksum of the footer differs")
	}
	f := footer{word(0), word(1), word(2), word(3)}
	if uint64(f.packed)+uint64(footerSize) > uint64(f.directory) {
		return footer{}, damaged("the footer contradicts itself")
	}
	return f, nil
}

// ParseDirectory reads the directory from the end of a sidecar; bytes before it are ignored. The bytes are retained.
func ParseDirectory(dec *Decoder, tail []byte) (*Directory, error) {
	f, err := parseFooter(tail)
	if err != nil {
		return nil, err
	}
	if uint64(f.directory) > uint64(len(tail)) {
		return nil, damaged("the directory is cut")
	}
	dir := tail[len(tail)-int(f.directory):]
	core, err := dec.unpack("the directory", dir[:f.packed], uint64(f.raw), f.sum)
	if err != nil {
		return nil, err
	}
	s := &scanner{b: core}
	d := &Directory{bytes: int64(len(dir)) + int64(unsafe.Sizeof(Directory{}))}
	s.head(d)
	s.metrics(d)
	s.pages(d)
	s.labels(d, dir[f.packed:len(dir)-footerSize])
	if err := s.end(); err != nil {
		return nil, err
	}
	return d, nil
}

func (s *scanner) head(d *Directory) {
	if v := s.uvarint(); s.err == nil && v != version {
		s.err = damaged("format is %d; %d is known", v, version)
	}
	d.MinTime, d.MaxTime = s.varint(), s.varint()
	d.Series, d.Chunks = s.uvarint(), s.uvarint()
	d.Ordered = s.uvarint() == 1
	d.Segments = make([]int64, s.count(1))
	for i := range d.Segments {
		d.Segments[i] = int64(s.u32())
	}
}

func (s *scanner) metrics(d *Directory) {
	d.metrics = make([]Metric, s.count(2))
	first := 0
	for i := range d.metrics {
		m := Metric{Name: s.string(), First: first, Pages: int(s.u32())}
		if s.err == nil && (m.Pages == 0 || i > 0 && d.metrics[i-1].Name >= m.Name) {
			s.fail("metrics are not in order")
		}
		d.metrics[i] = m
		first += m.Pages
		d.bytes += int64(len(m.Name)) + int64(unsafe.Sizeof(m))
	}
	if s.err == nil && first > len(s.b) {
		s.fail("more pages than what follows")
	}
}

func (s *scanner) pages(d *Directory) {
	want := 0
	if n := len(d.metrics); n > 0 {
		want = d.metrics[n-1].First + d.metrics[n-1].Pages
	}
	n := s.count(10)
	if s.err == nil && n != want {
		s.fail("metrics and pages contradict one another")
	}
	d.pages = make([]pageEntry, n)
	end := int64(len(magic))
	var series, chunks uint64
	for i := range d.pages {
		s.page(&d.pages[i], d, end)
		if s.err != nil {
			return
		}
		e := &d.pages[i]
		end = e.Offset + e.Length
		series, chunks = series+uint64(e.Series), chunks+uint64(e.Chunks)
		d.bytes += int64(unsafe.Sizeof(*e)) + int64(len(e.Spans))*int64(unsafe.Sizeof(Span{}))
	}
	if series != d.Series || chunks != d.Chunks {
		s.fail("pages do not add up to the block")
	}
}

func (s *scanner) page(e *pageEntry, d *Directory, end int64) {
	e.Offset, e.Length = end+s.varint(), int64(s.u32())
	e.raw, e.sum = s.uvarint(), s.fixed32()
	e.Series, e.Chunks = s.u32(), s.u32()
	e.ChunkBytes = int64(s.uvarint())
	e.MinTime = d.MinTime + s.varint()
	e.MaxTime = e.MinTime + int64(s.uvarint())
	// References take twice the bytes when decoded, and short strings more.
	e.memory = int64(unsafe.Sizeof(Page{})) + 3*int64(e.raw) + 12*int64(e.Series) + int64(unsafe.Sizeof(Chunk{}))*int64(e.Chunks)
	e.Spans = make([]Span, s.count(3))
	for i := range e.Spans {
		segment, start, length := s.u32(), s.u32(), s.u32()
		if s.err == nil && (int(segment) >= len(d.Segments) || int64(start)+int64(length) > d.Segments[segment]) {
			s.fail("a page's chunks lie behind their segment")
			return
		}
		e.Spans[i] = Span{segment, start, start + length}
	}
	if s.err == nil && (e.Offset < int64(len(magic)) || e.ChunkBytes < 0 || e.MaxTime < e.MinTime || e.Series == 0) {
		s.fail("a page is impossible")
	}
}

func (s *scanner) labels(d *Directory, sections []byte) {
	d.labels = make([]*label, s.count(6))
	for i := range d.labels {
		l := &label{name: s.string(), values: int(s.u32()), text: int64(s.u32())}
		l.absent = s.runs(nil, len(d.pages))
		packed := s.uvarint()
		l.raw, l.sum = s.uvarint(), s.fixed32()
		switch {
		case s.err != nil:
			return
		case packed > uint64(len(sections)):
			s.fail("a label's section is cut")
			return
		case i > 0 && d.labels[i-1].name >= l.name:
			s.fail("labels are not in order")
			return
		}
		l.packed, sections = sections[:packed], sections[packed:]
		d.labels[i] = l
		d.bytes += int64(unsafe.Sizeof(*l)) + 8 + int64(len(l.name)) + int64(len(l.absent))*int64(unsafe.Sizeof(pageRun{}))
	}
	if len(sections) > 0 {
		s.fail("bytes follow the labels")
	}
}

// Bytes returns about how much memory the directory takes now, rather more than less. It grows when a label is asked for
// by Candidates or LabelValues for the first time.
func (d *Directory) Bytes() int64 { return d.bytes + d.decoded.Load() }

// Metrics returns the metrics by name. Do not change them.
func (d *Directory) Metrics() []Metric { return d.metrics }

// Only returns a directory of some of the pages, numbered anew from 0 in the order given, and of nothing else: it decodes
// them and knows no labels. It shares no memory with d but the pages' spans, for who keeps the few pages of a query.
func (d *Directory) Only(numbers []int) *Directory {
	out := &Directory{MinTime: d.MinTime, MaxTime: d.MaxTime, Segments: slices.Clone(d.Segments), Ordered: d.Ordered}
	out.pages = make([]pageEntry, len(numbers))
	for i, number := range numbers {
		out.pages[i] = d.pages[number]
		out.Series += uint64(out.pages[i].Series)
		out.Chunks += uint64(out.pages[i].Chunks)
	}
	out.bytes = int64(unsafe.Sizeof(Directory{})) + int64(len(numbers))*int64(unsafe.Sizeof(pageEntry{})+unsafe.Sizeof(Span{}))
	return out
}

// Pages returns how many pages there are.
func (d *Directory) Pages() int { return len(d.pages) }

// Page returns what is known of a page.
func (d *Directory) Page(number int) *PageEntry { return &d.pages[number].PageEntry }

// LabelNames returns the names of all labels in order.
func (d *Directory) LabelNames() []string {
	out := make([]string, len(d.labels))
	for i, l := range d.labels {
		out[i] = l.name
	}
	return out
}

// LabelValues returns all values of a label in order, none for a label that does not occur. Do not change them.
func (d *Directory) LabelValues(dec *Decoder, name string) ([]string, error) {
	if name == labels.MetricName {
		out := make([]string, 0, len(d.metrics))
		for _, m := range d.metrics {
			if m.Name != "" {
				out = append(out, m.Name)
			}
		}
		return out, nil
	}
	l := d.label(name)
	if l == nil {
		return nil, nil
	}
	v, err := d.decode(dec, l)
	if err != nil {
		return nil, err
	}
	return v.names, nil
}

func (d *Directory) label(name string) *label {
	i, ok := slices.BinarySearchFunc(d.labels, name, func(l *label, name string) int { return strings.Compare(l.name, name) })
	if !ok {
		return nil
	}
	return d.labels[i]
}

// decode returns the values of a label, decoded once.
func (d *Directory) decode(dec *Decoder, l *label) (*values, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.decoded != nil {
		return l.decoded, nil
	}
	v, err := l.parse(dec, len(d.pages))
	if err == nil {
		l.decoded = v
		d.decoded.Add(l.text + int64(l.values)*20 + int64(l.raw)*4)
	}
	return v, err
}

func (l *label) parse(dec *Decoder, pages int) (*values, error) {
	raw, err := dec.unpack("label "+l.name, l.packed, l.raw, l.sum)
	if err != nil {
		return nil, err
	}
	s := &scanner{b: raw}
	if l.values > len(raw)/3 && l.name != labels.MetricName {
		return nil, damaged("label %s has fewer values than it says", l.name)
	}
	v := &values{names: make([]string, l.values), starts: make([]uint32, l.values+1)}
	before := ""
	for i := range v.names {
		shared := s.uvarint()
		if shared > uint64(len(before)) {
			s.fail("a value shares more than there is")
		}
		rest := s.bytes(s.uvarint())
		if s.err != nil {
			return nil, s.err
		}
		v.names[i] = before[:shared] + string(rest)
		if i > 0 && v.names[i] <= before {
			return nil, damaged("values of label %s are not in order", l.name)
		}
		before = v.names[i]
		v.runs = s.runs(v.runs, pages)
		v.starts[i+1] = uint32(len(v.runs))
	}
	if err := s.end(); err != nil {
		return nil, err
	}
	return v, nil
}

func (v *values) find(value string) (int, bool) {
	i := sort.SearchStrings(v.names, value)
	return i, i < len(v.names) && v.names[i] == value
}
