// Package wire owns what both remote write formats share: scanning protobuf without trusting it, native histograms,
// and the flat Request that a body is decoded into. It validates the encoding only, never labels or samples, and
// allocates nothing but histograms once its slices have grown. Read packages rw1 and rw2 next for the two formats.
package wire

import (
	"math"
	"slices"

	"github.com/duramendb/duramen/duramenpb"
)

// MaxBody is the largest body in bytes that can be decoded: spans hold 32-bit offsets, and label spans that had to be
// put together may double a body.
const MaxBody = math.MaxInt32

// Bytes of memory that one element of a Request costs, keys and symbol hashes of the distributor included. They only
// bound memory, so they are rounded up.
const (
	costSeries    = 128
	costFloat     = 24
	costExemplar  = 96
	costHistogram = 256
	costElement   = 8
	costSymbol    = 32
	costMetadata  = 128
)

// Span is a part of something: bytes of Request.Buf, or references in Request.Refs.
type Span struct{ From, To uint32 }

// Len is the number of bytes or references.
func (s Span) Len() int { return int(s.To - s.From) }

// Exemplar is an exemplar whose labels are not built yet.
type Exemplar struct {
	T      int64
	V      float64
	Labels Span
}

// Metadata is the metadata of one family in format 1.0; the spans lie in Request.Buf.
type Metadata struct {
	Type               int32
	Family, Help, Unit Span
}

// SeriesMetadata is the metadata of one series in format 2.0; Help and Unit are references to symbols.
type SeriesMetadata struct {
	Type       int32
	Help, Unit uint32
}

// Memory grants memory to a decoder.
type Memory interface {
	// Grant is asked for n more bytes and answers with the bytes granted, at least n, or says why not.
	Grant(n int) (int, error)
}

// Request is a decoded body. Its spans and references point into Buf and Refs, so it is valid as long as they are.
//
// A Request is made to be used again: Reset keeps the memory of its slices.
type Request struct {
	// Buf begins with the body. Behind it stand label spans whose fields did not follow one another in the body.
	Buf []byte
	// Series, Floats and Histograms stand where the push needs them. Refs and labels of the series are not set.
	Batch duramenpb.Batch
	// Labels has one span for each series: of Buf in format 1.0, of Refs in 2.0.
	Labels    []Span
	Exemplars []Exemplar
	// StartTimestamps counts the samples that carry one.
	StartTimestamps int

	// Metadata is filled by format 1.0 only.
	Metadata []Metadata
	// Symbols, Refs and SeriesMetadata are filled by format 2.0 only. Symbols are spans of Buf, references are
	// indexes into Symbols that nobody has checked; SeriesMetadata has one entry for each series.
	Symbols        []Span
	Refs           []uint32
	SeriesMetadata []SeriesMetadata

	memory Memory
	left   int
}

// Reset makes r ready to decode body, with left bytes granted; memory is asked for more.
func (r *Request) Reset(body []byte, left int, memory Memory) {
	b := &r.Batch
	clear(b.Series) // Labels and histograms must not outlive the request in a pool.
	clear(b.Histograms)
	clear(b.Exemplars)
	clear(b.Metadata)
	*r = Request{
		Buf: body,
		Batch: duramenpb.Batch{
			Series: b.Series[:0], Floats: b.Floats[:0], Histograms: b.Histograms[:0],
			Exemplars: b.Exemplars[:0], Metadata: b.Metadata[:0],
		},
		Labels: r.Labels[:0], Exemplars: r.Exemplars[:0], Metadata: r.Metadata[:0], Symbols: r.Symbols[:0],
		Refs: r.Refs[:0], SeriesMetadata: r.SeriesMetadata[:0],
		left: left, memory: memory,
	}
}

// charge pays for n bytes.
func (r *Request) charge(n int) error {
	if r.left -= n; r.left < 0 {
		return r.more()
	}
	return nil
}

func (r *Request) more() error {
	granted, err := r.memory.Grant(-r.left)
	if err != nil {
		return err
	}
	r.left += granted
	return nil
}

// AddFloat appends a float sample to the series being decoded.
func (r *Request) AddFloat(s duramenpb.Float) error {
	if s.ST != 0 {
		r.StartTimestamps++
	}
	r.Batch.Floats = append(r.Batch.Floats, s)
	return r.charge(costFloat)
}

// AddHistogram decodes a histogram message, b[from:], and appends it to the series being decoded. In format 2.0 it may
// have a start timestamp.
func (r *Request) AddHistogram(b []byte, from int, withStart bool) error {
	if err := r.charge(costHistogram); err != nil {
		return err
	}
	h, err := r.histogram(b, from, withStart)
	if err != nil {
		return err
	}
	if h.ST != 0 {
		r.StartTimestamps++
	}
	r.Batch.Histograms = append(r.Batch.Histograms, h)
	return nil
}

// AddExemplar appends an exemplar to the series being decoded.
func (r *Request) AddExemplar(e Exemplar) error {
	r.Exemplars = append(r.Exemplars, e)
	return r.charge(costExemplar)
}

// AddMetadata appends the metadata of a family.
func (r *Request) AddMetadata(m Metadata) error {
	r.Metadata = append(r.Metadata, m)
	return r.charge(costMetadata)
}

// AddSymbol appends a symbol.
func (r *Request) AddSymbol(from, to int) error {
	r.Symbols = append(r.Symbols, Span{uint32(from), uint32(to)})
	return r.charge(costSymbol)
}

// AddRef appends a reference to a symbol.
func (r *Request) AddRef(ref uint32) error {
	r.Refs = append(r.Refs, ref)
	return r.charge(costElement)
}

// GrowRefs pays for n references at most and returns Refs with room for them; the caller appends and stores it back.
func (r *Request) GrowRefs(n int) ([]uint32, error) {
	if err := r.charge(n * costElement); err != nil {
		return nil, err
	}
	return slices.Grow(r.Refs, n), nil
}

// EndSeries appends a series with the samples added since the one before it.
func (r *Request) EndSeries(lset Span) error {
	r.Labels = append(r.Labels, lset)
	r.Batch.Series = append(r.Batch.Series, duramenpb.Series{
		FloatsEnd:     len(r.Batch.Floats),
		HistogramsEnd: len(r.Batch.Histograms),
		ExemplarsEnd:  len(r.Exemplars),
	})
	return r.charge(costSeries)
}

// Gather puts scattered fields together: it copies field, bytes of Buf, behind the span. A span that is not the last
// thing in Buf is moved there first.
func (r *Request) Gather(s Span, from, to int) (Span, error) {
	if err := r.charge(s.Len() + to - from); err != nil {
		return s, err
	}
	if len(r.Buf)+s.Len()+to-from > math.MaxUint32 {
		return s, Malformed(from, "too many scattered fields")
	}
	if int(s.To) != len(r.Buf) || s.Len() == 0 {
		begin := uint32(len(r.Buf))
		r.Buf = append(r.Buf, r.Buf[s.From:s.To]...)
		s = Span{begin, uint32(len(r.Buf))}
	}
	r.Buf = append(r.Buf, r.Buf[from:to]...)
	return Span{s.From, uint32(len(r.Buf))}, nil
}
