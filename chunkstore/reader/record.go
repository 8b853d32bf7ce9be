package reader

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// decodeRecord returns the data and encoding of the chunk at the beginning of buf, checked, and aliasing buf. The layout
// is uvarint length, encoding (1 byte), data, CRC-32 of the latter two. Bytes behind it are ignored.
func decodeRecord(buf []byte) (data []byte, enc chunkenc.Encoding, err error) {
	length, n := binary.Uvarint(buf[:min(len(buf), chunks.MaxChunkLengthFieldSize)])
	if n <= 0 || length > uint64(len(buf)) {
		return nil, 0, fmt.Errorf("%w: impossible length of a chunk", ErrDamaged)
	}
	dataStart := n + chunks.ChunkEncodingSize
	dataEnd := dataStart + int(length)
	if len(buf) < dataEnd+crc32.Size {
		return nil, 0, fmt.Errorf("%w: the chunk is longer than its place", ErrDamaged)
	}
	if crc32.Checksum(buf[n:dataEnd], castagnoli) != binary.BigEndian.Uint32(buf[dataEnd:]) {
		return nil, 0, fmt.Errorf("%w: checksum of a chunk differs", ErrDamaged)
	}
	return buf[dataStart:dataEnd:dataEnd], chunkenc.Encoding(buf[n]), nil
}

// newChunk returns data as a chunk. An encoding that is not known, and data too short for its header, are damage.
func newChunk(enc chunkenc.Encoding, data []byte) (c chunkenc.Chunk, err error) {
	defer recovered(&err)
	if c, err = chunkenc.FromData(enc, data); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	_ = c.NumSamples() // reads the header
	return c, nil
}
