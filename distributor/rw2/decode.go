// Package rw2 decodes remote write 2.0, the message io.prometheus.write.v2.Request, in one pass over the body. It
// refuses what is not protobuf and a symbol table that does not begin with the empty string, and judges nothing else.
// Read package distributor next for what becomes of a decoded request.
package rw2

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/duramendb/duramen/distributor/wire"
	"github.com/duramendb/duramen/duramenpb"
)

// Message is the name of the format in a Content-Type.
const Message = "io.prometheus.write.v2.Request"

// FirstSymbol is what is wrong with a symbol table that does not begin as the specification says.
const FirstSymbol = "the first symbol is not the empty string"

// Fields of Request and TimeSeries.
const (
	fieldSymbols = 4
	fieldSeries  = 5

	fieldLabelsRefs = 1
	fieldSamples    = 2
	fieldHistograms = 3
	fieldExemplars  = 4
	fieldMetadata   = 5
)

// Tags, field<<3 | wire type, of what nearly every byte of a series belongs to.
const (
	tagLabelsRefs = fieldLabelsRefs<<3 | wire.Bytes
	tagSample     = fieldSamples<<3 | wire.Bytes

	tagValue     = 1<<3 | wire.Fixed64 // Sample.value
	tagTimestamp = 2<<3 | wire.Varint  // Sample.timestamp
	tagStart     = 3<<3 | wire.Varint  // Sample.start_timestamp
)

// Decode reads r.Buf into r, which must have been reset with the body. Symbols may stand behind the series that use
// them, so references are not resolved and not checked here: see AppendLabels.
//
// An error means that the body is no such message; r then holds a part of it. Decode is hot.
func Decode(r *wire.Request) error {
	b := r.Buf
	for i := 0; i < len(b); {
		start := i
		field, typ, next, err := wire.Tag(b, i)
		if err != nil {
			return err
		}
		if field != fieldSymbols && field != fieldSeries {
			if i, err = wire.Skip(b, start); err != nil {
				return err
			}
			continue
		}
		if typ != wire.Bytes {
			return wire.WrongType(start, field, typ)
		}
		from, to, err := wire.Delimited(b, next)
		if err != nil {
			return err
		}
		if field == fieldSymbols {
			err = r.AddSymbol(from, to)
		} else {
			err = series(r, b[:to], from)
		}
		if err != nil {
			return err
		}
		i = to
	}
	if len(r.Symbols) > 0 && r.Symbols[0].Len() > 0 {
		return wire.Malformed(int(r.Symbols[0].From), FirstSymbol)
	}
	return nil
}

// series decodes a TimeSeries that ends where b ends. Repeated references need not follow one another: all of them up
// to the end of the series belong to it.
func series(r *wire.Request, b []byte, i int) error {
	lset := wire.Span{From: uint32(len(r.Refs))}
	var (
		late []uint32 // references of exemplars, kept apart until the series' own are complete
		meta wire.SeriesMetadata
	)
	exemplars := len(r.Exemplars)
	for i < len(b) {
		var err error
		switch b[i] {
		case tagLabelsRefs:
			i, err = packedRefs(r, b, i+1)
		case tagSample:
			i, err = sample(r, b, i+1)
		default:
			i, late, err = otherField(r, late, &meta, b, i)
		}
		if err != nil {
			return err
		}
	}
	lset.To = uint32(len(r.Refs))
	// A span of an exemplar counts from the beginning of late until here.
	for j := exemplars; j < len(r.Exemplars); j++ {
		r.Exemplars[j].Labels.From += lset.To
		r.Exemplars[j].Labels.To += lset.To
	}
	for _, ref := range late {
		if err := r.AddRef(ref); err != nil {
			return err
		}
	}
	r.SeriesMetadata = append(r.SeriesMetadata, meta)
	return r.EndSeries(lset)
}

// packedRefs decodes a packed list of references whose length begins at b[i].
func packedRefs(r *wire.Request, b []byte, i int) (int, error) {
	i, end, err := wire.Delimited(b, i)
	if err != nil {
		return 0, err
	}
	refs, err := r.GrowRefs(end - i)
	if err != nil {
		return 0, err
	}
	b = b[:end]
	room, n := refs[len(refs):len(refs)+end-i], 0
	for i < len(b) && n < len(room) {
		// References of one and two bytes are nearly all.
		c := uint32(b[i])
		if c < 0x80 {
			room[n] = c
			n, i = n+1, i+1
			continue
		}
		if i+1 < len(b) && b[i+1] < 0x80 {
			room[n] = c&0x7f | uint32(b[i+1])<<7
			n, i = n+1, i+2
			continue
		}
		v, next := wire.Uvarint(b, i)
		if next < 0 {
			return 0, wire.Malformed(i, wire.PackedCut)
		}
		room[n] = uint32(v)
		n, i = n+1, next
	}
	refs = refs[:len(refs)+n]
	r.Refs = refs
	return end, nil
}

// sample decodes a sample whose length begins at b[i] and returns the index behind it.
func sample(r *wire.Request, b []byte, i int) (int, error) {
	i, end, err := wire.Delimited(b, i)
	if err != nil {
		return 0, err
	}
	b = b[:end]
	var s duramenpb.Float
	for i < len(b) {
		tag := b[i]
		switch {
		case tag == tagValue && len(b)-i >= 9:
			v, next, _ := wire.Double(b, i+1)
			s.V, i = math.Float64frombits(v), next
		case tag == tagTimestamp || tag == tagStart:
			v, next := wire.Uvarint(b, i+1)
			if next < 0 {
				return 0, wire.Malformed(i, "cut or overlong timestamp")
			}
			if i = next; tag == tagTimestamp {
				s.T = int64(v)
			} else {
				s.ST = int64(v)
			}
		default:
			if i, err = sampleField(&s, b, i); err != nil {
				return 0, err
			}
		}
	}
	return i, r.AddFloat(s)
}

// sampleField decodes a field of a sample that is encoded in an unusual way, or skips it.
func sampleField(s *duramenpb.Float, b []byte, i int) (int, error) {
	field, typ, next, err := wire.Tag(b, i)
	switch {
	case err != nil:
		return 0, err
	case field > 3:
		return wire.Skip(b, i)
	case field == 1 && typ == wire.Fixed64:
		v, next, err := wire.Double(b, next)
		s.V = math.Float64frombits(v)
		return next, err
	case field == 1 || typ != wire.Varint:
		return 0, wire.WrongType(i, field, typ)
	}
	v, next, err := wire.ReadVarint(b, next)
	if field == 2 {
		s.T = int64(v)
	} else {
		s.ST = int64(v)
	}
	return next, err
}

// otherField decodes any field of a TimeSeries at b[i] and returns the index behind it.
func otherField(
	r *wire.Request, late []uint32, meta *wire.SeriesMetadata, b []byte, i int,
) (int, []uint32, error) {
	field, typ, next, err := wire.Tag(b, i)
	if err != nil {
		return 0, late, err
	}
	switch {
	case field > fieldMetadata:
		next, err = wire.Skip(b, i)
		return next, late, err
	case field == fieldLabelsRefs && typ == wire.Varint:
		v, next, err := wire.ReadVarint(b, next)
		if err != nil {
			return 0, late, err
		}
		return next, late, r.AddRef(uint32(v))
	case typ != wire.Bytes:
		return 0, late, wire.WrongType(i, field, typ)
	}
	from, to, err := wire.Delimited(b, next)
	if err != nil {
		return 0, late, err
	}
	switch field {
	case fieldLabelsRefs:
		_, err = packedRefs(r, b, next)
	case fieldSamples:
		_, err = sample(r, b, next)
	case fieldHistograms:
		err = r.AddHistogram(b[:to], from, true)
	case fieldExemplars:
		late, err = exemplar(r, late, b[:to], from)
	default:
		err = metadata(meta, b[:to], from)
	}
	return to, late, err
}

func exemplar(r *wire.Request, late []uint32, b []byte, i int) ([]uint32, error) {
	e := wire.Exemplar{Labels: wire.Span{From: uint32(len(late))}}
	for i < len(b) {
		start := i
		field, typ, next, err := wire.Tag(b, i)
		if err != nil {
			return late, err
		}
		var v uint64
		switch {
		case field > 3:
			i, err = wire.Skip(b, start)
		case field == 1 && typ == wire.Varint:
			v, i, err = wire.ReadVarint(b, next)
			late = append(late, uint32(v))
		case field == 1 && typ == wire.Bytes:
			var end int
			if i, end, err = wire.Delimited(b, next); err != nil {
				return late, err
			}
			for i < end {
				if v, next = wire.Uvarint(b[:end], i); next < 0 {
					return late, wire.Malformed(i, wire.PackedCut)
				}
				late, i = append(late, uint32(v)), next
			}
		case field == 2 && typ == wire.Fixed64:
			v, i, err = wire.Double(b, next)
			e.V = math.Float64frombits(v)
		case field == 3 && typ == wire.Varint:
			v, i, err = wire.ReadVarint(b, next)
			e.T = int64(v)
		default:
			err = wire.WrongType(start, field, typ)
		}
		if err != nil {
			return late, err
		}
	}
	e.Labels.To = uint32(len(late))
	return late, r.AddExemplar(e)
}

// metadata decodes a Metadata message over what an earlier occurrence in the same series set.
func metadata(m *wire.SeriesMetadata, b []byte, i int) error {
	for i < len(b) {
		start := i
		field, typ, next, err := wire.Tag(b, i)
		if err != nil {
			return err
		}
		if field != 1 && field != 3 && field != 4 {
			if i, err = wire.Skip(b, start); err != nil {
				return err
			}
			continue
		}
		if typ != wire.Varint {
			return wire.WrongType(start, field, typ)
		}
		v, next, err := wire.ReadVarint(b, next)
		if err != nil {
			return err
		}
		switch field {
		case 1:
			m.Type = int32(v)
		case 3:
			m.Help = uint32(v)
		default:
			m.Unit = uint32(v)
		}
		i = next
	}
	return nil
}

// BadRefError says that references of a series or an exemplar name no labels. It concerns that series alone.
type BadRefError struct {
	Ref     uint32 // meaningless when Odd
	Symbols int
	Odd     bool
}

// Error returns the sentence for the sender.
func (e *BadRefError) Error() string {
	if e.Odd {
		return "odd number of label references: a name has no value"
	}
	return fmt.Sprintf("label reference %d lies outside the table of %d symbols", e.Ref, e.Symbols)
}

// AppendLabels appends the labels that r.Refs[s.From:s.To] name, as they were sent: not sorted, not validated. The
// strings are views of r.Buf and must not be retained.
func AppendLabels(dst []labels.Label, r *wire.Request, s wire.Span) ([]labels.Label, error) {
	refs := r.Refs[s.From:s.To]
	if len(refs)%2 != 0 {
		return dst, &BadRefError{Odd: true, Symbols: len(r.Symbols)}
	}
	for i := 0; i < len(refs); i += 2 {
		for _, ref := range refs[i : i+2] {
			if uint64(ref) >= uint64(len(r.Symbols)) {
				return dst, &BadRefError{Ref: ref, Symbols: len(r.Symbols)}
			}
		}
		dst = append(dst, labels.Label{Name: Symbol(r, refs[i]), Value: Symbol(r, refs[i+1])})
	}
	return dst, nil
}

// Symbol returns a symbol as a view of r.Buf; ref must lie in the table.
func Symbol(r *wire.Request, ref uint32) string {
	s := r.Symbols[ref]
	b := r.Buf[s.From:s.To]
	return unsafe.String(unsafe.SliceData(b), len(b))
}
