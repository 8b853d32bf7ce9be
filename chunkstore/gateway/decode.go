package gateway

import (
	"encoding/binary"
	"errors"
)

var errCut = errors.New("frame is cut or damaged")

// decoder reads the parts of a frame, one after another. After an error everything is zero.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) more() bool { return d.err == nil && len(d.b) > 0 }

func (d *decoder) fail() { d.err, d.b = errCut, nil }

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// number returns a uvarint that is at most most.
func (d *decoder) number(most int) int {
	v := d.uvarint()
	if v > uint64(most) {
		d.fail()
		return 0
	}
	return int(v)
}

// bytes returns n bytes that alias the frame.
func (d *decoder) bytes(n int) []byte {
	if n < 0 || n > len(d.b) {
		d.fail()
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

// text returns a copy.
func (d *decoder) text() string { return string(d.bytes(d.number(len(d.b)))) }

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}
