// Package rw1 decodes remote write 1.0, the message prometheus.WriteRequest, in one pass over the body. It refuses what
// is not protobuf and judges nothing else. Read package distributor next for what becomes of a decoded request.
package rw1

import (
	"math"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/duramendb/duramen/distributor/wire"
	"github.com/duramendb/duramen/duramenpb"
)

// Message is the name of the format in a Content-Type.
const Message = "prometheus.WriteRequest"

// Tags, field<<3 | wire type, of what nearly every byte of a request belongs to.
const (
	tagLabel  = 1<<3 | wire.Bytes // TimeSeries.labels
	tagSample = 2<<3 | wire.Bytes // TimeSeries.samples

	tagValue     = 1<<3 | wire.Fixed64 // Sample.value
	tagTimestamp = 2<<3 | wire.Varint  // Sample.timestamp
)

// Decode reads r.Buf into r, which must have been reset with the body. The labels of a series are only delimited here:
// Request.Labels has the span of their fields, whose inside AppendLabels checks. A caller that skips AppendLabels for
// a span it has seen before loses nothing, since equal bytes have an equal meaning.
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
		if field != 1 && field != 3 {
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
		if field == 1 {
			err = series(r, b[:to], from)
		} else {
			err = metadata(r, b[:to], from)
		}
		if err != nil {
			return err
		}
		i = to
	}
	return nil
}

// series decodes a TimeSeries that ends where b ends. Every known sender writes labels first, then samples; whatever
// else the format allows goes through otherField.
func series(r *wire.Request, b []byte, i int) error {
	lset := wire.Span{From: uint32(i)}
	for i+1 < len(b) && b[i] == tagLabel {
		n := int(b[i+1])
		i += 2
		if n >= 0x80 {
			_, to, err := wire.Delimited(b, i-1)
			if err != nil {
				return err
			}
			i = to
			continue
		}
		if i += n; i > len(b) {
			return wire.Malformed(i-n-1, "label beyond the end of its series")
		}
	}
	lset.To = uint32(i)
	for i < len(b) {
		var err error
		if b[i] == tagSample {
			i, err = sample(r, b, i+1)
		} else {
			i, err = otherField(r, &lset, b, i)
		}
		if err != nil {
			return err
		}
	}
	return r.EndSeries(lset)
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
		switch {
		case b[i] == tagValue && len(b)-i >= 9:
			v, next, _ := wire.Double(b, i+1)
			s.V, i = math.Float64frombits(v), next
		case b[i] == tagTimestamp:
			v, next := wire.Uvarint(b, i+1)
			if next < 0 {
				return 0, wire.Malformed(i, "cut or overlong timestamp")
			}
			s.T, i = int64(v), next
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
	case field > 2:
		return wire.Skip(b, i)
	case field == 1 && typ == wire.Fixed64:
		v, next, err := wire.Double(b, next)
		s.V = math.Float64frombits(v)
		return next, err
	case field == 2 && typ == wire.Varint:
		v, next, err := wire.ReadVarint(b, next)
		s.T = int64(v)
		return next, err
	default:
		return 0, wire.WrongType(i, field, typ)
	}
}

// otherField decodes any field of a TimeSeries at b[i] and returns the index behind it.
func otherField(r *wire.Request, lset *wire.Span, b []byte, i int) (int, error) {
	field, typ, next, err := wire.Tag(b, i)
	if err != nil {
		return 0, err
	}
	if field > 4 {
		return wire.Skip(b, i)
	}
	if typ != wire.Bytes {
		return 0, wire.WrongType(i, field, typ)
	}
	from, to, err := wire.Delimited(b, next)
	if err != nil {
		return 0, err
	}
	switch field {
	case 1:
		*lset, err = r.Gather(*lset, i, to)
	case 2:
		_, err = sample(r, b, next)
	case 3:
		err = exemplar(r, b[:to], from)
	default:
		err = r.AddHistogram(b[:to], from, false)
	}
	return to, err
}

func exemplar(r *wire.Request, b []byte, i int) error {
	var (
		e     wire.Exemplar
		whole = true // the label fields follow one another
	)
	for i < len(b) {
		start := i
		field, typ, next, err := wire.Tag(b, i)
		if err != nil {
			return err
		}
		switch {
		case field > 3:
			i, err = wire.Skip(b, start)
		case field == 1 && typ == wire.Bytes:
			if _, i, err = wire.Delimited(b, next); err != nil {
				return err
			}
			switch {
			case e.Labels.Len() == 0:
				e.Labels = wire.Span{From: uint32(start), To: uint32(i)}
			case whole && int(e.Labels.To) == start:
				e.Labels.To = uint32(i)
			default:
				whole = false
				e.Labels, err = r.Gather(e.Labels, start, i)
			}
		case field == 2 && typ == wire.Fixed64:
			var v uint64
			v, i, err = wire.Double(b, next)
			e.V = math.Float64frombits(v)
		case field == 3 && typ == wire.Varint:
			var v uint64
			v, i, err = wire.ReadVarint(b, next)
			e.T = int64(v)
		default:
			err = wire.WrongType(start, field, typ)
		}
		if err != nil {
			return err
		}
	}
	return r.AddExemplar(e)
}

func metadata(r *wire.Request, b []byte, i int) error {
	var m wire.Metadata
	for i < len(b) {
		start := i
		field, typ, next, err := wire.Tag(b, i)
		if err != nil {
			return err
		}
		switch field {
		case 1:
			if typ != wire.Varint {
				return wire.WrongType(start, field, typ)
			}
			var v uint64
			v, i, err = wire.ReadVarint(b, next)
			m.Type = int32(v)
		case 2, 4, 5:
			if typ != wire.Bytes {
				return wire.WrongType(start, field, typ)
			}
			var from int
			from, i, err = wire.Delimited(b, next)
			s := wire.Span{From: uint32(from), To: uint32(i)}
			switch field {
			case 2:
				m.Family = s
			case 4:
				m.Help = s
			default:
				m.Unit = s
			}
		default:
			i, err = wire.Skip(b, start)
		}
		if err != nil {
			return err
		}
	}
	return r.AddMetadata(m)
}

// AppendLabels appends the labels in buf[s.From:s.To], label fields of a series or an exemplar, as they were sent: not
// sorted, not validated. The strings are views of buf and must not be retained.
func AppendLabels(dst []labels.Label, buf []byte, s wire.Span) ([]labels.Label, error) {
	b := buf[:s.To]
	for i := int(s.From); i < len(b); {
		_, _, next, err := wire.Tag(b, i)
		if err != nil {
			return dst, err
		}
		from, to, err := wire.Delimited(b, next)
		if err != nil {
			return dst, err
		}
		l, err := label(b[:to], from)
		if err != nil {
			return dst, err
		}
		dst = append(dst, l)
		i = to
	}
	return dst, nil
}

func label(b []byte, i int) (l labels.Label, err error) {
	for i < len(b) {
		start := i
		field, typ, next, err := wire.Tag(b, i)
		if err != nil {
			return l, err
		}
		if field > 2 {
			if i, err = wire.Skip(b, start); err != nil {
				return l, err
			}
			continue
		}
		if typ != wire.Bytes {
			return l, wire.WrongType(start, field, typ)
		}
		from, to, err := wire.Delimited(b, next)
		if err != nil {
			return l, err
		}
		s := unsafe.String(unsafe.SliceData(b[from:to]), to-from)
		if field == 1 {
			l.Name = s
		} else {
			l.Value = s
		}
		i = to
	}
	return l, nil
}
