package duramenpb

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"
)

// SectionHeader is what a section says once.
type SectionHeader struct {
	// Tenant is as it was sent; nobody has looked whether it can name a tenant.
	Tenant      string
	Incarnation uint64
}

// ParseSectionHeader reads the header of a section. A version that this build does not know is ErrVersion.
func ParseSectionHeader(section []byte) (SectionHeader, error) {
	d := newDecoder(section)
	h := d.header()
	if d.err != nil {
		return SectionHeader{}, fmt.Errorf("push section: %w", d.err)
	}
	return SectionHeader{string(h.tenant), h.incarnation}, nil
}

type sectionHeader struct {
	tenant      []byte
	incarnation uint64
}

func (d *decoder) header() (h sectionHeader) {
	if v := d.byte(); d.err == nil && v != SectionVersion {
		d.err = fmt.Errorf("%w %d, this release speaks %d", ErrVersion, v, SectionVersion)
		d.b = nil
		return h
	}
	h.tenant = d.text()
	if b := d.bytes(8); b != nil {
		h.incarnation = binary.LittleEndian.Uint64(b)
	}
	return h
}

// SectionDecoder reads sections into batches. The zero value is ready; it keeps its memory from one section to the next.
// Not safe for concurrent use.
type SectionDecoder struct {
	decoder

	batch      *Batch
	ref        uint64
	t, st      int64
	symbols    [][]byte // views of the section
	builder    labels.ScratchBuilder
	labelBytes int
}

// Decode appends the series, samples, exemplars and metadata of a section to b, and leaves b.Incarnation alone. What it
// appends owns its memory: the section may be reused at once. After an error b holds some of the section; cut it back.
//
// It allocates for label sets, histograms and metadata alone, at most some ten times the section's size and 256 MiB of
// label sets; more is an error.
//
// Hot: floats by reference cost a few nanoseconds each and allocate nothing.
func (s *SectionDecoder) Decode(section []byte, b *Batch) error {
	s.decoder = newDecoder(section)
	s.decoder.header()
	s.batch, s.ref, s.t, s.st, s.labelBytes = b, 0, 0, 0, 0
	s.builder.SetUnsafeAdd(true)
	before := len(b.Series)
	s.entries()
	s.close(before)
	err := s.err
	s.batch, s.decoder = nil, decoder{}
	if clear(s.symbols); cap(s.symbols) > keptSymbols {
		s.symbols = nil
	}
	s.symbols = s.symbols[:0]
	s.builder.Reset()
	if err != nil {
		return fmt.Errorf("push section: %w", err)
	}
	return nil
}

func (s *SectionDecoder) entries() {
	before := len(s.batch.Series)
	for s.more() {
		first := s.byte()
		switch first & entryMask {
		case entryRefFloat:
			s.series(before, false)
			s.floatSample(first)
		case entryFloat:
			s.within(before)
			s.floatSample(first)
		case entryRef:
			s.plain(first)
			s.series(before, false)
		case entryLabels:
			s.plain(first)
			s.series(before, true)
		case entryHistogram:
			s.within(before)
			s.histogramSample(first)
		case entryExemplar:
			s.plain(first)
			s.within(before)
			s.exemplar()
		case entryMetadata:
			s.plain(first)
			s.metadata()
		default:
			s.fail("unknown entry")
		}
	}
}

// plain refuses flags where none are defined: they would mean something to a later version.
func (s *SectionDecoder) plain(first byte) {
	if first&^entryMask != 0 {
		s.fail("unknown flags of an entry")
	}
}

func (s *SectionDecoder) within(before int) {
	if len(s.batch.Series) == before {
		s.fail("sample before any series")
	}
}

// close notes where the samples of the series before end; from is the number of series before the section.
func (s *SectionDecoder) close(from int) {
	if b := s.batch; len(b.Series) > from {
		last := &b.Series[len(b.Series)-1]
		last.FloatsEnd, last.HistogramsEnd, last.ExemplarsEnd = len(b.Floats), len(b.Histograms), len(b.Exemplars)
	}
}

func (s *SectionDecoder) series(from int, labelled bool) {
	s.close(from)
	if labelled {
		s.batch.Series = append(s.batch.Series, Series{Labels: s.labels()})
		return
	}
	s.ref += uint64(s.varint())
	if s.ref == 0 && s.err == nil {
		s.fail("reference of zero")
	}
	s.batch.Series = append(s.batch.Series, Series{Ref: s.ref})
}

func (s *SectionDecoder) times(first byte) {
	if first&flagTime != 0 {
		s.t += s.varint()
	}
	if first&flagStart != 0 {
		s.st += s.varint()
	}
}

func (s *SectionDecoder) floatSample(first byte) {
	s.times(first)
	v := s.form(int(first >> formShift))
	if s.err == nil {
		s.batch.Floats = append(s.batch.Floats, Float{T: s.t, ST: s.st, V: v})
	}
}

func (s *SectionDecoder) histogramSample(first byte) {
	if first&^(entryMask|flagTime|flagStart|flagFloat) != 0 {
		s.fail("unknown flags of a histogram")
		return
	}
	s.times(first)
	h := Histogram{T: s.t, ST: s.st}
	if first&flagFloat != 0 {
		h.FH = s.floatHistogram()
	} else {
		h.H = s.histogram()
	}
	if s.err == nil {
		s.batch.Histograms = append(s.batch.Histograms, h)
	}
}

func (s *SectionDecoder) exemplar() {
	e := Exemplar{T: s.t + s.varint(), V: s.float(), Labels: s.labels()}
	if s.err == nil {
		s.batch.Exemplars = append(s.batch.Exemplars, e)
	}
}

func (s *SectionDecoder) metadata() {
	m := Metadata{
		Family: string(s.symbol()), Type: string(s.symbol()), Help: string(s.symbol()), Unit: string(s.symbol()),
	}
	s.counted(len(m.Family) + len(m.Type) + len(m.Help) + len(m.Unit))
	if s.err == nil {
		s.batch.Metadata = append(s.batch.Metadata, m)
	}
}

// labels builds a label set that owns its memory.
func (s *SectionDecoder) labels() labels.Labels {
	n := s.count(2)
	s.builder.Reset()
	last := ""
	for range n {
		name, val := view(s.symbol()), view(s.symbol())
		if s.counted(len(name) + len(val)); s.err != nil {
			return labels.EmptyLabels()
		}
		if name < last {
			s.fail("labels out of order")
			return labels.EmptyLabels()
		}
		last = name
		s.builder.Add(name, val)
	}
	return s.builder.Labels()
}

// counted adds to the bytes that the decoder has built of symbols.
func (s *SectionDecoder) counted(n int) {
	if s.labelBytes += n; s.labelBytes > maxSectionLabels {
		s.fail("label sets of too many bytes")
	}
}

// symbol returns a string as a view of the section.
func (s *SectionDecoder) symbol() []byte {
	n := s.uvarint()
	switch {
	case s.err != nil:
		return nil
	case n == 0:
		v := s.text()
		s.symbols = append(s.symbols, v)
		return v
	case n > uint64(len(s.symbols)):
		s.fail("unknown symbol")
		return nil
	default:
		return s.symbols[n-1]
	}
}

// view returns b as a string, valid as long as b is.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
