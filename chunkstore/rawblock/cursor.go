package rawblock

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// ErrCut means that bytes end within a value, or that a number has no end.
var ErrCut = errors.New("it ends within a value")

// Cursor reads values off B. After the first failure, which Err keeps, all it returns is zero.
type Cursor struct {
	B   []byte
	Err error
}

// Uvarint reads an unsigned number.
func (c *Cursor) Uvarint() uint64 {
	if len(c.B) > 0 && c.B[0] < 0x80 && c.Err == nil { // most numbers are small
		v := c.B[0]
		c.B = c.B[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(c.B)
	if n <= 0 {
		c.Err = ErrCut
	}
	if c.Err != nil {
		return 0
	}
	c.B = c.B[n:]
	return v
}

// Varint reads a signed number.
func (c *Cursor) Varint() int64 {
	v, n := binary.Varint(c.B)
	if n <= 0 {
		c.Err = ErrCut
	}
	if c.Err != nil {
		return 0
	}
	c.B = c.B[n:]
	return v
}

// Uint64 reads eight bytes, the highest first.
func (c *Cursor) Uint64() uint64 {
	if c.Err != nil || len(c.B) < 8 {
		c.Err = ErrCut
		return 0
	}
	v := binary.BigEndian.Uint64(c.B)
	c.B = c.B[8:]
	return v
}

// Castagnoli returns the table of all checksums in a block.
func Castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// Intact reports whether sum, four bytes, is the checksum of data.
func Intact(data, sum []byte) bool {
	return crc32.Checksum(data, Castagnoli()) == binary.BigEndian.Uint32(sum)
}
