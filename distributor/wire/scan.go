package wire

import "fmt"

// Wire types of protobuf.
const (
	Varint     = 0
	Fixed64    = 1
	Bytes      = 2
	startGroup = 3
	endGroup   = 4
	fixed32    = 5
)

// Error says what is wrong with a message and at which byte of the body.
type Error struct {
	Offset int
	What   string
}

// Error returns the sentence for the sender.
func (e *Error) Error() string { return fmt.Sprintf("byte %d: %s", e.Offset, e.What) }

// Malformed returns an Error. It is apart from the scanners so that they stay small enough to be inlined.
//
//go:noinline
func Malformed(offset int, what string) error { return &Error{Offset: offset, What: what} }

// WrongType is the error for a known field that has a wire type which its declaration does not allow.
//
//go:noinline
func WrongType(offset int, field int32, typ int) error {
	return &Error{Offset: offset, What: fmt.Sprintf("field %d has wire type %d", field, typ)}
}

// PackedCut is what is wrong with a packed list whose last element reaches beyond the list. Generated decoders read on
// into the next field there; nobody sends it.
const PackedCut = "element of a packed list beyond its end"

const (
	badVarint = "cut or overlong varint"
	badLength = "length beyond the end of the message"
)

// Uvarint reads a varint at b[i] and returns it with the index behind it, or -1 when it is cut or has more than ten
// bytes. Bits beyond the 64th are dropped without a word, as every protobuf decoder does.
func Uvarint(b []byte, i int) (v uint64, next int) {
	for shift := uint(0); shift < 64; shift += 7 {
		if uint(i) >= uint(len(b)) {
			return 0, -1
		}
		c := b[i]
		i++
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return v, i
		}
	}
	return 0, -1
}

// ReadVarint is Uvarint with an error.
func ReadVarint(b []byte, i int) (v uint64, next int, err error) {
	v, next = Uvarint(b, i)
	if next < 0 {
		return 0, 0, Malformed(i, badVarint)
	}
	return v, next, nil
}

// Tag reads a field's number and wire type at b[i]. Like the generated code it refuses numbers below one, judged on
// the lower 32 bits, and the end of a group that never began.
func Tag(b []byte, i int) (field int32, typ, next int, err error) {
	v, next := Uvarint(b, i)
	if next < 0 {
		return 0, 0, 0, Malformed(i, badVarint)
	}
	field, typ = int32(v>>3), int(v&7)
	if typ == endGroup {
		return 0, 0, 0, Malformed(i, "end of a group that never began")
	}
	if field <= 0 {
		return 0, 0, 0, Malformed(i, "field number below 1")
	}
	return field, typ, next, nil
}

// Delimited reads a length at b[i] and returns where the bytes begin and end; b must end where the message ends.
func Delimited(b []byte, i int) (from, to int, err error) {
	n, from := Uvarint(b, i)
	if from < 0 {
		return 0, 0, Malformed(i, badVarint)
	}
	if n > uint64(len(b)-from) {
		return 0, 0, Malformed(i, badLength)
	}
	return from, from + int(n), nil
}

// Double reads eight bytes at b[i] as they stand in a double field.
func Double(b []byte, i int) (bits uint64, next int, err error) {
	if len(b)-i < 8 {
		return 0, 0, Malformed(i, badLength)
	}
	_ = b[i+7]
	return uint64(b[i]) | uint64(b[i+1])<<8 | uint64(b[i+2])<<16 | uint64(b[i+3])<<24 |
		uint64(b[i+4])<<32 | uint64(b[i+5])<<40 | uint64(b[i+6])<<48 | uint64(b[i+7])<<56, i + 8, nil
}

// Skip returns the index behind the field whose tag begins at b[i]. Groups are skipped whole; what is in them has no
// meaning here, yet it has to be well-formed.
func Skip(b []byte, i int) (int, error) {
	depth := 0
	for i < len(b) {
		start := i
		v, next := Uvarint(b, i)
		if next < 0 {
			return 0, Malformed(start, badVarint)
		}
		i = next
		var err error
		switch v & 7 {
		case Varint:
			_, i, err = ReadVarint(b, i)
		case Fixed64:
			i += 8
		case Bytes:
			_, i, err = Delimited(b, i)
		case startGroup:
			depth++
		case endGroup:
			if depth == 0 {
				return 0, Malformed(start, "end of a group that never began")
			}
			depth--
		case fixed32:
			i += 4
		default:
			err = Malformed(start, "unknown wire type")
		}
		if err != nil {
			return 0, err
		}
		if i > len(b) {
			return 0, Malformed(start, badLength)
		}
		if depth == 0 {
			return i, nil
		}
	}
	return 0, Malformed(i, "group without an end")
}
