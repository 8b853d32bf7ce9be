package merge

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/duramendb/duramen/internal/samplemerge"
)

// stamp is a sample that is to be kept, as far as it counts: its time, and its bits when it is a float.
type stamp struct {
	t    int64
	bits uint64
}

// decoded merges chunks sample by sample. Each input is one source, whatever its chunks are.
func (m *merger) decoded(p []piece) error {
	slices.SortStableFunc(p, func(a, b piece) int { return cmp.Compare(a.in.number, b.in.number) })
	if err := m.keep(p); err != nil {
		return err
	}
	enc, kept := chunkenc.EncXOR, p[:0]
	m.samples, m.runs = m.samples[:0], m.runs[:0]
	for _, x := range p {
		before := len(m.samples)
		if err := m.examine(&x); err != nil {
			return err
		}
		if x.record.encoding() == chunkenc.EncXOR2 {
			enc = chunkenc.EncXOR2
		}
		if len(m.samples) > before {
			kept, m.runs = append(kept, x), append(m.runs, len(m.samples))
		}
	}
	m.result.ChunksDecoded += uint64(len(p))
	if len(kept) == 0 {
		return nil
	}
	all := len(m.samples)
	times, conflicts := m.distinct()
	m.result.Conflicts += conflicts
	m.result.Duplicates += uint64(all - len(times)) //nolint:gosec // not negative
	metas, err := m.encoded(kept, enc)
	if err != nil {
		return err
	}
	if err := sameTimes(metas, times, nil); err != nil {
		return &Lost{Reasons: []string{fmt.Sprintf("chunks of %s that were encoded: %v", m.lset, err)}}
	}
	for _, c := range metas {
		r := newRecord(c.Chunk)
		m.result.ChunksEncoded++
		m.kind(c.Chunk.Encoding(), c.Chunk.NumSamples())
		m.due.chunk(m.hash, c.MinTime, c.MaxTime, uint64(c.Chunk.NumSamples()), r.sum()) //nolint:gosec // not negative
		if err := m.out.chunk(r, c.MinTime, c.MaxTime); err != nil {
			return err
		}
	}
	return nil
}

// encoded merges chunks, each of which has been decoded once, so that a failure is not that of one of them alone.
func (m *merger) encoded(p []piece, floats chunkenc.Encoding) (metas []chunks.Meta, err error) {
	defer func() {
		if e := recover(); e != nil {
			err = fmt.Errorf("encoder panicked: %v", e)
		}
		if err != nil {
			err = &Lost{Reasons: []string{fmt.Sprintf("chunks of %s cannot be encoded: %v", m.lset, err)}}
		}
	}()
	return m.encode(samplemerge.Series(m.sources(p)...), floats)
}

// keep reads the records of all pieces into memory.
func (m *merger) keep(p []piece) error {
	m.bytes = m.bytes[:0]
	for i := range p {
		r, err := p[i].in.record(p[i].Chunk)
		if err != nil {
			return err
		}
		if !r.intact() {
			return p[i].in.broken(p[i].Chunk, errSum)
		}
		if cap(m.bytes)-len(m.bytes) < len(r.all) {
			m.bytes = make([]byte, 0, max(2*cap(m.bytes), len(r.all), 64<<10)) // records that are kept stay where they are
		}
		begin := len(m.bytes)
		m.bytes = append(m.bytes, r.all...)
		p[i].record = record{m.bytes[begin:len(m.bytes):len(m.bytes)], r.body}
	}
	return nil
}

// examine decodes a chunk to its end, notes each sample that is to be kept, and counts the others.
func (m *merger) examine(p *piece) (err error) {
	defer func() {
		if e := recover(); e != nil { // decoders trust what has passed the checksum
			err = p.in.broken(p.Chunk, fmt.Errorf("it cannot be decoded: %v", e))
		}
	}()
	c, err := chunkenc.FromData(p.record.encoding(), p.record.data())
	if err != nil {
		return p.in.broken(p.Chunk, err)
	}
	hidden := m.hidden[p.in.number]
	last, n := int64(math.MinInt64), 0
	m.scan = c.Iterator(m.scan)
	it := m.scan
	var h *histogram.FloatHistogram
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		s := stamp{t: it.AtT()}
		if n > 0 && s.t <= last || s.t < p.MinTime || s.t > p.MaxTime {
			return p.in.broken(p.Chunk, errors.New("its samples are not in order, or not where the index says"))
		}
		if last, n = s.t, n+1; typ == chunkenc.ValFloat {
			_, v := it.At()
			s.bits = math.Float64bits(v)
		} else {
			_, h = it.AtFloatHistogram(h)
		}
		switch {
		case s.t < m.mint || s.t >= m.maxt:
			m.result.Outside++
		case hidden.has(s.t):
			m.result.Deleted++
		default:
			m.samples = append(m.samples, s)
		}
	}
	if err := it.Err(); err != nil {
		return p.in.broken(p.Chunk, err)
	}
	if n != c.NumSamples() {
		return p.in.broken(p.Chunk, fmt.Errorf("it has %d samples instead of %d", n, c.NumSamples()))
	}
	m.result.InputSamples += uint64(n) //nolint:gosec // not negative
	p.in.samplesUsed += uint64(n)      //nolint:gosec // not negative
	return nil
}

// distinct returns the times of the samples, each once and in order, and at how many of them floats differ. The samples
// come in runs that are in order, one for each chunk.
func (m *merger) distinct() (times []stamp, conflicts uint64) {
	all := m.samples
	for len(m.runs) > 1 { // neighbours are merged, until one run is left
		m.spare = m.spare[:0]
		left, begin := m.runs[:0], 0
		for i := 0; i < len(m.runs); i += 2 {
			middle, end := m.runs[i], m.runs[min(i+1, len(m.runs)-1)]
			m.spare = appendMerged(m.spare, all[begin:middle], all[middle:end])
			left, begin = append(left, end), end
		}
		m.runs = left
		all, m.spare = m.spare, all
	}
	m.samples, times = all, all[:0]
	conflicting := false
	for _, s := range all {
		n := len(times)
		switch {
		case n == 0 || times[n-1].t != s.t:
			times, conflicting = append(times, s), false
		case times[n-1].bits != s.bits && !conflicting:
			conflicting = true
			conflicts++
		}
	}
	return times, conflicts
}

// appendMerged appends two runs as one.
func appendMerged(dst, a, b []stamp) []stamp {
	for len(a) > 0 && len(b) > 0 {
		if b[0].t < a[0].t {
			dst, b = append(dst, b[0]), b[1:]
		} else {
			dst, a = append(dst, a[0]), a[1:]
		}
	}
	return append(append(dst, a...), b...)
}

// sources returns one series of samples for each input, without those that are to be left out.
func (m *merger) sources(p []piece) (series []storage.Series) {
	for len(p) > 0 {
		n := 1
		for n < len(p) && p[n].in == p[0].in {
			n++
		}
		series = append(series, m.source(p[:n]))
		p = p[n:]
	}
	return series
}

// source returns the samples of one input. Chunks that overlap are merged before they have the input's vote.
func (m *merger) source(p []piece) storage.Series {
	series := make([]storage.Series, 0, len(p))
	f := filter{m.mint, m.maxt, m.hidden[p[0].in.number]}
	for i := range p {
		r := p[i].record
		whole := m.whole(&p[i])
		series = append(series, &storage.SeriesEntry{
			Lset: labels.EmptyLabels(),
			SampleIteratorFn: func(chunkenc.Iterator) chunkenc.Iterator {
				c, err := chunkenc.FromData(r.encoding(), r.data())
				if err != nil {
					return failing{chunkenc.NewNopIterator(), err}
				}
				if whole {
					return c.Iterator(nil)
				}
				return &filtered{c.Iterator(nil), f}
			},
		})
	}
	return samplemerge.Series(series...)
}

// encodeChunks encodes a series as Prometheus' compaction does.
func encodeChunks(s storage.Series, floats chunkenc.Encoding) (metas []chunks.Meta, _ error) {
	it := storage.NewSeriesToChunkEncoderWithFloatEncoding(s, floats).Iterator(nil)
	for it.Next() {
		metas = append(metas, it.At())
	}
	return metas, it.Err()
}

// sameTimes makes sure that the chunks have exactly the given times, in their order.
func sameTimes(metas []chunks.Meta, times []stamp, it chunkenc.Iterator) error {
	n := 0
	for _, c := range metas {
		first := n
		it = c.Chunk.Iterator(it)
		for it.Next() != chunkenc.ValNone {
			if n == len(times) || times[n].t != it.AtT() {
				return fmt.Errorf("sample %d of %d is at %d", n, len(times), it.AtT())
			}
			n++
		}
		if err := it.Err(); err != nil {
			return err
		}
		if n == first || times[first].t != c.MinTime || times[n-1].t != c.MaxTime || n-first != c.Chunk.NumSamples() {
			return fmt.Errorf("a chunk says that it has %d samples from %d to %d", c.Chunk.NumSamples(), c.MinTime, c.MaxTime)
		}
	}
	if n != len(times) {
		return fmt.Errorf("there are %d samples instead of %d", n, len(times))
	}
	return nil
}
