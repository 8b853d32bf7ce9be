package merge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/rawblock"
)

const (
	// maxSeriesBytes bounds one series in an index, and maxChunkBytes one chunk: far above any that is written, so that
	// a damaged length does not cost memory.
	maxSeriesBytes = 16 << 20
	maxChunkBytes  = 64 << 20
)

// input is a block that is read front to back: its symbols, then its series with their chunks.
type input struct {
	Input

	number int
	from   *objects
	// bytesRead is what was read of it, in the background too.
	bytesRead atomic.Int64
	index     stream
	chunks    stream // files are the segments, counted from 0
	toc       rawblock.Contents

	table  []uint32 // the output's number of each symbol
	unseen []bool   // of the job's deletions; nil when it has seen all

	off    int64 // of the next series
	refs   []uint32
	before []uint32
	list   []rawblock.Chunk
	done   bool

	// What was read, as the reading of the index counts it.
	seriesRead, chunksRead uint64
	// What was merged, as the merge counts it.
	seriesUsed, chunksUsed, samplesUsed uint64

	// lastGroup and lastOrder say which chunk of the series was copied last, see hints.go.
	lastGroup uint64
	lastOrder int
}

// damage is a Damaged of this input.
func (in *input) damage(file string, off int64, format string, args ...any) error {
	return &Damaged{ULID: in.Block.ULID, File: file, Offset: off, Err: fmt.Errorf(format, args...)}
}

// failed gives an error of reading its meaning.
func (in *input) failed(file string, off int64, err error) error {
	switch {
	case errors.Is(err, errEnd):
		return in.damage(file, off, "%w", err)
	case errors.Is(err, bucket.ErrNotFound):
		return in.damage(file, -1, "%w", err)
	default:
		return err
	}
}

// open finds the objects of the block and reads its table of contents.
func (in *input) open(windowIndex, windowChunks int64) error {
	sizes := map[string]int64{}
	err := in.from.keep(in.from.ctx, func() error {
		return in.from.bkt.List(in.from.ctx, in.from.prefix, true, func(o bucket.Object) error {
			sizes[strings.TrimPrefix(o.Key, in.from.prefix)] = o.Size
			return nil
		})
	})
	if err != nil {
		return unavailable(in.from.ctx, err)
	}
	if len(sizes) == 0 {
		return &Gone{in.Block.ULID}
	}
	for _, name := range []string{block.MetaName, block.IndexName} {
		if _, ok := sizes[name]; !ok {
			return in.damage(name, -1, "it is missing")
		}
	}
	in.index = stream{from: in.from, files: []object{{block.IndexName, sizes[block.IndexName]}}, ahead: windowIndex}
	in.chunks = stream{from: in.from, ahead: windowChunks}
	for n := 1; ; n++ {
		size, ok := sizes[block.SegmentName(n)]
		if !ok {
			break
		}
		in.chunks.files = append(in.chunks.files, object{block.SegmentName(n), size})
	}
	return in.contents()
}

func (in *input) contents() error {
	size := in.index.files[0].size
	at := size - rawblock.ContentsBytes
	if at < rawblock.HeaderBytes {
		return in.damage(block.IndexName, -1, "it has %d bytes", size)
	}
	tail := make([]byte, rawblock.ContentsBytes)
	if size <= in.index.ahead {
		b, err := in.index.bytes(0, at, rawblock.ContentsBytes)
		if err != nil {
			return in.failed(block.IndexName, at, err)
		}
		copy(tail, b)
	} else if err := in.from.fill(block.IndexName, tail, at); err != nil {
		return in.failed(block.IndexName, at, err)
	}
	var err error
	if in.toc, err = rawblock.ParseContents(tail, size); err != nil {
		return in.damage(block.IndexName, at, "table of contents: %w", err)
	}
	in.index.until = in.toc.LabelIndices
	in.off = in.toc.Series
	head, err := in.index.bytes(0, 0, rawblock.HeaderBytes)
	if err != nil {
		return in.failed(block.IndexName, 0, err)
	}
	if binary.BigEndian.Uint32(head) != index.MagicIndex || head[4] != index.FormatV2 {
		return in.damage(block.IndexName, 0, "the file does not begin as an index of version %d does", index.FormatV2)
	}
	return nil
}

// advance reads the next series. done is set behind the last.
func (in *input) advance() error {
	limit := in.toc.LabelIndices
	off := (in.off + rawblock.SeriesAlign - 1) / rawblock.SeriesAlign * rawblock.SeriesAlign
	if off >= limit {
		in.done = true
		return nil
	}
	head, err := in.index.upTo(0, off, binary.MaxVarintLen32, limit)
	if err != nil {
		return in.failed(block.IndexName, off, err)
	}
	n, used := binary.Uvarint(head)
	from := off + int64(used)
	if used <= 0 || n > maxSeriesBytes || int64(n)+crc32.Size > limit-from { //nolint:gosec // bounded
		return in.damage(block.IndexName, off, "length of a series is impossible")
	}
	b, err := in.index.bytes(0, from, int64(n)+crc32.Size) //nolint:gosec // bounded
	if err != nil {
		return in.failed(block.IndexName, off, err)
	}
	if !rawblock.Intact(b[:n], b[n:]) {
		return in.damage(block.IndexName, off, "checksum of a series differs")
	}
	if err := in.decode(off, b[:n]); err != nil {
		return err
	}
	in.off = from + int64(n) + crc32.Size //nolint:gosec // bounded
	in.seriesRead++
	in.chunksRead += uint64(len(in.list))
	return nil
}

// decode reads labels and chunks off an intact entry.
func (in *input) decode(off int64, b []byte) error {
	in.before, in.refs = in.refs, in.before[:0]
	d := rawblock.Cursor{B: b}
	for range d.Uvarint() {
		name, value := d.Uvarint(), d.Uvarint()
		if d.Err != nil || name >= uint64(len(in.table)) || value >= uint64(len(in.table)) {
			return in.damage(block.IndexName, off, "a label of a series is of a symbol that is not there")
		}
		n := in.table[name]
		if l := len(in.refs); l > 0 && in.refs[l-2] >= n {
			return in.damage(block.IndexName, off, "labels of a series are not in order")
		}
		in.refs = append(in.refs, n, in.table[value])
	}
	if len(in.refs) == 0 {
		return in.damage(block.IndexName, off, "a series has no labels")
	}
	if slices.Compare(in.before, in.refs) >= 0 {
		return in.damage(block.IndexName, off, "series are not in order")
	}
	var ok bool
	if in.list, ok = d.Chunks(in.list[:0]); !ok || len(d.B) > 0 {
		return in.damage(block.IndexName, off, "a series cannot be decoded")
	}
	return nil
}

// record is a chunk as it lies in a file: length, encoding, data, checksum.
type record struct {
	all  []byte
	body int // where the encoding is
}

func (r record) encoding() chunkenc.Encoding { return chunkenc.Encoding(r.all[r.body]) }
func (r record) data() []byte                { return r.all[r.body+1 : len(r.all)-crc32.Size] }
func (r record) sum() uint32                 { return binary.BigEndian.Uint32(r.all[len(r.all)-crc32.Size:]) }

func (r record) intact() bool {
	end := len(r.all) - crc32.Size
	return rawblock.Intact(r.all[r.body:end], r.all[end:])
}

// samples returns how many samples the chunk says that it has. The record is intact.
func (r record) samples() (int, error) {
	data := r.data()
	if len(data) < 2 {
		return 0, errors.New("the chunk has no data")
	}
	n := int(binary.BigEndian.Uint16(data))
	switch e := r.encoding(); e {
	case chunkenc.EncXOR, chunkenc.EncXOR2:
	case chunkenc.EncHistogram, chunkenc.EncFloatHistogram, chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST:
		if len(data) < 3 {
			return 0, errors.New("the chunk has no data")
		}
		if e == chunkenc.EncHistogramST || e == chunkenc.EncFloatHistogramST {
			c, err := chunkenc.FromData(e, data)
			if err != nil {
				return 0, err
			}
			n = c.NumSamples()
		}
	default:
		return 0, fmt.Errorf("encoding %d of the chunk is not known", e)
	}
	return n, nil
}

// record reads a chunk. It is valid until the next call; its checksum has not been compared.
func (in *input) record(c rawblock.Chunk) (r record, err error) {
	if c.Segment > len(in.chunks.files) {
		return r, in.damage(block.SegmentName(c.Segment), -1, "the index refers to it, and it is not there")
	}
	file := c.Segment - 1
	name, size := in.chunks.files[file].name, in.chunks.files[file].size
	head, err := in.chunks.upTo(file, c.Offset, chunks.MaxChunkLengthFieldSize, size)
	if err != nil {
		return r, in.failed(name, c.Offset, err)
	}
	n, used := binary.Uvarint(head)
	length := int64(used) + chunks.ChunkEncodingSize + int64(n) + crc32.Size //nolint:gosec // bounded below
	if used <= 0 || n > maxChunkBytes || length > size-c.Offset || c.Offset < chunks.SegmentHeaderSize {
		return r, in.damage(name, c.Offset, "the chunk leads beyond the end of the file, at %d", size)
	}
	all, err := in.chunks.bytes(file, c.Offset, length)
	if err != nil {
		return r, in.failed(name, c.Offset, err)
	}
	return record{all, used}, nil
}

// broken is a damage of a chunk.
func (in *input) broken(c rawblock.Chunk, err error) error {
	return in.damage(block.SegmentName(c.Segment), c.Offset, "%w", err)
}

var errSum = errors.New("checksum of the chunk differs")
