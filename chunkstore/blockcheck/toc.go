package blockcheck

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/duramendb/duramen/chunkstore/rawblock"
)

// header checks the first bytes of the index.
func (c *check) header(f *file) error {
	b, err := f.at(0, rawblock.HeaderBytes)
	if err != nil {
		return c.ended(f, 0, err)
	}
	if m := binary.BigEndian.Uint32(b); m != index.MagicIndex {
		c.fault(f.name, 0, "", "the file does not begin as an index does, but with %#x", m)
	}
	if v := b[4]; v != index.FormatV2 {
		c.fault(f.name, 4, "", "version of the index is %d; %d is written today and checked here", v, index.FormatV2)
	}
	return nil
}

// contents reads the table of contents. ok is false when it cannot be relied on.
func (c *check) contents(f *file) (t rawblock.Contents, ok bool, err error) {
	at := f.size - rawblock.ContentsBytes
	b, err := f.at(at, rawblock.ContentsBytes)
	if err != nil {
		return t, false, c.ended(f, 0, err)
	}
	t, err = rawblock.ParseContents(b, f.size)
	switch {
	case errors.Is(err, rawblock.ErrSum):
		c.fault(f.name, at, "", "checksum of the table of contents differs: the index cannot be checked further")
		return t, false, nil
	case err != nil:
		c.fault(f.name, at, "", "the table of contents cannot be used, and the index not be checked further: %v", err)
		return t, false, nil
	}
	if t.Symbols != rawblock.HeaderBytes {
		c.fault(f.name, rawblock.HeaderBytes, "", "%d bytes belong to nothing", t.Symbols-rawblock.HeaderBytes)
	}
	return t, true, nil
}

// ended turns errEnd into a fault; any other error is the source's and ends the check.
func (c *check) ended(f *file, off int64, err error) error {
	if err == errEnd { //nolint:errorlint // file.at returns it bare
		c.fault(f.name, off, "", "the file, of %d bytes, ends too early", f.size)
		return nil
	}
	return err
}

// section is a part of the index that has its length in front and its checksum behind it.
type section struct {
	from, to int64 // of what the checksum covers
	end      int64 // behind the checksum
}

// section reads where the section at off ends, which has to be at or before limit, and compares its checksum. ok is false
// when its length is impossible; what names it in faults. A section whose checksum differs can be read, with care.
func (c *check) section(f *file, what string, off, limit int64) (s section, ok bool, err error) {
	b, err := f.at(off, rawblock.LengthBytes)
	if err != nil {
		return s, false, c.ended(f, off, err)
	}
	s.from = off + rawblock.LengthBytes
	s.to = s.from + int64(binary.BigEndian.Uint32(b))
	s.end = s.to + crc32.Size
	if s.end > limit {
		c.fault(f.name, off, "", "length of the %s is %d, which leads beyond the section's end at %d", what, s.to-s.from, limit)
		return s, false, nil
	}
	sum := uint32(0)
	err = f.each(s.from, s.to, func(_ int64, piece []byte) error {
		sum = crc32.Update(sum, rawblock.Castagnoli(), piece)
		return nil
	})
	if err != nil {
		return s, false, err
	}
	b, err = f.at(s.to, crc32.Size)
	if err != nil {
		return s, false, err
	}
	if binary.BigEndian.Uint32(b) != sum {
		c.fault(f.name, off, "", "checksum of the %s differs", what)
	}
	return s, true, nil
}

// padding checks that the bytes [from, to) between two parts are fewer than align, and zero.
func (c *check) padding(f *file, from, to, align int64) error {
	if to-from >= align {
		c.fault(f.name, from, "", "%d bytes belong to nothing", to-from)
		return nil
	}
	at, err := f.firstNonZero(from, to)
	if at >= 0 {
		c.fault(f.name, at, "", "a byte that fills up is not zero")
	}
	return err
}

// records checks that [from, to) is filled with sections, aligned to four bytes. Indexes of old releases have such of
// label values, which nothing reads any more.
func (c *check) records(f *file, what string, from, to int64) error {
	for from < to {
		at := alignUp(from, 4)
		if at >= to {
			return c.padding(f, from, to, 4)
		}
		if err := c.padding(f, from, at, 4); err != nil {
			return err
		}
		s, ok, err := c.section(f, what, at, to)
		if err != nil || !ok {
			return err
		}
		from = s.end
	}
	return nil
}

func alignUp(off, to int64) int64 { return (off + to - 1) / to * to }

// describe names a label in a fault.
func describe(name, value string) string { return fmt.Sprintf("%s=%q", name, value) }
