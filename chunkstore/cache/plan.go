package cache

import (
	"cmp"
	"fmt"
	"slices"
)

const (
	// maxGap is how many bytes that nobody asked for are read to save a request: what a connection carries in the time
	// of a short round trip. They are thrown away as they come and take no memory.
	maxGap = 256 << 10
	// maxFetch bounds one request, so that a long range comes over several connections at once.
	maxFetch = 8 << 20
	// smallGap is the part of a region, one in so many, that may be gaps kept for the sake of fewer, larger regions.
	smallGap = 8
)

// Object names an immutable object of the bucket and says how long it is. Objects of one key and different sizes are
// different ones.
type Object struct {
	Key  string
	Size int64
}

// Span is the bytes [Offset, Offset+Length) of an object.
type Span struct{ Offset, Length int64 }

func (s Span) end() int64 { return s.Offset + s.Length }

// region is a part of an object in memory. Regions of one read are in order and share no byte.
type region struct {
	offset int64
	data   []byte
}

func (r region) compare(offset int64) int { return cmp.Compare(r.offset, offset) }

// bytes returns the bytes of s, which lies in r.
func (r region) bytes(s Span) []byte {
	from := s.Offset - r.offset
	return r.data[from : from+s.Length : from+s.Length]
}

// part is a span of an object and where its bytes go.
type part struct {
	Span

	data []byte
}

// fetch is one request: a span of an object and its parts that are wanted, in order.
type fetch struct {
	Span

	parts []part
}

// checkSpans refuses spans that are not inside obj.
func checkSpans(obj Object, spans []Span) error {
	for _, s := range spans {
		if s.Offset < 0 || s.Length < 0 || s.Offset > obj.Size || s.Length > obj.Size-s.Offset {
			return fmt.Errorf("read %s, offset %d, length %d: %w of %d bytes", obj.Key, s.Offset, s.Length, ErrSpan, obj.Size)
		}
	}
	return nil
}

// regions returns the memory for spans: each span lies in one region. What overlaps, touches or is separated by a gap
// that is small beside it shares one, up to about maxFetch, so that what a region takes is at most an eighth more than
// what was asked for.
func regions(spans []Span) []region {
	order := slices.Clone(spans)
	slices.SortFunc(order, func(a, b Span) int { return cmp.Compare(a.Offset, b.Offset) })
	var merged []Span
	wanted := int64(0) // bytes of the last merged span without its gaps
	for _, s := range order {
		if s.Length == 0 {
			continue
		}
		if len(merged) > 0 {
			last := &merged[len(merged)-1]
			gap := s.Offset - last.end()
			kept := last.Length - wanted
			if gap < 0 || last.Length < maxFetch && kept+gap <= wanted/smallGap {
				wanted += max(0, s.end()-max(last.end(), s.Offset))
				last.Length = max(last.end(), s.end()) - last.Offset
				continue
			}
		}
		merged = append(merged, s)
		wanted = s.Length
	}
	out := make([]region, len(merged))
	for i, s := range merged {
		out[i] = region{offset: s.Offset, data: make([]byte, s.Length)}
	}
	return out
}

// cutSpans returns the bytes of each span from the regions that were made for them.
func cutSpans(in []region, spans []Span) [][]byte {
	out := make([][]byte, len(spans))
	for i, s := range spans {
		if s.Length == 0 {
			out[i] = []byte{}
			continue
		}
		at, found := slices.BinarySearchFunc(in, s.Offset, region.compare)
		if !found {
			at-- // the last one that begins before
		}
		out[i] = in[at].bytes(s)
	}
	return out
}

// fetches returns the requests for parts, which are in order and share no byte.
func fetches(parts []part) []fetch {
	var out []fetch
	for _, p := range parts {
		for p.Length > 0 {
			n := len(out)
			if n == 0 || p.Offset-out[n-1].end() > maxGap || p.Offset-out[n-1].Offset >= maxFetch {
				out = append(out, fetch{Span: Span{Offset: p.Offset}})
				n++
			}
			f := &out[n-1]
			take := min(p.Length, f.Offset+maxFetch-p.Offset)
			f.parts = append(f.parts, part{Span{p.Offset, take}, p.data[:take:take]})
			f.Length = p.Offset + take - f.Offset
			p = part{Span{p.Offset + take, p.Length - take}, p.data[take:]}
		}
	}
	return out
}
