// Package index owns the sidecar duramen.idx: a second index of a block, made for object storage, from which one read
// says which bytes of the chunk files a query needs. It refuses to read or write objects and to cache; it turns series
// into bytes and bytes into answers. The bytes are in ../docs/format.md; start reading at builder.go.
package index

import (
	"errors"
	"hash/crc32"
)

// ErrDamaged means that bytes are not what a Builder wrote. A sidecar can be built again from its block.
var ErrDamaged = errors.New("sidecar is damaged")

// version of the format. A reader knows no other: an older or newer sidecar is built again.
const version = 1

const (
	// magic begins and ends the object.
	magic = "DRMNIDX1"
	// footerSize is that of the fixed end of the object, see appendFooter.
	footerSize = 4*4 + 4 + len(magic)
)

// The bounds of a page. A query for one series reads one page, so a page should not be much larger than what the series'
// chunks take; a query for a whole metric reads its pages in one piece, so they cost it little.
const (
	maxPageSeries = 512
	maxPageChunks = 8192
	// maxSeriesRead is what a reader accepts of a page: readers number its series in 16 bits.
	maxSeriesRead = 1 << 16
	// maxPageCells bounds series x label names, for series that hardly share names.
	maxPageCells = 64 << 10
	// maxOpenBytes bounds the pages that are being filled when metrics do not come one after another.
	maxOpenBytes = 64 << 20
	// maxRawBytes is what a reader accepts of one section; a page or a label's values stay far below it.
	maxRawBytes = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Chunk is where one chunk of a series lies in its block.
type Chunk struct {
	// MinTime and MaxTime bound the samples, both inclusive, in milliseconds since the Unix epoch.
	MinTime, MaxTime int64
	// Segment is the number of the chunk file, counted from 0 as chunk references do; the file 000001 is segment 0.
	Segment uint32
	// Offset and Length are the bytes of the record in that file: length, encoding, data, checksum. Length reaches to
	// the next record, so it is never too short.
	Offset, Length uint32
}

// Overlaps reports whether the chunk can hold samples with mint ≤ t ≤ maxt.
func (c Chunk) Overlaps(mint, maxt int64) bool { return c.MinTime <= maxt && mint <= c.MaxTime }
