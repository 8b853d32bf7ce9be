package rpcframe

import (
	"encoding/binary"
	"errors"
	"math"
	"unsafe"
)

// ErrCut means that a frame ends in a field, or that a field of it is not what it may be.
var ErrCut = errors.New("frame is cut or damaged")

// Decoder reads the fields of a frame, one after another. After an error everything is zero, so that it is enough to ask
// for Err before the fields are used.
type Decoder struct {
	rest []byte
	err  error
}

// NewDecoder returns a decoder of frame, which must not change while what was read of it is used.
func NewDecoder(frame []byte) Decoder { return Decoder{rest: frame} }

// Err is ErrCut after a field that was none.
func (d *Decoder) Err() error { return d.err }

// Rest returns what was not read yet.
func (d *Decoder) Rest() []byte { return d.rest }

// More reports whether there is a next field.
func (d *Decoder) More() bool { return d.err == nil && len(d.rest) > 0 }

// Fail is for a field that the caller finds wrong.
func (d *Decoder) Fail() { d.err, d.rest = ErrCut, nil }

// Byte reads one byte.
func (d *Decoder) Byte() byte {
	if len(d.rest) == 0 {
		d.Fail()
		return 0
	}
	c := d.rest[0]
	d.rest = d.rest[1:]
	return c
}

// Uvarint reads an unsigned varint.
func (d *Decoder) Uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.Fail()
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

// Varint reads a signed varint.
func (d *Decoder) Varint() int64 {
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		d.Fail()
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

// Number reads an unsigned varint that is at most most.
func (d *Decoder) Number(most int) int {
	v := d.Uvarint()
	if v > uint64(most) {
		d.Fail()
		return 0
	}
	return int(v)
}

// Float reads the eight bytes of a float.
func (d *Decoder) Float() float64 {
	b := d.Bytes(8)
	if b == nil {
		return 0
	}
	return math.Float64frombits(binary.LittleEndian.Uint64(b))
}

// Bytes reads n bytes, which alias the frame.
func (d *Decoder) Bytes(n int) []byte {
	if n < 0 || n > len(d.rest) {
		d.Fail()
		return nil
	}
	v := d.rest[:n:n]
	d.rest = d.rest[n:]
	return v
}

// Text reads a text with its length before it, and returns a copy.
func (d *Decoder) Text() string { return string(d.text()) }

// View is Text without the copy: the string is valid as long as the frame does not change, and holds its memory.
func (d *Decoder) View() string {
	b := d.text()
	return unsafe.String(unsafe.SliceData(b), len(b))
}

func (d *Decoder) text() []byte { return d.Bytes(d.Number(len(d.rest))) }

// AppendText appends a text with its length before it.
func AppendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// AppendFloat appends the eight bytes of a float.
func AppendFloat(dst []byte, v float64) []byte {
	return binary.LittleEndian.AppendUint64(dst, math.Float64bits(v))
}
