package rawblock

import (
	"errors"
	"fmt"
	"hash/crc32"
)

// Sizes of the fixed parts of an index.
const (
	HeaderBytes   = 5 // magic and version
	ContentsBytes = 6*8 + crc32.Size
	LengthBytes   = 4  // in front of a section, followed by that many bytes and their checksum
	SeriesAlign   = 16 // of series; their references count in it
)

// Contents is the table of contents at the end of an index: where each section begins.
type Contents struct {
	Symbols, Series, LabelIndices, Postings, LabelIndicesTable, PostingsTable int64
	// End is that of the last section.
	End int64
}

// ErrSum means that a checksum differs.
var ErrSum = errors.New("checksum differs")

// ParseContents reads the last ContentsBytes of an index that has size bytes. Sections are in order in what it returns
// without an error.
func ParseContents(b []byte, size int64) (t Contents, err error) {
	if len(b) != ContentsBytes || size < HeaderBytes+ContentsBytes {
		return t, ErrCut
	}
	if !Intact(b[:ContentsBytes-crc32.Size], b[ContentsBytes-crc32.Size:]) {
		return t, ErrSum
	}
	d := Cursor{B: b}
	next := func() int64 { return int64(d.Uint64()) } //nolint:gosec // the order is checked below
	t = Contents{
		Symbols: next(), Series: next(), LabelIndices: next(), LabelIndicesTable: next(), Postings: next(), PostingsTable: next(),
	}
	t.End = size - ContentsBytes
	if t.LabelIndices == 0 {
		t.LabelIndices = t.Postings
	}
	if t.LabelIndicesTable == 0 {
		t.LabelIndicesTable = t.PostingsTable
	}
	places := []int64{
		HeaderBytes, t.Symbols, t.Series, t.LabelIndices, t.Postings, t.LabelIndicesTable, t.PostingsTable, t.End,
	}
	for i := 1; i < len(places); i++ {
		if places[i] < places[i-1] {
			return t, fmt.Errorf("it has its sections at %v", places)
		}
	}
	return t, nil
}
