package reader

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/duramendb/duramen/internal/errkind"
)

const (
	// minWindow is fetched for the first chunk at a place: a day of a series with 15 s scrapes takes 10 to 15 KiB, and
	// the neighbours of the same metric follow it in the segment.
	minWindow = 64 << 10
	// maxWindow bounds the memory of a query to this much for each block that it reads at the same time.
	maxWindow = 512 << 10
	// maxChunk is far above any chunk that is written (120 samples), to keep a damaged length from costing memory.
	maxChunk = 64 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// chunkReader reads the chunks of one block for one Select. Chunks are asked for in about the order in which they lie
// in the segments, so each fetch takes a window ahead, which doubles while the reading goes on in sequence.
type chunkReader struct {
	// ctx is the Select's: the interface under the series iterators has no place for one.
	ctx    context.Context //nolint:containedctx // lives as long as the Select
	r      *Reader
	tenant string
	id     ulid.ULID
	fault  decodeFault

	mu      sync.Mutex
	segment int
	start   int64  // offset of window in the segment
	window  []byte // never written again: chunks alias it
	size    int64  // of the last fetch
}

// Close does nothing; windows are the garbage collector's.
func (*chunkReader) Close() error { return nil }

// ChunkOrIterable returns the chunk that meta refers to; the iterable is always nil. Once a chunk did not decode, it
// fails.
func (c *chunkReader) ChunkOrIterable(meta chunks.Meta) (chunkenc.Chunk, chunkenc.Iterable, error) {
	if err := c.fault.get(); err != nil {
		return nil, nil, blockError(c.tenant, c.id, err)
	}
	segment, offset := chunks.BlockChunkRef(meta.Ref).Unpack()
	data, enc, err := c.read(segment, int64(offset))
	if err == nil {
		var chunk chunkenc.Chunk
		if chunk, err = chunkenc.FromData(enc, data); err == nil {
			c.r.metrics.chunkBytes.Add(float64(len(data)))
			return watchedChunk{chunk, &c.fault}, nil, nil
		}
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	err = objectError(c.tenant, c.id, segmentKey(c.tenant, c.id, segment), fmt.Errorf("chunk at byte %d: %w", offset, err))
	c.r.metrics.failures.WithLabelValues(errkind.Of(err).String()).Inc()
	return nil, nil, err
}

// read returns the checked chunk at offset of a segment.
func (c *chunkReader) read(segment int, offset int64) ([]byte, chunkenc.Encoding, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	data, enc, err := c.readWindow(segment, offset)
	if errors.Is(err, ErrDamaged) { // perhaps only on its way
		c.r.metrics.refetches.WithLabelValues("chunks").Inc()
		c.window, c.size = nil, 0
		data, enc, err = c.readWindow(segment, offset)
	}
	return data, enc, err
}

// readWindow returns the checked chunk at offset of a segment, from the window or from a new one. The lock is held.
func (c *chunkReader) readWindow(segment int, offset int64) ([]byte, chunkenc.Encoding, error) {
	need := int64(0)
	if end := c.start + int64(len(c.window)); segment == c.segment && c.start <= offset && offset < end {
		data, enc, size, err := decodeChunk(c.window[offset-c.start:])
		if !errors.Is(err, errShort) {
			return data, enc, err
		}
		need = size
	}
	for {
		length := max(need, c.ahead(segment, offset))
		window, err := c.fetch(segment, offset, length)
		if err != nil {
			return nil, 0, err
		}
		c.segment, c.start, c.window, c.size = segment, offset, window, length
		data, enc, size, err := decodeChunk(window)
		switch {
		case !errors.Is(err, errShort):
			return data, enc, err
		case int64(len(window)) < length || size <= length:
			return nil, 0, fmt.Errorf("%w: it ends within the chunk", ErrDamaged)
		}
		need = size
	}
}

// ahead returns how much to fetch at offset: more when it is where the last window ended, or not far behind it.
func (c *chunkReader) ahead(segment int, offset int64) int64 {
	end := c.start + int64(len(c.window))
	if c.size > 0 && segment == c.segment && c.start < offset && offset <= end+c.size {
		return min(2*c.size, maxWindow)
	}
	return minWindow
}

// fetch returns length bytes at offset of a segment, fewer at its end.
func (c *chunkReader) fetch(segment int, offset, length int64) ([]byte, error) {
	c.r.metrics.fetches.WithLabelValues("chunks").Inc()
	body, err := c.r.bkt.GetRange(c.ctx, segmentKey(c.tenant, c.id, segment), offset, length)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	buf, n := make([]byte, length), 0
	for n < len(buf) {
		m, err := body.Read(buf[n:])
		n += m
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	c.r.metrics.fetchedBytes.WithLabelValues("chunks").Add(float64(n))
	return buf[:n:n], nil
}

// errShort means that a buffer ends within the chunk.
var errShort = errors.New("chunk is cut")

// decodeChunk returns the data and encoding of the chunk at the beginning of buf, checked, and aliasing buf. The layout
// is uvarint length, encoding (1 byte), data, CRC-32 of the latter two. With errShort, size is how many bytes it takes
// at least.
func decodeChunk(buf []byte) (data []byte, enc chunkenc.Encoding, size int64, err error) {
	length, n := binary.Uvarint(buf[:min(len(buf), chunks.MaxChunkLengthFieldSize)])
	switch {
	case n == 0 && len(buf) < chunks.MaxChunkLengthFieldSize:
		return nil, 0, chunks.MaxChunkLengthFieldSize, errShort
	case n <= 0 || length > maxChunk:
		return nil, 0, 0, fmt.Errorf("%w: impossible length of a chunk", ErrDamaged)
	}
	dataStart := n + chunks.ChunkEncodingSize
	dataEnd := dataStart + int(length)
	size = int64(dataEnd) + crc32.Size
	if int64(len(buf)) < size {
		return nil, 0, size, errShort
	}
	if crc32.Checksum(buf[n:dataEnd], castagnoli) != binary.BigEndian.Uint32(buf[dataEnd:]) {
		return nil, 0, 0, fmt.Errorf("%w: checksum of a chunk differs", ErrDamaged)
	}
	return buf[dataStart:dataEnd:dataEnd], chunkenc.Encoding(buf[n]), size, nil
}
