package salvage

import (
	"slices"

	"github.com/duramendb/duramen/chunkstore/block"
)

// claims are the chunks of a block that some series has, by chunk file.
type claims struct {
	starts, ends [][]uint32 // an end is 0 where the record is not intact
}

func (c *claims) add(p chunkPlace) {
	for int(p.segment) >= len(c.starts) {
		c.starts = append(c.starts, nil)
	}
	c.starts[p.segment] = append(c.starts[p.segment], p.offset)
}

// sort has to be called when all were added.
func (c *claims) sort() {
	c.ends = make([][]uint32, len(c.starts))
	for i, s := range c.starts {
		slices.Sort(s)
		c.starts[i] = slices.Compact(s)
		c.ends[i] = make([]uint32, len(c.starts[i]))
	}
}

func (c *claims) count() (n uint64) {
	for _, s := range c.starts {
		n += uint64(len(s))
	}
	return n
}

// next returns where the chunk behind p begins, false when p is the last one of its file.
func (c *claims) next(p chunkPlace) (int64, bool) {
	s := c.starts[p.segment]
	i, found := slices.BinarySearch(s, p.offset)
	if found {
		i++
	}
	if i == len(s) {
		return 0, false
	}
	return int64(s[i]), true
}

// ended notes where a chunk ends.
func (c *claims) ended(p chunkPlace, end int64) {
	if i, found := slices.BinarySearch(c.starts[p.segment], p.offset); found {
		c.ends[p.segment][i] = uint32(end)
	}
}

// orphans calls fn for the intact chunks that no series claims.
func (c *claims) orphans(f *folder, fn func(at int64, r *record)) error {
	for n := range f.segments() {
		size := f.segmentSize(uint32(n))
		if size == 0 {
			continue
		}
		var starts, ends []uint32
		if n < len(c.starts) {
			starts, ends = c.starts[n], c.ends[n]
		}
		from := int64(segmentHeader)
		for i := 0; i <= len(starts); i++ {
			to := size
			if i < len(starts) {
				to = min(size, int64(starts[i]))
			}
			if err := f.intactIn(uint32(n), from, to, fn); err != nil {
				return err
			}
			if i == len(starts) {
				break
			}
			if from = int64(ends[i]); from == 0 { // up to where the next one begins nothing is known
				from = size
				if i+1 < len(starts) {
					from = int64(starts[i+1])
				}
			}
		}
	}
	return nil
}

const (
	// maxSearched bounds the bytes of one damaged piece that are searched for the next intact chunk, maxFound the chunk:
	// where nothing says that one begins, any number may be its length.
	maxSearched = 1 << 20
	maxFound    = 64 << 10
)

// intactIn calls fn for the intact chunks in a piece of a chunk file, with the place of each.
func (f *folder) intactIn(segment uint32, from, to int64, fn func(at int64, r *record)) error {
	for off, searched := from, 0; off < to && searched < maxSearched; {
		if err := f.ctx.Err(); err != nil {
			return err
		}
		limit := to
		if searched > 0 {
			limit = min(to, off+maxFound)
		}
		r, _, err := f.read(segment, off, limit, false)
		if err != nil {
			return err
		}
		if r == nil || off+r.length > to || r.samples() == 0 {
			off, searched = off+1, searched+1
			continue
		}
		searched = 0
		fn(off, r)
		off += r.length
	}
	return nil
}

// missing names the chunk files that are gone, shorter or longer than they should be.
func (f *folder) missing(sizes []int64, fault func(file string) faults) {
	for i, size := range sizes {
		name := block.SegmentName(i + 1)
		switch have, ok := f.files[name]; {
		case !ok:
			fault(name)(-1, "", "it is missing; it had %d bytes", size)
		case have != size:
			fault(name)(-1, "", "it has %d bytes instead of %d", have, size)
		}
	}
}
