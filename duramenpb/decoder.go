package duramenpb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/value"
)

// ErrVersion means that bytes are of a format version which this build does not know.
var ErrVersion = errors.New("unknown version")

// DecodeError says what was wrong with bytes, and where.
type DecodeError struct {
	What   string
	Offset int
}

// Error implements error.
func (e *DecodeError) Error() string { return fmt.Sprintf("%s at byte %d", e.What, e.Offset) }

// decoder reads values one after another. After an error everything is zero and nothing is left.
type decoder struct {
	b     []byte
	whole int
	err   error
}

func newDecoder(b []byte) decoder { return decoder{b: b, whole: len(b)} }

func (d *decoder) more() bool { return len(d.b) > 0 }

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = &DecodeError{what, d.whole - len(d.b)}
	}
	d.b = nil
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail("cut")
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) uvarint() uint64 {
	if len(d.b) > 0 && d.b[0] < 0x80 {
		v := d.b[0]
		d.b = d.b[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail("cut or too large a number")
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	u := d.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (d *decoder) int32() int32 {
	v := d.varint()
	if v < math.MinInt32 || v > math.MaxInt32 {
		d.fail("too large a number")
		return 0
	}
	return int32(v)
}

func (d *decoder) uint32() uint32 {
	v := d.uvarint()
	if v > math.MaxUint32 {
		d.fail("too large a number")
		return 0
	}
	return uint32(v)
}

// count reads how many things follow, of at least size bytes each: more than there is room for is an error.
func (d *decoder) count(size int) int {
	v := d.uvarint()
	if v > uint64(len(d.b)/size) {
		d.fail("count beyond the end")
		return 0
	}
	return int(v)
}

// bytes returns the next n bytes, which alias the input.
func (d *decoder) bytes(n int) []byte {
	if n > len(d.b) {
		d.fail("cut")
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

// text returns bytes behind their length, which alias the input.
func (d *decoder) text() []byte { return d.bytes(d.count(1)) }

func (d *decoder) float() float64 { return d.form(int(d.byte())) }

// form reads a float64 of that form.
func (d *decoder) form(form int) float64 {
	switch form {
	case formWhole:
		return float64(d.uvarint())
	case formMinus:
		return -float64(d.uvarint())
	case formMilli:
		return float64(d.varint()) / 1000
	case formStale:
		return math.Float64frombits(value.StaleNaN)
	case formRaw:
		return math.Float64frombits(d.top(8))
	case formTop2:
		return math.Float64frombits(d.top(2))
	case formTop4:
		return math.Float64frombits(d.top(4))
	case formTop6:
		return math.Float64frombits(d.top(6))
	default:
		d.fail("unknown form of a value")
		return 0
	}
}

// top reads the n highest bytes of a number whose others are zero.
func (d *decoder) top(n int) uint64 {
	if len(d.b) >= 8 {
		v := binary.LittleEndian.Uint64(d.b) << (64 - 8*n)
		d.b = d.b[n:]
		return v
	}
	var whole [8]byte
	copy(whole[8-n:], d.bytes(n))
	return binary.LittleEndian.Uint64(whole[:])
}
