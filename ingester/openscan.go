package ingester

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/prometheus/prometheus/util/compression"
)

// The framing of stock's write logs. A segment is a row of pages; a page holds fragments, each a header of type (1
// byte), length (2, big endian) and CRC-32C (4), then the bytes; zeros fill up a page. A record is one full fragment
// or a first, any number of middle ones and a last. No record crosses a segment.
const (
	logPageSize   = 32 << 10
	logHeaderSize = 7

	fragmentKind   = 0b111
	fragmentSnappy = 1 << 3
	fragmentZstd   = 1 << 4

	kindPadding = 0
	kindFull    = 1
	kindFirst   = 2
	kindMiddle  = 3
	kindLast    = 4
)

// badStretch is a part of a segment that no record can be read from.
type badStretch struct {
	off, end int64
	reason   error
	// tail is set when no readable record follows in the segment.
	tail bool
}

// segmentScanner reads a segment as stock does, but goes on behind what it cannot read: at the next fragment when the
// length of the broken one is sound, else at the next page. Stock's reader stops there and stock's repair deletes the
// rest.
type segmentScanner struct {
	r       io.Reader
	crc     *crc32.Table
	dec     compression.DecodeBuffer
	record  func(rec []byte) error
	page    [logPageSize]byte
	have    int   // bytes of page that are in the file; the others read as zeros
	pageOff int64 // where page begins in the file

	open   bool // between a first and a last fragment
	recOff int64
	rec    []byte
	inBad  bool
	bad    badStretch
	all    []badStretch
}

// scanSegment calls record with each readable record in order and returns what lies between. The record is valid until
// record returns; an error from it makes the record part of a bad stretch. An error is one of reading the file.
func scanSegment(path string, record func(rec []byte) error) (bad []badStretch, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return scanSegmentFrom(f, record)
}

func scanSegmentFrom(r io.Reader, record func(rec []byte) error) (bad []badStretch, size int64, err error) {
	s := &segmentScanner{
		r: r, crc: crc32.MakeTable(crc32.Castagnoli), dec: compression.NewSyncDecodeBuffer(), record: record,
	}
	for {
		more, err := s.nextPage()
		if err != nil {
			return nil, 0, err
		}
		s.scanPage()
		if !more {
			break
		}
		s.pageOff += logPageSize
	}
	size = s.pageOff + int64(s.have)
	s.tornAt(size)
	return s.all, size, nil
}

// nextPage reads the next page, zero-filled behind the end of the file, and reports whether another may follow.
func (s *segmentScanner) nextPage() (more bool, err error) {
	s.have, err = io.ReadFull(s.r, s.page[:])
	clear(s.page[s.have:])
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return false, nil
	}
	return err == nil, err
}

func (s *segmentScanner) scanPage() {
	for pos := 0; pos < s.have; {
		if s.page[pos]&fragmentKind == kindPadding {
			if !allZero(s.page[pos+1:]) {
				s.fault(pos, errors.New("padding is not zero"))
			}
			return
		}
		n, err := s.fragment(pos)
		if err == nil {
			s.take(pos, n)
			pos += n
			continue
		}
		s.fault(pos, err)
		if n == 0 || !s.soundAt(pos+n) {
			return
		}
		pos += n
	}
}

// fragment checks the fragment at pos and returns its size with its header; with an error, 0 when the size is unsound.
func (s *segmentScanner) fragment(pos int) (int, error) {
	if logPageSize-pos < logHeaderSize {
		return 0, errors.New("fragment header crosses a page")
	}
	head := s.page[pos:]
	length := int(binary.BigEndian.Uint16(head[1:]))
	n := logHeaderSize + length
	if pos+n > logPageSize {
		return 0, fmt.Errorf("fragment of %d bytes crosses a page", length)
	}
	if want, got := binary.BigEndian.Uint32(head[3:]), crc32.Checksum(head[logHeaderSize:n], s.crc); got != want {
		return n, fmt.Errorf("checksum is %x, header says %x", got, want)
	}
	if kind := head[0] & fragmentKind; kind > kindLast {
		return n, fmt.Errorf("fragment of unknown kind %d", kind)
	}
	return n, nil
}

// soundAt reports whether reading can go on at pos of the page.
func (s *segmentScanner) soundAt(pos int) bool {
	if pos >= s.have {
		return false
	}
	if s.page[pos]&fragmentKind == kindPadding {
		return allZero(s.page[pos:])
	}
	_, err := s.fragment(pos)
	return err == nil
}

// take adds a checked fragment to the record that it belongs to.
func (s *segmentScanner) take(pos, n int) {
	kind := s.page[pos] & fragmentKind
	begins := kind == kindFull || kind == kindFirst
	if begins == s.open {
		// A record began inside another, or went on without a beginning.
		s.fault(pos, fmt.Errorf("fragment of kind %d out of order", kind))
		if !begins {
			return
		}
	}
	off := s.pageOff + int64(pos)
	if begins {
		s.open, s.recOff, s.rec = true, off, s.rec[:0]
	}
	s.rec = append(s.rec, s.page[pos+logHeaderSize:pos+n]...)
	if kind == kindFirst || kind == kindMiddle {
		return
	}
	s.open = false
	if err := s.deliver(s.page[pos]); err != nil {
		s.faultAt(s.recOff, err)
		return
	}
	if s.inBad {
		s.bad.end, s.inBad = s.recOff, false
		s.all = append(s.all, s.bad)
	}
}

func (s *segmentScanner) deliver(flags byte) error {
	how := compression.None
	switch {
	case flags&fragmentSnappy != 0:
		how = compression.Snappy
	case flags&fragmentZstd != 0:
		how = compression.Zstd
	}
	rec, err := compression.Decode(how, s.rec, s.dec)
	if err != nil {
		return fmt.Errorf("decompress record: %w", err)
	}
	if s.record == nil {
		return nil
	}
	return s.record(rec)
}

// fault begins a bad stretch at pos of the page, or at the record that is open there.
func (s *segmentScanner) fault(pos int, reason error) {
	off := s.pageOff + int64(pos)
	if s.open {
		off, s.open = s.recOff, false
	}
	s.faultAt(off, reason)
}

func (s *segmentScanner) faultAt(off int64, reason error) {
	if !s.inBad {
		s.inBad, s.bad = true, badStretch{off: off, reason: reason}
	}
}

// tornAt ends the scan: a record still open has no end, and a bad stretch still open has nothing behind it.
func (s *segmentScanner) tornAt(size int64) {
	if s.open {
		s.faultAt(s.recOff, errors.New("last record is torn"))
	}
	if s.inBad {
		s.bad.end, s.bad.tail = size, true
		s.all = append(s.all, s.bad)
	}
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
