package index

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/klauspost/compress/zstd"
)

// newEncoder returns the compressor of all sections. It starts no goroutine as long as only EncodeAll is used.
func newEncoder() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
}

// Decoder unpacks sections. It is safe for concurrent use and holds no memory of what it decoded.
type Decoder struct{ z *zstd.Decoder }

// NewDecoder returns a decoder. Close frees what it holds.
func NewDecoder() (*Decoder, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(maxRawBytes))
	if err != nil {
		return nil, err
	}
	return &Decoder{z}, nil
}

// Close ends the decoder.
func (d *Decoder) Close() { d.z.Close() }

// unpack checks and decompresses a section.
func (d *Decoder) unpack(what string, packed []byte, raw uint64, sum uint32) ([]byte, error) {
	if raw > maxRawBytes {
		return nil, damaged("%s has an impossible size of %d bytes", what, raw)
	}
	if crc32.Checksum(packed, castagnoli) != sum {
		return nil, damaged("checksum of %s differs", what)
	}
	out, err := d.z.DecodeAll(packed, make([]byte, 0, raw))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, what, err)
	}
	if uint64(len(out)) != raw {
		return nil, damaged("%s has %d bytes instead of %d", what, len(out), raw)
	}
	return out, nil
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// scanner reads what the append functions wrote. The first fault sticks: after it everything reads as zero, so a caller
// checks once at the end, and counts before it allocates by them.
type scanner struct {
	b   []byte
	err error
}

func (s *scanner) fail(what string) {
	if s.err == nil {
		s.err = damaged("%s", what)
	}
	s.b = nil
}

func (s *scanner) uvarint() uint64 {
	v, n := binary.Uvarint(s.b)
	if n <= 0 {
		s.fail("a number is cut")
		return 0
	}
	s.b = s.b[n:]
	return v
}

func (s *scanner) varint() int64 {
	v, n := binary.Varint(s.b)
	if n <= 0 {
		s.fail("a number is cut")
		return 0
	}
	s.b = s.b[n:]
	return v
}

// u32 is a number that has to fit.
func (s *scanner) u32() uint32 {
	v := s.uvarint()
	if v > 1<<32-1 {
		s.fail("a number is too large")
		return 0
	}
	return uint32(v)
}

// count is the number of things that follow, each at least size bytes of what is left; so it cannot cost more memory
// than the bytes that claim it.
func (s *scanner) count(size int) int {
	v := s.uvarint()
	if v > uint64(len(s.b)/max(1, size)) {
		s.fail("a count is larger than what follows")
		return 0
	}
	return int(v)
}

func (s *scanner) bytes(n uint64) []byte {
	if n > uint64(len(s.b)) {
		s.fail("a string is cut")
		return nil
	}
	out := s.b[:n]
	s.b = s.b[n:]
	return out
}

func (s *scanner) string() string { return string(s.bytes(s.uvarint())) }

func (s *scanner) fixed32() uint32 {
	b := s.bytes(4)
	if b == nil {
		return 0
	}
	return binary.LittleEndian.Uint32(b)
}

// end returns the first fault; bytes that are left are one.
func (s *scanner) end() error {
	if s.err == nil && len(s.b) > 0 {
		s.fail("bytes follow the end")
	}
	return s.err
}
