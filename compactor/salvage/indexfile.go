package salvage

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/prometheus/prometheus/tsdb/index"
)

const (
	headerBytes = 5 // magic and version
	tocBytes    = 6*8 + crc32.Size
	lengthBytes = 4
	seriesAlign = 16

	// maxEntryBytes bounds one series, and maxResyncBytes what is tried where nothing says that a series begins.
	maxEntryBytes  = 16 << 20
	maxResyncBytes = 1 << 20
)

// faults takes what is wrong with an object.
type faults func(off int64, series, format string, args ...any)

// indexFile is a block's own index of which any byte may be wrong. What it returns has a checksum that matches.
type indexFile struct {
	b     []byte
	fault faults

	// The sections, by the table of contents or, where that is damaged, by the format. postings and table are 0 when they
	// are not known.
	symbolsAt, seriesAt, seriesEnd, postings, table int64

	symbols []uint32 // where each string begins, its length in front; nil when they are not proven
	lists   []list   // nil when the table of postings is not proven
	refs    []byte   // of all series, as the list of all has them; nil when that is not proven
}

// list is an entry of the table of postings.
type list struct {
	name, value []byte
	at          int64
}

// layOutIndex finds the sections, and no more: how large they are is looked at before they are opened.
func layOutIndex(b []byte, fault faults) *indexFile {
	x := &indexFile{b: b, fault: fault}
	if len(b) < headerBytes {
		fault(-1, "", "it is missing, or has no more than %d bytes", len(b))
		return x
	}
	if m := binary.BigEndian.Uint32(b); m != index.MagicIndex || b[4] != index.FormatV2 {
		fault(0, "", "it does not begin as an index of format 2 does")
	}
	x.layOut()
	return x
}

// open reads what leads to the series.
func (x *indexFile) open() {
	if len(x.b) < headerBytes {
		return
	}
	x.readSymbols()
	x.readTable()
	x.readRefs()
}

// layOut finds the sections.
func (x *indexFile) layOut() {
	size := int64(len(x.b))
	x.symbolsAt, x.seriesEnd = headerBytes, size
	if size < headerBytes+tocBytes || !intact(x.b[size-tocBytes:]) {
		x.fault(max(0, size-tocBytes), "", "checksum of the table of contents differs")
		if end := x.sectionEnd(x.symbolsAt, size); end > 0 {
			x.seriesAt = alignUp(end, seriesAlign)
		} else {
			x.seriesAt = seriesAlign
		}
		return
	}
	toc := make([]int64, 6)
	for i := range toc {
		toc[i] = int64(binary.BigEndian.Uint64(x.b[size-tocBytes+8*int64(i):]))
	}
	x.symbolsAt, x.seriesAt, x.postings, x.table = toc[0], toc[1], toc[4], toc[5]
	x.seriesEnd = x.postings
	if toc[2] > 0 { // label indices, which lie between in old indexes
		x.seriesEnd = min(x.seriesEnd, toc[2])
	}
	places := []int64{headerBytes, x.symbolsAt, x.seriesAt, x.seriesEnd, x.postings, x.table, size - tocBytes}
	if !slices.IsSorted(places) {
		x.fault(size-tocBytes, "", "the table of contents has its sections at %v", places)
		x.symbolsAt, x.seriesAt, x.seriesEnd, x.postings, x.table = headerBytes, seriesAlign, size, 0, 0
	}
}

// sectionEnd returns where the section at off ends with its checksum, 0 when it is not intact.
func (x *indexFile) sectionEnd(off, limit int64) int64 {
	if off < 0 || off+lengthBytes+crc32.Size > limit {
		return 0
	}
	end := off + lengthBytes + int64(binary.BigEndian.Uint32(x.b[off:])) + crc32.Size
	if end > limit || !intact(x.b[off+lengthBytes:end]) {
		return 0
	}
	return end
}

// section is what a section holds, without length and checksum; nil when it is not intact.
func (x *indexFile) section(off, limit int64) []byte {
	end := x.sectionEnd(off, limit)
	if end == 0 {
		return nil
	}
	return x.b[off+lengthBytes : end-crc32.Size]
}

// repaired finds a section whose length may be wrong: it ends less than align bytes before limit.
func (x *indexFile) repaired(off, limit, align int64) []byte {
	for end := limit; end > limit-align; end-- {
		if from := off + lengthBytes; from+crc32.Size <= end && intact(x.b[from:end]) {
			return x.b[from : end-crc32.Size]
		}
	}
	return nil
}

func (x *indexFile) readSymbols() {
	content := x.section(x.symbolsAt, x.seriesEnd)
	if content == nil && x.postings > 0 {
		content = x.repaired(x.symbolsAt, x.seriesAt, seriesAlign)
	}
	if len(content) < lengthBytes {
		x.fault(x.symbolsAt, "", "checksum of the symbols differs")
		return
	}
	base := cap(x.b) - cap(content) // content is a part of b, capacities included
	count := binary.BigEndian.Uint32(content)
	if uint64(count) > uint64(len(content)) {
		x.fault(x.symbolsAt, "", "there are fewer symbols than they say")
		return
	}
	symbols := make([]uint32, 0, count)
	d := cursor{b: content[lengthBytes:]}
	for range count {
		symbols = append(symbols, uint32(base+len(content)-len(d.b)))
		d.text()
	}
	if d.bad || len(d.b) > 0 {
		x.fault(x.symbolsAt, "", "there are fewer symbols than they say")
		return
	}
	x.symbols = symbols
}

// symbol returns a string by its number. The number has to be below len(symbols).
func (x *indexFile) symbol(n uint64) string {
	d := cursor{b: x.b[x.symbols[n]:]}
	return string(d.text())
}

// readTable reads the table that names the lists of postings.
func (x *indexFile) readTable() {
	if x.table == 0 {
		return
	}
	limit := int64(len(x.b)) - tocBytes
	content := x.section(x.table, limit)
	if content == nil {
		content = x.repaired(x.table, limit, 1)
	}
	if len(content) < lengthBytes {
		x.fault(x.table, "", "checksum of the table of postings differs")
		return
	}
	count := binary.BigEndian.Uint32(content)
	lists := make([]list, 0, min(uint64(count), uint64(len(content))))
	d := cursor{b: content[lengthBytes:]}
	for range count {
		d.uvarint() // the number of keys, two
		lists = append(lists, list{name: d.text(), value: d.text(), at: int64(d.uvarint())})
		if d.bad {
			x.fault(x.table, "", "an entry of the table of postings leads beyond its end")
			return
		}
	}
	x.lists = lists
}

// postingsAt returns the references of a list, four bytes each, or nil when they are not intact.
func (x *indexFile) postingsAt(at int64) []byte {
	if at < x.postings || at >= x.table {
		return nil
	}
	content := x.section(at, x.table)
	if len(content) < lengthBytes || int(binary.BigEndian.Uint32(content))*4 != len(content)-lengthBytes {
		return nil
	}
	return content[lengthBytes:]
}

// readRefs finds the list of all series. It comes first.
func (x *indexFile) readRefs() {
	if x.postings == 0 {
		return
	}
	at := alignUp(x.postings, 4)
	for _, l := range x.lists {
		if len(l.name)+len(l.value) == 0 {
			at = l.at
			break
		}
	}
	refs := x.postingsAt(at)
	last := int64(0)
	for i := 0; i < len(refs); i += 4 {
		off := int64(binary.BigEndian.Uint32(refs[i:])) * seriesAlign
		if off < x.seriesAt || off >= x.seriesEnd || off <= last {
			refs = nil
			break
		}
		last = off
	}
	if refs == nil {
		x.fault(at, "", "the list of all series is damaged")
	}
	x.refs = refs
}

// entry is the place of a series in the index.
type entry struct {
	off int64
	// content is what the checksum covers, nil when nothing is intact here.
	content []byte
}

// entries calls fn for each series in order; where some cannot be read, once for each of them when the list of all
// series is known, else once for all.
func (x *indexFile) entries(fn func(entry) error) error {
	if x.refs == nil {
		return x.walk(fn)
	}
	for i := 0; i < len(x.refs); i += 4 {
		off := int64(binary.BigEndian.Uint32(x.refs[i:])) * seriesAlign
		limit := x.seriesEnd
		if i+4 < len(x.refs) {
			limit = int64(binary.BigEndian.Uint32(x.refs[i+4:])) * seriesAlign
		}
		content, _ := x.entryAt(off, limit, maxEntryBytes)
		if content == nil {
			content = x.mended(off, limit)
		}
		if err := fn(entry{off, content}); err != nil {
			return err
		}
	}
	return nil
}

// walk goes from one series to the next. Behind a broken one it looks for the next place with one that is intact.
func (x *indexFile) walk(fn func(entry) error) error {
	limit := min(x.seriesEnd, int64(len(x.b)))
	for off := alignUp(x.seriesAt, seriesAlign); off < limit; {
		content, end := x.entryAt(off, limit, maxEntryBytes)
		if content == nil {
			next := off + seriesAlign
			for next < limit {
				if c, _ := x.entryAt(next, limit, maxResyncBytes); c != nil {
					break
				}
				next += seriesAlign
			}
			if next >= limit && x.postings == 0 {
				return nil // the series end somewhere, and nothing says where
			}
			content, end = x.mended(off, min(next, limit)), next
		}
		if err := fn(entry{off, content}); err != nil {
			return err
		}
		off = alignUp(end, seriesAlign)
	}
	return nil
}

// entryAt returns what the checksum of a series covers and where it ends, nil when no intact one begins here.
func (x *indexFile) entryAt(off, limit, most int64) (content []byte, end int64) {
	if limit > int64(len(x.b)) || off >= limit {
		return nil, 0
	}
	n, used := binary.Uvarint(x.b[off:limit])
	from := off + int64(used)
	if used <= 0 || n == 0 || n > uint64(most) || int64(n)+crc32.Size > limit-from {
		return nil, 0
	}
	end = from + int64(n) + crc32.Size
	if !intact(x.b[from:end]) || !decodable(x.b[from:end-crc32.Size]) {
		return nil, 0
	}
	return x.b[from : end-crc32.Size], end
}

// mended finds a series of which only the length in front, which no checksum covers, is wrong: it ends less than 16 bytes
// before the next one.
func (x *indexFile) mended(off, limit int64) []byte {
	limit = min(limit, int64(len(x.b)))
	for end := limit; end > limit-seriesAlign; end-- {
		for used := int64(1); used <= 4; used++ {
			from := off + used
			n := end - crc32.Size - from
			if n > 0 && n <= maxEntryBytes && uvarintLen(uint64(n)) == used &&
				intact(x.b[from:end]) && decodable(x.b[from:end-crc32.Size]) {
				return x.b[from : end-crc32.Size]
			}
		}
	}
	return nil
}

func decodable(content []byte) bool {
	_, _, err := decodeEntry(content, nil, nil)
	return err == nil
}

// chunkPlace is what is known of one chunk.
type chunkPlace struct {
	mint, maxt int64 // both inclusive
	segment    uint32
	offset     uint32
	// length is that of the whole record, 0 when it is not known.
	length uint32
	// piece is set for bytes that are not intact and of which only the series is known: mint and maxt are the block's.
	piece bool
}

// key is the place in one number; their order is that of the chunk files.
func (c chunkPlace) key() uint64 { return uint64(c.segment)<<32 | uint64(c.offset) }

// decodeEntry returns the numbers of the symbols of a series, names and values in turn, and its chunks.
func decodeEntry(content []byte, symbols []uint64, chunks []chunkPlace) ([]uint64, []chunkPlace, error) {
	symbols, chunks = symbols[:0], chunks[:0]
	d := cursor{b: content}
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		return nil, nil, fmt.Errorf("it has %d labels in %d bytes", n, len(content))
	}
	for range n {
		symbols = append(symbols, d.uvarint(), d.uvarint())
	}
	n = d.uvarint()
	if n > uint64(len(d.b)) {
		return nil, nil, fmt.Errorf("it has %d chunks in %d bytes", n, len(content))
	}
	var maxt int64
	var ref uint64
	for i := range n {
		var c chunkPlace
		if i == 0 {
			c.mint = d.varint()
			c.maxt = c.mint + int64(d.uvarint())
			ref = d.uvarint()
		} else {
			c.mint = maxt + int64(d.uvarint())
			c.maxt = c.mint + int64(d.uvarint())
			ref += uint64(d.varint())
		}
		maxt = c.maxt
		c.segment, c.offset = uint32(ref>>32), uint32(ref)
		chunks = append(chunks, c)
	}
	if d.bad || len(d.b) > 0 {
		return nil, nil, fmt.Errorf("it cannot be decoded")
	}
	return symbols, chunks, nil
}
