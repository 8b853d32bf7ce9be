package blockcheck

import (
	"bytes"
	"container/list"
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	"github.com/duramendb/duramen/chunkstore/rawblock"
)

const (
	// pageBytes and maxPages bound what is held of the symbols to 32 MiB. Most blocks have fewer.
	pageBytes = 128 << 10
	maxPages  = 256

	// everySymbol is how dense the offsets are that are held: a thirty-second of the symbols.
	everySymbol = 32

	// maxCached bounds the symbols that are kept as strings.
	maxCached = 1 << 16
)

// symbols finds the strings of an index by their numbers.
type symbols struct {
	f       *file
	end     int64   // of the strings in the file
	offsets []int64 // of every everySymbol-th
	count   uint64

	pages  map[int64]*list.Element
	recent *list.List // of page, the one used last in front
	cached map[uint32]string
}

type page struct {
	number int64
	bytes  []byte
}

// symbols checks the table of symbols, and returns nil when it cannot be used.
func (c *check) symbols(f *file, t rawblock.Contents) (*symbols, error) {
	s, ok, err := c.section(f, "symbols", t.Symbols, t.Series)
	if err != nil || !ok {
		return nil, err
	}
	if err := c.padding(f, s.end, t.Series, rawblock.SeriesAlign); err != nil {
		return nil, err
	}
	b, err := f.at(s.from, rawblock.LengthBytes)
	if err != nil {
		return nil, c.ended(f, s.from, err)
	}
	table := &symbols{
		f: f, end: s.to, count: uint64(binary.BigEndian.Uint32(b)), pages: map[int64]*list.Element{}, recent: list.New(),
		cached: map[uint32]string{},
	}
	off := s.from + rawblock.LengthBytes
	var previous []byte
	for n := range table.count {
		if n%everySymbol == 0 {
			table.offsets = append(table.offsets, off)
		}
		text, length, err := readString(f, off, s.to)
		if err == errEnd { //nolint:errorlint // readString returns it bare
			c.fault(f.name, off, "", "symbol %d of %d leads beyond the end of the symbols", n, table.count)
			return nil, nil //nolint:nilnil // a fault is no error, and there is no table
		}
		if err != nil {
			return nil, err
		}
		if n > 0 && bytes.Compare(previous, text) >= 0 {
			c.fault(f.name, off, "", "symbol %d, %q, does not follow %q in order", n, text, previous)
		}
		if !utf8.Valid(text) {
			c.fault(f.name, off, "", "symbol %d, %q, is not UTF-8", n, text)
		}
		previous = append(previous[:0], text...)
		off += length
	}
	if off != s.to {
		c.fault(f.name, off, "", "%d bytes follow the last symbol", s.to-off)
	}
	return table, nil
}

// readString returns the string at off, with its length in front, and how many bytes both take. It ends before limit, or
// the error is errEnd.
func readString(f *file, off, limit int64) (text []byte, length int64, err error) {
	head, err := f.upTo(off, binary.MaxVarintLen64)
	if err != nil {
		return nil, 0, err
	}
	n, used := binary.Uvarint(head)
	if used <= 0 || n > uint64(max(0, limit-off-int64(used))) {
		return nil, 0, errEnd
	}
	text, err = f.at(off+int64(used), int64(n)) //nolint:gosec // n is below limit
	return text, int64(used) + int64(n), err    //nolint:gosec // n is below limit
}

// get returns a symbol by its number.
func (s *symbols) get(number uint64) (string, error) {
	if number >= s.count {
		return "", fmt.Errorf("symbol %d of %d", number, s.count)
	}
	if text, ok := s.cached[uint32(number)]; ok {
		return text, nil
	}
	off := s.offsets[number/everySymbol]
	for range number % everySymbol {
		_, length, err := s.read(off, false)
		if err != nil {
			return "", err
		}
		off += length
	}
	text, _, err := s.read(off, true)
	if err != nil {
		return "", err
	}
	if len(s.cached) >= maxCached {
		clear(s.cached)
	}
	s.cached[uint32(number)] = string(text)
	return string(text), nil
}

// read returns the string at off, if it is wanted, and how many bytes it takes.
func (s *symbols) read(off int64, wanted bool) (text []byte, length int64, err error) {
	head, err := s.bytes(off, min(binary.MaxVarintLen64, s.end-off))
	if err != nil {
		return nil, 0, err
	}
	n, used := binary.Uvarint(head)
	length = int64(used) + int64(n) //nolint:gosec // the table was walked before
	if used <= 0 || length < 0 || length > s.end-off {
		return nil, 0, rawblock.ErrCut
	}
	if wanted {
		text, err = s.bytes(off+int64(used), int64(n)) //nolint:gosec // as above
	}
	return text, length, err
}

// bytes returns n bytes at off, from one page or put together from several.
func (s *symbols) bytes(off, n int64) ([]byte, error) {
	number := off / pageBytes
	p, err := s.page(number)
	if err != nil {
		return nil, err
	}
	in := off - number*pageBytes
	if in+n <= int64(len(p)) {
		return p[in : in+n], nil
	}
	joined := make([]byte, 0, n)
	for int64(len(joined)) < n {
		if in >= int64(len(p)) {
			return nil, errEnd
		}
		joined = append(joined, p[in:min(int64(len(p)), in+n-int64(len(joined)))]...)
		if int64(len(joined)) < n {
			number++
			if p, err = s.page(number); err != nil {
				return nil, err
			}
			in = 0
		}
	}
	return joined, nil
}

// page returns a page of the file, from memory if it was used lately.
func (s *symbols) page(number int64) ([]byte, error) {
	if e, ok := s.pages[number]; ok {
		s.recent.MoveToFront(e)
		return e.Value.(page).bytes, nil //nolint:forcetypeassert // the list holds nothing else
	}
	b := make([]byte, min(pageBytes, s.f.size-number*pageBytes))
	if err := s.f.src.ReadAt(s.f.ctx, s.f.name, b, number*pageBytes); err != nil {
		return nil, err
	}
	if s.recent.Len() >= maxPages {
		oldest := s.recent.Back()
		delete(s.pages, s.recent.Remove(oldest).(page).number) //nolint:forcetypeassert // as above
	}
	s.pages[number] = s.recent.PushFront(page{number, b})
	return b, nil
}
