package blockcheck

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// errCut means that bytes end within a value, or that a number has no end.
var errCut = errors.New("it ends within a value")

// cursor reads values off bytes. After the first failure all it returns is zero.
type cursor struct {
	b   []byte
	err error
}

func (c *cursor) take(n uint64) []byte {
	if c.err != nil || n > uint64(len(c.b)) {
		c.err = errCut
		return nil
	}
	taken := c.b[:n:n]
	c.b = c.b[n:]
	return taken
}

func (c *cursor) uvarint() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.err = errCut
	}
	if c.err != nil {
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *cursor) varint() int64 {
	v, n := binary.Varint(c.b)
	if n <= 0 {
		c.err = errCut
	}
	if c.err != nil {
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *cursor) be64() uint64 {
	if b := c.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// crcTable is that of all checksums in a block.
func crcTable() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// intact reports whether sum, four bytes, is the checksum of data.
func intact(data, sum []byte) bool {
	return crc32.Checksum(data, crcTable()) == binary.BigEndian.Uint32(sum)
}
