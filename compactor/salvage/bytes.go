package salvage

import (
	"encoding/binary"
	"hash/crc32"
)

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli()) }

// intact reports whether the last four bytes are the checksum of those before.
func intact(b []byte) bool {
	n := len(b) - crc32.Size
	return n >= 0 && checksum(b[:n]) == binary.BigEndian.Uint32(b[n:])
}

// uvarintLen returns how many bytes a number takes.
func uvarintLen(v uint64) int64 {
	n := int64(1)
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

func alignUp(off, to int64) int64 { return (off + to - 1) / to * to }

// cursor reads values off bytes. After the first failure all it returns is zero.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) uvarint() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 || c.bad {
		c.bad = true
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *cursor) varint() int64 {
	v, n := binary.Varint(c.b)
	if n <= 0 || c.bad {
		c.bad = true
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *cursor) take(n uint64) []byte {
	if c.bad || n > uint64(len(c.b)) {
		c.bad = true
		return nil
	}
	taken := c.b[:n:n]
	c.b = c.b[n:]
	return taken
}

func (c *cursor) text() []byte { return c.take(c.uvarint()) }
