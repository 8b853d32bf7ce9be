package ingester

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/wlog"
)

// headChunksDirName is where stock keeps the head's finished chunks. They are a copy: the logs hold the same samples
// until a block does. Stock syncs a file when it begins the next one, so a kill or a power cut may leave the last file
// incomplete, and a torn chunk makes stock delete the whole file.
const headChunksDirName = "chunks_head"

// The layout of a head chunk: series reference, least and greatest time (8 bytes each, big endian), encoding (1 byte),
// length of data (uvarint), data, CRC-32C of all that.
const (
	headChunkFixed  = 3*8 + 1
	headChunkMaxLen = 1 << 24 // far above any chunk; a longer one is a broken length
	// headChunkOutOfOrder is the bit of the encoding that marks out-of-order samples.
	headChunkOutOfOrder = 0x80
)

// headChunks is what a scan found in chunks_head.
type headChunks struct {
	dir string
	// last is the last readable chunk that stock will find, zero when there is none.
	last chunks.ChunkDiskMapperRef
	// highestSeries is the highest series reference of any readable chunk.
	highestSeries uint64
	// bytes is the size of all readable chunks.
	bytes int64
	// outOfOrder is set when any readable chunk holds out-of-order samples.
	outOfOrder bool
	// cut is the file to shorten to cutSize, from is the first number to set aside; -1 and the empty string for none.
	cut     string
	cutSize int64
	files   []int // in ascending order
	from    int
}

// scanHeadChunks reads the head chunk files in order up to the first fault. Chunks behind it must go, even sound ones:
// replay skips all samples of a series up to its newest chunk, so a chunk missing before that would be a hole.
func scanHeadChunks(tenantDir string) (*headChunks, error) {
	h := &headChunks{dir: filepath.Join(tenantDir, headChunksDirName), from: -1}
	var err error
	if h.files, err = segmentNumbers(h.dir); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return h, nil
		}
		return nil, err
	}
	for i, n := range h.files {
		if i > 0 && n != h.files[i-1]+1 {
			h.from = n
			return h, nil
		}
		path := h.path(n)
		good, whole, err := h.scanFile(path, n)
		if err != nil {
			return nil, fmt.Errorf("scan %s: %w", path, err)
		}
		if whole {
			continue
		}
		if good < chunks.HeadChunkFileHeaderSize {
			h.from = n
			return h, nil
		}
		h.cut, h.cutSize = path, good
		if i+1 < len(h.files) {
			h.from = h.files[i+1]
		}
		return h, nil
	}
	return h, nil
}

func (h *headChunks) path(n int) string { return filepath.Join(h.dir, fmt.Sprintf("%06d", n)) }

// scanFile returns where the readable part of a file ends, and whether that is the end of what was written.
func (h *headChunks) scanFile(path string, n int) (good int64, whole bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r := bufio.NewReaderSize(f, 1<<20)
	var header [chunks.HeadChunkFileHeaderSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, false, ignoreEOF(err)
	}
	if binary.BigEndian.Uint32(header[:]) != chunks.MagicHeadChunks || header[chunks.MagicChunksSize] != 1 {
		return 0, false, nil
	}
	off := int64(len(header))
	crc := crc32.MakeTable(crc32.Castagnoli)
	var buf []byte
	for {
		size, series, outOfOrder, err := readHeadChunk(r, &buf, crc)
		switch {
		case errors.Is(err, errHeadChunksEnd):
			return off, true, nil
		case errors.Is(err, errHeadChunkTorn):
			return off, false, nil
		case err != nil:
			return off, false, err
		}
		h.last = chunks.ChunkDiskMapperRef(uint64(n)<<32 | uint64(off))
		h.highestSeries = max(h.highestSeries, series)
		h.outOfOrder = h.outOfOrder || outOfOrder
		h.bytes += size
		off += size
	}
}

var (
	errHeadChunksEnd = errors.New("end of head chunks")
	errHeadChunkTorn = errors.New("head chunk is torn")
)

// readHeadChunk reads one chunk and returns its size on disk, its series and whether its samples came out of order.
func readHeadChunk(r *bufio.Reader, buf *[]byte, table *crc32.Table,
) (size int64, series uint64, outOfOrder bool, err error) {
	fixed, err := r.Peek(headChunkFixed)
	if len(fixed) < headChunkFixed {
		if err := ignoreEOF(err); err != nil {
			return 0, 0, false, err
		}
		if allZero(fixed) {
			return 0, 0, false, errHeadChunksEnd
		}
		return 0, 0, false, errHeadChunkTorn
	}
	series = binary.BigEndian.Uint64(fixed)
	if allZero(fixed[:headChunkFixed-1]) {
		return 0, 0, false, errHeadChunksEnd // files are longer than what was written
	}
	outOfOrder = fixed[headChunkFixed-1]&headChunkOutOfOrder != 0
	b := append((*buf)[:0], fixed...)
	_, _ = r.Discard(len(fixed)) // just peeked
	var length uint64
	for shift := 0; ; shift += 7 {
		c, err := r.ReadByte()
		if err != nil || shift > 28 {
			return 0, 0, false, errors.Join(errHeadChunkTorn, ignoreEOF(err))
		}
		b = append(b, c)
		length |= uint64(c&0x7f) << shift
		if c < 0x80 {
			break
		}
	}
	if length > headChunkMaxLen {
		return 0, 0, false, errHeadChunkTorn
	}
	data := len(b)
	b = append(b, make([]byte, int(length)+crc32.Size)...)
	*buf = b
	if _, err := io.ReadFull(r, b[data:]); err != nil {
		if err := ignoreEOF(err); err != nil {
			return 0, 0, false, err
		}
		return 0, 0, false, errHeadChunkTorn
	}
	end := len(b) - crc32.Size
	if crc32.Checksum(b[:end], table) != binary.BigEndian.Uint32(b[end:]) {
		return 0, 0, false, errHeadChunkTorn
	}
	return int64(len(b)), series, outOfOrder, nil
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// repair shortens the first faulty file to its readable part and moves the files behind it into aside. It returns how
// many files it touched.
func (h *headChunks) repair(aside string) (touched int, err error) {
	if h.cut != "" {
		touched++
		if err := cutFile(h.cut, h.cutSize); err != nil {
			return touched, err
		}
	}
	if h.from < 0 {
		return touched, nil
	}
	to := filepath.Join(aside, headChunksDirName)
	if err := os.MkdirAll(to, 0o777); err != nil {
		return touched, err
	}
	for _, n := range h.files {
		if n < h.from {
			continue
		}
		touched++
		if err := os.Rename(h.path(n), filepath.Join(to, filepath.Base(h.path(n)))); err != nil {
			return touched, err
		}
	}
	return touched, syncDir(h.dir)
}

// withoutOutOfOrder deletes all head chunks when any holds out-of-order samples, or the log of such samples is not empty,
// and returns what is left. The logs hold the same samples, and replay makes the chunks anew. Left in place stock would
// lose them from sight, and for good at the next cut, in two ways:
//   - A series that left the head and came back has two references in the log. After a replay it goes on under the
//     first; at the next one the record of the second replaces its out-of-order chunks, while the markers in the log
//     say that they are there.
//   - Once all files of an earlier life are gone their numbers start again at 1, and new chunks count as cut already,
//     because their numbers are below those of the last out-of-order cut.
func (h *headChunks) withoutOutOfOrder(tenantDir string) (*headChunks, error) {
	drop := h.outOfOrder
	if !drop {
		dir := filepath.Join(tenantDir, wlog.WblDirName)
		segments, err := segmentNumbers(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, n := range segments {
			info, err := os.Stat(wlog.SegmentName(dir, n))
			if err != nil {
				return nil, err
			}
			drop = drop || info.Size() > 0
		}
	}
	if !drop {
		return h, nil
	}
	if err := os.RemoveAll(h.dir); err != nil {
		return nil, err
	}
	return &headChunks{dir: h.dir, from: -1}, syncDir(tenantDir)
}
