package salvage

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// maxRecordBytes is far above any chunk that is written.
const maxRecordBytes = 64 << 20

// record is an intact chunk as it lies in its file. Data is valid until the next one is read.
type record struct {
	encoding   chunkenc.Encoding
	data       []byte
	length     int64 // of the whole record
	sum        uint32
	mint, maxt int64 // of the samples, both inclusive
	floats     uint64
	histograms uint64
}

func (r *record) samples() uint64 { return r.floats + r.histograms }

// remains are what is known of a record that is not intact, to tell it from others: its checksum as it is stored and that
// of what is there, and its length. Numbers that are not known are 0.
type remains struct {
	stored, actual uint32
	length         uint32
	why            string
}

// same reports whether an intact record can be the one that these are the remains of.
func (m remains) same(r *record) bool {
	return m.sameBytes(r) || m.length != 0 && int64(m.length) == r.length
}

// sameBytes is same without a look at the length.
func (m remains) sameBytes(r *record) bool {
	return m.stored != 0 && m.stored == r.sum || m.actual != 0 && m.actual == r.sum
}

// read returns the record at a place, or nil and what is left of it. limit is where the next one begins, or the file
// ends; exact is set when the record reaches to limit.
func (f *folder) read(segment uint32, off, limit int64, exact bool) (*record, remains, error) {
	size := f.segmentSize(segment)
	limit = min(limit, size)
	if off >= size {
		return nil, remains{why: "its file ends before it, or is missing"}, nil
	}
	head, err := f.at(segment, off, chunks.MaxChunkLengthFieldSize)
	if err != nil {
		return nil, remains{}, err
	}
	n, used := binary.Uvarint(head)
	frame := int64(chunks.ChunkEncodingSize + crc32.Size)
	if used > 0 && n <= maxRecordBytes && off+int64(used)+frame+int64(n) <= limit {
		r, err := f.intact(segment, off, int64(used), int64(n)+frame)
		if r != nil || err != nil {
			return r, remains{}, err
		}
	}
	left := remains{why: "its checksum differs"}
	if !exact {
		return nil, left, nil
	}
	left.length = uint32(limit - off)
	// The length in front is under no checksum: the one that reaches to the next record may be the true one.
	for used := int64(1); used <= chunks.MaxChunkLengthFieldSize; used++ {
		n := limit - off - used - frame
		if n < 0 || n > maxRecordBytes || uvarintLen(uint64(n)) != used {
			continue
		}
		b, err := f.at(segment, off+used, n+frame)
		if err != nil || int64(len(b)) < n+frame {
			return nil, left, err
		}
		left.stored, left.actual = binary.BigEndian.Uint32(b[len(b)-crc32.Size:]), checksum(b[:len(b)-crc32.Size])
		r, err := f.intact(segment, off, used, n+frame)
		if r != nil || err != nil {
			return r, remains{}, err
		}
	}
	return nil, left, nil
}

// intact returns the record whose encoding, data and checksum are the covered bytes behind used of length, nil when its
// checksum differs. A record that is intact and makes no sense has no samples.
func (f *folder) intact(segment uint32, off, used, covered int64) (*record, error) {
	b, err := f.at(segment, off+used, covered)
	if err != nil || int64(len(b)) < covered || !intact(b) {
		return nil, err
	}
	n := len(b) - crc32.Size
	r := &record{
		encoding: chunkenc.Encoding(b[0]), data: b[chunks.ChunkEncodingSize:n], length: used + covered,
		sum: binary.BigEndian.Uint32(b[n:]),
	}
	if err := r.decode(); err != nil {
		r.floats, r.histograms = 0, 0
	}
	return r, nil
}

// decode reads all samples.
func (r *record) decode() (err error) {
	defer func() {
		if p := recover(); p != nil { // the decoders trust what has passed the checksum
			err = fmt.Errorf("the chunk cannot be decoded: %v", p)
		}
	}()
	c, err := chunkenc.FromData(r.encoding, r.data)
	if err != nil {
		return err
	}
	it := c.Iterator(nil)
	var h *histogram.FloatHistogram
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		t := it.AtT()
		if r.samples() == 0 {
			r.mint = t
		} else if t <= r.maxt {
			return fmt.Errorf("samples are not in order of time")
		}
		r.maxt = t
		if kind == chunkenc.ValFloat {
			r.floats++
			continue
		}
		_, h = it.AtFloatHistogram(h)
		if err := h.Validate(); err != nil {
			return fmt.Errorf("the histogram at %d is none: %w", t, err)
		}
		r.histograms++
	}
	if err := it.Err(); err != nil {
		return err
	}
	if n := uint64(c.NumSamples()); n != r.samples() {
		return fmt.Errorf("it says that it has %d samples, and has %d", n, r.samples())
	}
	return nil
}

// fits reports why an intact record cannot be the chunk that an index names, empty when it is.
func (r *record) fits(c chunkPlace, mint, maxt int64) string {
	switch {
	case r.samples() == 0:
		return "its samples cannot be decoded"
	case r.mint < c.mint || r.maxt > c.maxt:
		return fmt.Sprintf("it has samples from %d to %d, and the index says %d to %d", r.mint, r.maxt, c.mint, c.maxt)
	case r.mint < mint || r.maxt >= maxt:
		return fmt.Sprintf("it has samples from %d to %d, which is outside of the block", r.mint, r.maxt)
	default:
		return ""
	}
}
