package merge

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/duramendb/duramen/chunkstore/rawblock"
)

// follows reports whether the chunk before in the output is also the one before in an input that has these, and notes
// that they are the last ones now.
func (m *merger) follows(p []piece) (follows bool) {
	for i := range p {
		in := p[i].in
		follows = follows || in.lastGroup == m.group-1 && in.lastOrder == p[i].order-1 && p[i].order > 0
		in.lastGroup, in.lastOrder = m.group, p[i].order
	}
	return follows
}

// hinted returns a chunk as it may stand in the output. The header of a histogram's chunk says whether the counter was
// reset between the chunk before and its first sample. That is true of the chunk before in its own block; behind
// another it is not known, and whoever reads it compares. It is what a query over the blocks of the input says, too.
func (m *merger) hinted(r record, follows bool) record {
	var at int
	switch r.encoding() {
	case chunkenc.EncHistogram, chunkenc.EncFloatHistogram:
		at = 2 // behind the number of samples
	case chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST:
		at = 0 // the upper bits of the number of samples
	default:
		return r
	}
	switch header := chunkenc.CounterResetHeader(r.data()[at] & chunkenc.CounterResetHeaderMask); {
	case follows, header == chunkenc.GaugeType, header == chunkenc.UnknownCounterReset:
		return r
	}
	m.bytes = append(m.bytes[:0], r.all...)
	r.all = m.bytes
	r.data()[at] &^= chunkenc.CounterResetHeaderMask // UnknownCounterReset is 0
	end := len(r.all) - crc32.Size
	binary.BigEndian.PutUint32(r.all[end:], crc32.Checksum(r.all[r.body:end], rawblock.Castagnoli()))
	return r
}

// newRecord returns the record of a chunk.
func newRecord(c chunkenc.Chunk) record {
	data := c.Bytes()
	all := make([]byte, 0, binary.MaxVarintLen32+1+len(data)+crc32.Size)
	all = binary.AppendUvarint(all, uint64(len(data)))
	body := len(all)
	all = append(all, byte(c.Encoding()))
	all = append(all, data...)
	return record{binary.BigEndian.AppendUint32(all, crc32.Checksum(all[body:], rawblock.Castagnoli())), body}
}
