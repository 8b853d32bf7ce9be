package duramenpb

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// ResultVersion is the first byte of an answer to a section. The layout is in ingester/docs/push-protocol.md.
const ResultVersion = 1

// maxResultSeries bounds what an answer may say of its section: no section has more series.
const maxResultSeries = MaxSectionBytes / 2

// Range is a part of a Batch: of each slice, from the first of the two indexes to before the second. A batch into which
// several sections went has one Range for each.
type Range struct{ Series, Floats, Histograms, Exemplars [2]int }

// All is the Range of everything in b.
func (b *Batch) All() Range {
	return Range{
		Series: [2]int{0, len(b.Series)}, Floats: [2]int{0, len(b.Floats)},
		Histograms: [2]int{0, len(b.Histograms)}, Exemplars: [2]int{0, len(b.Exemplars)},
	}
}

// AppendResult appends what r, the verdict on b, says of the part at, with the indexes of that part. exemplars is how many
// of it are stored.
func AppendResult(dst []byte, b *Batch, r *PushResult, at Range, exemplars int) []byte {
	floats, histograms := at.Floats[1]-at.Floats[0], at.Histograms[1]-at.Histograms[0]
	within := func(series int) bool { return series >= at.Series[0] && series < at.Series[1] }
	stale, refused := 0, 0
	for _, i := range r.Stale {
		if within(i) {
			f, h := samplesBefore(b, i)
			floats -= b.Series[i].FloatsEnd - f
			histograms -= b.Series[i].HistogramsEnd - h
			stale++
		}
	}
	for i := range r.Refused {
		if f := &r.Refused[i]; within(f.Series) {
			floats -= f.Floats
			histograms -= f.Histograms
			refused++
		}
	}
	dst = binary.LittleEndian.AppendUint64(append(dst, ResultVersion), r.Incarnation)
	for _, n := range [...]int{floats, histograms, exemplars} {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	dst = appendRefs(dst, b.Series[at.Series[0]:at.Series[1]], r.Refs[at.Series[0]:at.Series[1]])
	dst = binary.AppendUvarint(dst, uint64(stale))
	for _, i := range r.Stale {
		if within(i) {
			dst = binary.AppendUvarint(dst, uint64(i-at.Series[0]))
		}
	}
	dst = binary.AppendUvarint(dst, uint64(refused))
	if refused == 0 {
		return dst
	}
	symbols := map[string]int{}
	for i := range r.Refused {
		if f := &r.Refused[i]; within(f.Series) {
			dst = appendRefusal(dst, f, at, symbols)
		}
	}
	return dst
}

// samplesBefore returns where the samples of series i begin.
func samplesBefore(b *Batch, i int) (floats, histograms int) {
	if i == 0 {
		return 0, 0
	}
	return b.Series[i-1].FloatsEnd, b.Series[i-1].HistogramsEnd
}

// appendRefs appends the references of series that went with labels: each behind how many went by reference before it.
func appendRefs(dst []byte, series []Series, refs []uint64) []byte {
	labelled := 0
	for i := range series {
		if series[i].Ref == 0 {
			labelled++
		}
	}
	dst = binary.AppendUvarint(dst, uint64(labelled))
	if labelled == 0 {
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(len(series)))
	skipped, last := 0, uint64(0)
	for i := range series {
		if series[i].Ref != 0 {
			skipped++
			continue
		}
		dst = binary.AppendUvarint(dst, uint64(skipped))
		dst = binary.AppendVarint(dst, int64(refs[i]-last))
		skipped, last = 0, refs[i]
	}
	return dst
}

func appendRefusal(dst []byte, f *Refusal, at Range, symbols map[string]int) []byte {
	dst = binary.AppendUvarint(dst, uint64(f.Series-at.Series[0]))
	for _, s := range [...]string{string(f.Reason), f.Detail} {
		if n, ok := symbols[s]; ok {
			dst = binary.AppendUvarint(dst, uint64(n))
			continue
		}
		symbols[s] = len(symbols) + 1
		dst = appendText(append(dst, 0), s)
	}
	dst = binary.AppendVarint(dst, f.Timestamp)
	dst = binary.AppendUvarint(dst, uint64(f.Floats))
	dst = binary.AppendUvarint(dst, uint64(f.Histograms))
	dst = binary.AppendUvarint(dst, uint64(len(f.Samples)))
	last := int64(0)
	for _, s := range f.Samples {
		n := int64(s) - int64(at.Floats[0])
		if s < 0 {
			n = int64(s) + int64(at.Histograms[0])
		}
		dst = binary.AppendVarint(dst, n-last)
		last = n
	}
	return dst
}

// DecodeResult reads an answer into r, whose memory is used again. Strings are copied. A version that this build does not
// know is ErrVersion. What it allocates is bounded by the length of data, but for Refs, of which there are at most as many
// as a section can have series.
func DecodeResult(data []byte, r *PushResult) error {
	r.Reset()
	d := newDecoder(data)
	if v := d.byte(); d.err == nil && v != ResultVersion {
		return fmt.Errorf("push answer: %w %d, this release speaks %d", ErrVersion, v, ResultVersion)
	}
	if b := d.bytes(8); b != nil {
		r.Incarnation = binary.LittleEndian.Uint64(b)
	}
	r.Floats, r.Histograms, r.Exemplars = d.number(), d.number(), d.number()
	d.refs(r)
	for range d.count(1) {
		r.Stale = append(r.Stale, d.number())
	}
	if n := d.count(8); n > 0 {
		d.refusals(r, n)
	}
	if d.more() {
		d.fail("more than an answer")
	}
	if d.err != nil {
		r.Reset()
		return fmt.Errorf("push answer: %w", d.err)
	}
	return nil
}

// number reads a count of things in a section.
func (d *decoder) number() int {
	v := d.uvarint()
	if v > MaxSectionBytes {
		d.fail("too large a number")
		return 0
	}
	return int(v)
}

func (d *decoder) refs(r *PushResult) {
	labelled := d.count(2)
	if labelled == 0 {
		return
	}
	n := d.number()
	if n > maxResultSeries || labelled > n {
		d.fail("too many series")
		return
	}
	r.Refs = slices.Grow(r.Refs, n)[:n]
	clear(r.Refs)
	at, last := 0, uint64(0)
	for range labelled {
		at += d.number()
		last += uint64(d.varint())
		if at >= n {
			d.fail("reference of no series")
			return
		}
		r.Refs[at] = last
		at++
	}
}

func (d *decoder) refusals(r *PushResult, n int) {
	var symbols []string
	symbol := func() string {
		switch i := d.uvarint(); {
		case i == 0:
			symbols = append(symbols, string(d.text()))
			return symbols[len(symbols)-1]
		case i > uint64(len(symbols)):
			d.fail("unknown symbol")
			return ""
		default:
			return symbols[i-1]
		}
	}
	for range n {
		f := Refusal{Series: d.number(), Reason: Reason(symbol()), Detail: symbol(), Timestamp: d.varint()}
		f.Floats, f.Histograms = d.number(), d.number()
		last := int64(0)
		for range d.count(1) {
			if last += d.varint(); last < -maxResultSeries || last >= MaxSectionBytes {
				d.fail("too large a number")
			}
			f.Samples = append(f.Samples, int32(last))
		}
		if d.err != nil {
			return
		}
		r.Refused = append(r.Refused, f)
	}
}
