package duramenpb

import (
	"encoding/binary"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
)

// SectionVersion is the first byte of a section. The layout is in ingester/docs/push-protocol.md.
const SectionVersion = 1

const (
	// fullSectionBytes and fullSectionLabels are when a section is Full: small beside what a peer has in flight, large
	// enough that what is said once per section costs nothing.
	fullSectionBytes  = 1 << 20
	fullSectionLabels = 16 << 20
	// MaxSectionBytes is what a section may be at most; senders begin another one when the present one is Full.
	MaxSectionBytes = 12 << 20
	// maxSectionLabels bounds the label sets that a decoder builds of one section, in bytes: symbols let a few bytes stand
	// for many.
	maxSectionLabels = 256 << 20
	// keptSymbols is how large a symbol table may be and yet be kept for the next section.
	keptSymbols = 64 << 10
)

// Kinds of entries: the low three bits of an entry's first byte.
const (
	entryRef       = iota // a series by reference
	entryRefFloat         // a series by reference, and its first float
	entryLabels           // a series with labels
	entryFloat            // one more float of the present series
	entryHistogram        // a histogram of the present series
	entryExemplar         // an exemplar of the present series
	entryMetadata         // metadata of a metric family
	entryKinds

	entryBits = 3
	entryMask = 1<<entryBits - 1
)

// Flags of the first byte of a sample: what differs from the sample before it in the section.
const (
	flagTime  = 1 << entryBits       // the timestamp
	flagStart = 1 << (entryBits + 1) // the start timestamp
	formShift = entryBits + 2        // of floats: the value's form, in three bits
	flagFloat = 1 << (entryBits + 2) // of histograms: it is one of floats
)

// Forms of a float64.
const (
	formRaw   = iota // eight bytes, little-endian
	formWhole        // a uvarint: a whole number from zero on
	formMinus        // a uvarint: a negative whole number
	formMilli        // a varint: a number of thousandths
	formStale        // nothing: the marker of a series' end
	formTop2         // the two, four, or six highest bytes, little-endian; the others are zero
	formTop4
	formTop6
	forms
)

// SectionEncoder writes sections. The zero value is ready; it keeps its memory from one section to the next. The order is
// Begin, then for each series Series and its samples and exemplars, Metadata at any time, Finish.
//
// Hot: without labels it allocates nothing but what buf lacks.
type SectionEncoder struct {
	buf     []byte
	base    int // where the section begins in buf
	ref     uint64
	t, st   int64
	pending bool // the series of ref is not written yet: its first float goes into the same entry

	refDelta   int64
	symbols    map[string]uint32
	labelBytes int
}

// Begin starts a section of a tenant, which is appended to buf. incarnation is the life of the tenant's TSDB to which all
// references of the section belong; 0 when there are none.
func (e *SectionEncoder) Begin(buf []byte, tenant string, incarnation uint64) {
	e.base = len(buf)
	e.buf = append(buf, SectionVersion)
	e.buf = appendText(e.buf, tenant)
	e.buf = binary.LittleEndian.AppendUint64(e.buf, incarnation)
	e.ref, e.t, e.st, e.pending, e.labelBytes = 0, 0, 0, false, 0
}

// Series begins an occurrence of a series: by ref, or with lset when ref is 0. A section may have a series more than once.
// lset is read until Finish.
func (e *SectionEncoder) Series(ref uint64, lset labels.Labels) {
	e.flush()
	if ref != 0 {
		e.refDelta, e.ref, e.pending = int64(ref-e.ref), ref, true
		return
	}
	e.buf = append(e.buf, entryLabels)
	e.labels(lset)
}

// flush writes a series of which no float came first.
func (e *SectionEncoder) flush() {
	if e.pending {
		e.pending = false
		e.buf = binary.AppendVarint(append(e.buf, entryRef), e.refDelta)
	}
}

// Float adds a sample to the present series. t and st are milliseconds; st is 0 when unknown.
func (e *SectionEncoder) Float(t, st int64, v float64) {
	form, bits := formOf(v)
	at := len(e.buf)
	e.buf = append(e.buf, byte(entryFloat|form<<formShift))
	if e.pending {
		e.pending = false
		e.buf[at] ^= entryFloat ^ entryRefFloat
		e.buf = binary.AppendVarint(e.buf, e.refDelta)
	}
	e.times(at, t, st)
	e.buf = appendForm(e.buf, form, bits)
}

// times appends what differs from the sample before, and says so in the byte at.
func (e *SectionEncoder) times(at int, t, st int64) {
	if t != e.t {
		e.buf[at] |= flagTime
		e.buf = binary.AppendVarint(e.buf, t-e.t)
		e.t = t
	}
	if st != e.st {
		e.buf[at] |= flagStart
		e.buf = binary.AppendVarint(e.buf, st-e.st)
		e.st = st
	}
}

// Histogram adds a native histogram to the present series: h, or fh for one of floats. They are read until it returns.
func (e *SectionEncoder) Histogram(t, st int64, h *histogram.Histogram, fh *histogram.FloatHistogram) {
	e.flush()
	at := len(e.buf)
	e.buf = append(e.buf, entryHistogram)
	e.times(at, t, st)
	if fh != nil {
		e.buf[at] |= flagFloat
		e.buf = appendFloatHistogram(e.buf, fh)
		return
	}
	e.buf = appendHistogram(e.buf, h)
}

// Exemplar adds an exemplar to the present series. Its labels are read until Finish.
func (e *SectionEncoder) Exemplar(ex Exemplar) {
	e.flush()
	e.buf = append(e.buf, entryExemplar)
	e.buf = binary.AppendVarint(e.buf, ex.T-e.t) // exemplars are about as old as samples; e.t stays the samples'
	e.buf = appendFloat(e.buf, ex.V)
	e.labels(ex.Labels)
}

// Metadata adds the metadata of a metric family, which belongs to no series. Its strings are read until Finish.
func (e *SectionEncoder) Metadata(m Metadata) {
	e.flush()
	e.buf = append(e.buf, entryMetadata)
	for _, s := range [...]string{m.Family, m.Type, m.Help, m.Unit} {
		e.symbol(s)
	}
}

func (e *SectionEncoder) labels(lset labels.Labels) {
	e.buf = binary.AppendUvarint(e.buf, uint64(lset.Len()))
	lset.Range(func(l labels.Label) {
		e.labelBytes += len(l.Name) + len(l.Value)
		e.symbol(l.Name)
		e.symbol(l.Value)
	})
}

// symbol writes a string in full where it occurs first, and its number from then on.
func (e *SectionEncoder) symbol(s string) {
	if n, ok := e.symbols[s]; ok {
		e.buf = binary.AppendUvarint(e.buf, uint64(n)+1)
		return
	}
	if e.symbols == nil {
		e.symbols = map[string]uint32{}
	}
	e.symbols[s] = uint32(len(e.symbols))
	e.buf = appendText(append(e.buf, 0), s)
}

// Len is how many bytes the section has so far.
func (e *SectionEncoder) Len() int { return len(e.buf) - e.base }

// Full reports that the section is to be finished and another one begun. Ask before each series, and every few hundred
// samples of a long one: it may go on in the next section, named again.
func (e *SectionEncoder) Full() bool {
	return e.Len() >= fullSectionBytes || e.labelBytes >= fullSectionLabels
}

// Finish ends the section and returns buf with the section behind what it had. The encoder keeps neither it nor strings.
func (e *SectionEncoder) Finish() []byte {
	e.flush()
	if len(e.symbols) > keptSymbols {
		e.symbols = nil
	}
	clear(e.symbols)
	buf := e.buf
	e.buf = nil
	return buf
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// isSet reports whether v is anything but the plain zero.
func isSet(v float64) bool { return math.Float64bits(v) != 0 }

const (
	// maxWhole and maxMilli are where a varint stops being shorter than eight bytes.
	maxWhole = 1 << 49
	maxMilli = 1 << 48
)

// formOf returns the shortest form of v and the bits that it is made of: v's own, or an integer.
func formOf(v float64) (form int, bits uint64) {
	bits = math.Float64bits(v)
	if n := int64(v); v < maxWhole && v > -maxWhole && float64(n) == v {
		switch {
		case n > 0, bits == 0:
			return formWhole, uint64(n)
		case n < 0:
			return formMinus, uint64(-n)
		}
		// what is left is minus zero
	}
	switch {
	case bits<<16 == 0:
		return formTop2, bits >> 48
	case bits<<32 == 0:
		return formTop4, bits >> 32
	case bits == value.StaleNaN:
		return formStale, 0
	}
	if m := v * 1000; m < maxMilli && m > -maxMilli {
		if n := int64(math.Round(m)); math.Float64bits(float64(n)/1000) == bits {
			return formMilli, uint64(n)<<1 ^ uint64(n>>63)
		}
	}
	if bits<<48 == 0 {
		return formTop6, bits >> 16
	}
	return formRaw, bits
}

func appendForm(dst []byte, form int, bits uint64) []byte {
	switch form {
	case formWhole, formMinus, formMilli:
		return binary.AppendUvarint(dst, bits)
	case formStale:
		return dst
	case formTop2:
		return binary.LittleEndian.AppendUint16(dst, uint16(bits))
	case formTop4:
		return binary.LittleEndian.AppendUint32(dst, uint32(bits))
	case formTop6:
		return append(dst, byte(bits), byte(bits>>8), byte(bits>>16), byte(bits>>24), byte(bits>>32), byte(bits>>40))
	default:
		return binary.LittleEndian.AppendUint64(dst, bits)
	}
}

// appendFloat appends a float64 with a byte that says its form.
func appendFloat(dst []byte, v float64) []byte {
	form, bits := formOf(v)
	return appendForm(append(dst, byte(form)), form, bits)
}
