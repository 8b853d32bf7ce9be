package seriesgen

import (
	"encoding/binary"

	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

// Tags of the fields of remote write 2.0, io.prometheus.write.v2.Request; those of a sample are as in 1.0.
const (
	tagSymbol2     = 4<<3 | 2
	tagTimeseries2 = 5<<3 | 2
	tagRefs2       = 1<<3 | 2
	tagSample2     = 2<<3 | 2
	tagHistogram2  = 3<<3 | 2
)

// frame is what the 2.0 requests of one span of series have in common: the symbol table and each series' references.
type frame struct {
	to      int      // the end of the span
	symbols []byte   // all symbol fields
	refs    [][]byte // of each series of the span: its labels_refs field
}

// AppendRequest2 appends an io.prometheus.write.v2.Request (remote write 2.0) with one scrape of the series [from, to),
// one sample each, not yet compressed. The symbol table of each span is built once and kept, so callers should cut their
// series into the same spans every time. Cost from the second request of a span on: about 0.05 µs a series.
func (g *Generator) AppendRequest2(dst []byte, scrape, from, to int) []byte {
	f := g.frame(from, to)
	dst = append(dst, f.symbols...)
	for s := from; s < to; s++ {
		refs := f.refs[s-from]
		dst = append(dst, tagTimeseries2)
		if e := g.Expected(s, scrape); e.H != nil || e.FH != nil {
			h := histogram2(e)
			dst = binary.AppendUvarint(dst, uint64(len(refs)+1+uvarintLen(uint64(len(h)))+len(h)))
			dst = append(dst, refs...)
			dst = append(dst, tagHistogram2)
			dst = binary.AppendUvarint(dst, uint64(len(h)))
			dst = append(dst, h...)
		} else {
			n := 10 + uvarintLen(uint64(e.T))
			dst = binary.AppendUvarint(dst, uint64(len(refs)+2+n))
			dst = append(dst, refs...)
			dst = append(dst, tagSample2, byte(n))
			dst = appendFloat(dst, e)
		}
	}
	return dst
}

func histogram2(e Sample) []byte {
	if e.H != nil {
		m := writev2.FromIntHistogram(0, e.T, e.H)
		return marshal(&m)
	}
	m := writev2.FromFloatHistogram(0, e.T, e.FH)
	return marshal(&m)
}

// frame returns the frame of the series [from, to). Of the spans that begin at one series only the last is kept.
func (g *Generator) frame(from, to int) *frame {
	g.mu.Lock()
	defer g.mu.Unlock()
	f := g.frames[from]
	if f == nil || f.to != to {
		f = g.newFrame(from, to)
		g.frames[from] = f
	}
	return f
}

func (g *Generator) newFrame(from, to int) *frame {
	table := map[string]uint64{"": 0}
	f := &frame{to: to, symbols: appendString(nil, tagSymbol2, "")}
	symbol := func(s string) uint64 {
		ref, ok := table[s]
		if !ok {
			ref = uint64(len(table))
			table[s] = ref
			f.symbols = appendString(f.symbols, tagSymbol2, s)
		}
		return ref
	}
	var packed []byte
	for s := from; s < to; s++ {
		packed = packed[:0]
		for _, l := range g.pod(s).labels[s%SeriesPerPod] {
			packed = binary.AppendUvarint(packed, symbol(l.Name))
			packed = binary.AppendUvarint(packed, symbol(l.Value))
		}
		refs := binary.AppendUvarint([]byte{tagRefs2}, uint64(len(packed)))
		f.refs = append(f.refs, append(refs, packed...))
	}
	return f
}
