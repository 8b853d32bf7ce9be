package merge

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/rawblock"
)

// symbolCursor walks over the table of symbols of one input.
type symbolCursor struct {
	in       *input
	off, end int64 // of what the checksum covers
	left     uint64
	sum      uint32
	current  []byte
	last     []byte
	done     bool
}

func (in *input) symbols() (*symbolCursor, error) {
	at := in.toc.Symbols
	b, err := in.index.bytes(0, at, 2*rawblock.LengthBytes)
	if err != nil {
		return nil, in.failed(block.IndexName, at, err)
	}
	s := &symbolCursor{in: in, off: at + 2*rawblock.LengthBytes, left: uint64(binary.BigEndian.Uint32(b[4:]))}
	s.end = at + rawblock.LengthBytes + int64(binary.BigEndian.Uint32(b))
	if s.end+crc32.Size > in.toc.Series || s.end < s.off {
		return nil, in.damage(block.IndexName, at, "length of the symbols is impossible")
	}
	s.sum = crc32.Update(0, rawblock.Castagnoli(), b[4:])
	in.table = make([]uint32, 0, min(s.left, 1<<16)) // the number may be damaged
	return s, s.next()
}

// next goes to the next symbol, and compares the checksum behind the last.
func (s *symbolCursor) next() error {
	in := s.in
	if s.left == 0 {
		s.done = true
		if s.off != s.end {
			return in.damage(block.IndexName, s.off, "%d bytes follow the last symbol", s.end-s.off)
		}
		b, err := in.index.bytes(0, s.end, crc32.Size)
		if err != nil {
			return in.failed(block.IndexName, s.end, err)
		}
		if binary.BigEndian.Uint32(b) != s.sum {
			return in.damage(block.IndexName, in.toc.Symbols, "checksum of the symbols differs")
		}
		return nil
	}
	s.left--
	s.last = append(s.last[:0], s.current...)
	head, err := in.index.upTo(0, s.off, binary.MaxVarintLen32, s.end)
	if err != nil {
		return in.failed(block.IndexName, s.off, err)
	}
	n, used := binary.Uvarint(head)
	if used <= 0 || n > uint64(s.end-s.off-int64(used)) { //nolint:gosec // not negative
		return in.damage(block.IndexName, s.off, "a symbol leads beyond the end of the symbols")
	}
	b, err := in.index.bytes(0, s.off, int64(used)+int64(n)) //nolint:gosec // bounded
	if err != nil {
		return in.failed(block.IndexName, s.off, err)
	}
	s.sum = crc32.Update(s.sum, rawblock.Castagnoli(), b)
	s.current = b[used:]
	if len(in.table) > 0 && bytes.Compare(s.last, s.current) >= 0 {
		return in.damage(block.IndexName, s.off, "symbols are not in order")
	}
	s.off += int64(len(b))
	return nil
}

// errSymbols means that there are more symbols than references can name.
var errSymbols = errors.New("more symbols than an index can number")

// symbolBytes is what a symbol of the output takes in memory beside its bytes, which are held twice: by the merge, and by
// the sidecar as a value with the pages that have it. numberBytes are held by each input that has it.
const (
	symbolBytes = 200
	numberBytes = 4
)

// mergeSymbols calls add with each symbol of the inputs in order, and gives each input its numbers. Numbers follow the
// order of the symbols, so that series can be compared by them. TooLarge when they would take more than most in memory.
func mergeSymbols(inputs []*input, most int64, add func(string) error) error {
	cursors := make([]*symbolCursor, len(inputs))
	held := int64(0)
	for i, in := range inputs {
		var err error
		if cursors[i], err = in.symbols(); err != nil {
			return err
		}
	}
	for number := uint64(0); ; number++ {
		var least []byte
		found := false
		for _, s := range cursors {
			if !s.done && (!found || bytes.Compare(s.current, least) < 0) {
				least, found = s.current, true
			}
		}
		switch {
		case !found:
			return nil
		case number > 1<<32-1:
			return &TooLarge{What: "its symbols", Err: errSymbols}
		}
		if held += symbolBytes + 2*int64(len(least)); held > most {
			return &TooLarge{What: "names and values of labels in memory", Bytes: held, Max: most}
		}
		symbol := string(least)
		if err := add(symbol); err != nil {
			return err
		}
		for _, s := range cursors {
			if s.done || string(s.current) != symbol {
				continue
			}
			s.in.table = append(s.in.table, uint32(number)) //nolint:gosec // checked above
			held += numberBytes
			if err := s.next(); err != nil {
				return err
			}
		}
	}
}
