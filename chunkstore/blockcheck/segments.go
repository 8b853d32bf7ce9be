package blockcheck

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/rawblock"
)

// maxChunkBytes is far above any chunk that is written (120 samples): a damaged length shall not cost memory.
const maxChunkBytes = 64 << 20

// chunksVersion is that of the segments' format.
const chunksVersion = 1

// segments walks over the files of chunks in step with the series of the index: both have the chunks in one order, so that
// each is read once, forwards, and what lies between two chunks is seen to belong to nobody.
type segments struct {
	c     *check
	count int

	current int   // the segment that is being read, counted from 1; 0 before the first
	f       *file // nil when it is missing or no segment
	pos     int64 // up to where the current one has been checked
	lost    bool  // the chunk before pos has no length that can be believed

	// seen is of the chunk that was expected last; no samples when it could not be decoded.
	seen struct {
		samples uint64
		sum     uint32
	}

	missing map[int]bool // segments that the index refers to and that are not there
}

// expect checks the chunk that the index names next, and returns where its record ends, 0 when that is not known.
func (s *segments) expect(m rawblock.Chunk, series func() string) (end int64, err error) {
	s.c.sum.Chunks++
	s.seen.samples = 0
	if m.Segment < s.current || m.Segment == s.current && m.Offset < s.pos && !s.lost {
		s.c.fault(block.IndexName, -1, series(), "its chunk at %d of %s comes after a chunk that lies behind it or overlaps it",
			m.Offset, block.SegmentName(m.Segment))
		return 0, s.elsewhere(m, series)
	}
	for s.current < m.Segment {
		if err := s.nextSegment(m.Segment); err != nil {
			return 0, err
		}
	}
	if s.f == nil {
		return 0, nil // said when it was opened
	}
	if err := s.unclaimed(m.Offset); err != nil {
		return 0, err
	}
	end, err = s.chunk(s.f, m, series)
	s.lost = end == 0
	s.pos = max(s.pos, m.Offset+1, end)
	return end, err
}

// nextSegment ends the current segment and goes to the next one; wanted is the one that the index refers to.
func (s *segments) nextSegment(wanted int) error {
	if err := s.finish(); err != nil {
		return err
	}
	if s.current >= s.count {
		if !s.missing[wanted] {
			s.missing[wanted] = true
			s.c.unread = true
			s.c.fault(block.SegmentName(wanted), -1, "", "the index refers to it, and it is not there")
		}
		s.current, s.f = wanted, nil
		return nil
	}
	s.current++
	return s.open()
}

// open begins with the current segment.
func (s *segments) open() error {
	s.f, s.pos, s.lost = nil, 0, false
	name := block.SegmentName(s.current)
	size, ok := s.c.files[name]
	if !ok {
		s.c.unread = true
		s.c.fault(name, -1, "", "it is missing, and later ones are there")
		return nil
	}
	f := s.c.open(name, size)
	b, err := f.at(0, chunks.SegmentHeaderSize)
	if err == errEnd { //nolint:errorlint // file.at returns it bare
		s.c.unread = true
		return s.c.ended(f, 0, err)
	}
	if err != nil {
		return err
	}
	if m := binary.BigEndian.Uint32(b); m != chunks.MagicChunks {
		s.c.fault(name, 0, "", "the file does not begin as one of chunks does, but with %#x", m)
	}
	if b[4] != chunksVersion {
		s.c.fault(name, 4, "", "version of the chunks is %d; %d is known", b[4], chunksVersion)
	}
	if b[5] != 0 || b[6] != 0 || b[7] != 0 {
		s.c.fault(name, 5, "", "a byte that fills up is not zero")
	}
	s.f, s.pos = f, chunks.SegmentHeaderSize
	return nil
}

// finish checks what is left of the current segment.
func (s *segments) finish() error {
	if s.f == nil {
		return nil
	}
	return s.unclaimed(s.f.size)
}

// rest checks all that the series did not refer to, up to the last segment.
func (s *segments) rest() error {
	if err := s.finish(); err != nil {
		return err
	}
	for s.current < s.count {
		s.current++
		if err := s.open(); err != nil {
			return err
		}
		if err := s.finish(); err != nil {
			return err
		}
	}
	return nil
}

// unclaimed checks [pos, to) of the current segment, where the series have no chunk. When the index is fit to tell, there
// should be nothing.
func (s *segments) unclaimed(to int64) error {
	from, n := s.pos, 0
	s.pos = max(s.pos, min(to, s.f.size))
	if s.lost {
		s.lost = false
		return nil // the end of a chunk whose length is damaged
	}
	for at := from; at < s.pos; {
		end, err := s.chunk(s.f, rawblock.Chunk{Segment: s.current, Offset: at, MinTime: minTime, MaxTime: maxTime}, nil)
		if err != nil {
			return err
		}
		if end == 0 || end > s.pos {
			s.c.fault(s.f.name, at, "", "%d bytes belong to no chunk", s.pos-at)
			return nil
		}
		n, at = n+1, end
	}
	if n > 0 && !s.c.noIndex {
		s.c.fault(s.f.name, from, "", "no series in the index that can be read refers to %d chunks in %d bytes", n, s.pos-from)
	}
	return nil
}

// elsewhere checks a chunk away from where the walk is.
func (s *segments) elsewhere(m rawblock.Chunk, series func() string) error {
	name := block.SegmentName(m.Segment)
	size, ok := s.c.files[name]
	if !ok {
		return nil
	}
	_, err := s.chunk(s.c.open(name, size), m, series)
	return err
}

// The widest range: of a chunk that nobody has said anything about.
const (
	minTime = -1 << 63
	maxTime = 1<<63 - 1
)

// chunk checks one chunk of a file and returns where it ends, or 0 when its length cannot be believed. Without a series
// only its checksum and its samples are checked, and they do not count.
func (s *segments) chunk(f *file, m rawblock.Chunk, series func() string) (end int64, err error) {
	fault := func(format string, args ...any) {
		s.c.unread = true
		name := ""
		if series != nil {
			name = series()
		}
		s.c.fault(f.name, m.Offset, name, format, args...)
	}
	head, err := f.upTo(m.Offset, chunks.MaxChunkLengthFieldSize)
	if err != nil && !errors.Is(err, errEnd) {
		return 0, err
	}
	n, used := binary.Uvarint(head)
	if err != nil || used <= 0 || n > maxChunkBytes || m.Offset+int64(used)+chunkFrame+int64(n) > f.size { //nolint:gosec // bounded
		if series != nil {
			fault("the chunk leads beyond the end of the file, at %d", f.size)
		}
		return 0, nil
	}
	covered := chunks.ChunkEncodingSize + int64(n) //nolint:gosec // bounded above
	b, err := f.at(m.Offset+int64(used), covered+crc32.Size)
	if err != nil {
		return 0, err
	}
	if !rawblock.Intact(b[:covered], b[covered:]) {
		if series != nil {
			fault("checksum of the chunk differs")
		}
		return 0, nil
	}
	found, err := decode(chunkenc.Encoding(b[0]), b[chunks.ChunkEncodingSize:covered])
	if err != nil {
		fault("%v", err)
	} else {
		s.seen.samples, s.seen.sum = found.floats+found.histograms, binary.BigEndian.Uint32(b[covered:])
		s.judge(found, m, series != nil, fault)
	}
	return m.Offset + int64(used) + covered + crc32.Size, nil
}

// chunkFrame is what a chunk has beside its length and data.
const chunkFrame = chunks.ChunkEncodingSize + crc32.Size

// judge compares the samples of a chunk with what index and meta.json say of them.
func (s *segments) judge(found samples, m rawblock.Chunk, counts bool, fault func(string, ...any)) {
	sum := s.c.sum
	if found.floats+found.histograms == 0 {
		fault("the chunk has no samples")
		return
	}
	if found.unordered {
		fault("samples of the chunk are not in order of time")
	}
	if found.mint < m.MinTime || found.maxt > m.MaxTime {
		fault("the chunk has samples from %d to %d, and the index says %d to %d", found.mint, found.maxt, m.MinTime, m.MaxTime)
	}
	if meta := sum.Meta; meta != nil && (found.mint < meta.MinTime || found.maxt >= meta.MaxTime) {
		fault("the chunk has samples from %d to %d, outside of the block's range from %d to before %d",
			found.mint, found.maxt, meta.MinTime, meta.MaxTime)
	}
	if counts {
		sum.FloatSamples += found.floats
		sum.HistogramSamples += found.histograms
		sum.MinTime, sum.MaxTime = min(sum.MinTime, found.mint), max(sum.MaxTime, found.maxt)
	}
}

// samples is what a chunk holds.
type samples struct {
	floats, histograms uint64
	mint, maxt         int64
	unordered          bool
}

// decode reads all samples of a chunk.
func decode(enc chunkenc.Encoding, data []byte) (found samples, err error) {
	if enc == chunkenc.EncXOR {
		if found, ok := scanXOR(data); ok {
			return found, nil
		}
	}
	return decodeChunk(enc, data)
}

// decodeChunk is decode for all chunks.
func decodeChunk(enc chunkenc.Encoding, data []byte) (found samples, err error) {
	defer func() {
		if p := recover(); p != nil { // the decoders trust what has passed the checksum
			err = fmt.Errorf("the chunk cannot be decoded: %v", p)
		}
	}()
	c, err := chunkenc.FromData(enc, data)
	if err != nil {
		return found, fmt.Errorf("the chunk cannot be decoded: %w", err)
	}
	it := c.Iterator(nil)
	found.mint, found.maxt = maxTime, minTime
	var h *histogram.FloatHistogram
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		t := it.AtT()
		found.unordered = found.unordered || t <= found.maxt && found.floats+found.histograms > 0
		found.mint, found.maxt = min(found.mint, t), max(found.maxt, t)
		switch kind {
		case chunkenc.ValFloat:
			found.floats++
		default:
			_, h = it.AtFloatHistogram(h)
			if err := h.Validate(); err != nil {
				return found, fmt.Errorf("the histogram at %d is none: %w", t, err)
			}
			found.histograms++
		}
	}
	if err := it.Err(); err != nil {
		return found, fmt.Errorf("the chunk cannot be decoded: %w", err)
	}
	if n := uint64(c.NumSamples()); n != found.floats+found.histograms { //nolint:gosec // not negative
		return found, fmt.Errorf("the chunk says that it has %d samples, and has %d", n, found.floats+found.histograms)
	}
	return found, nil
}
