package index

import "encoding/binary"

// pageRun is a run of pages [from, to).
type pageRun struct{ from, to uint32 }

// appendRuns encodes page numbers, which are sorted and distinct, as runs: how many, then of each the distance from the
// end of the one before and its length less one.
func appendRuns(b []byte, pages []uint32) []byte {
	runs, last := 0, uint32(0)
	for i, p := range pages {
		if i == 0 || p != last+1 {
			runs++
		}
		last = p
	}
	b = binary.AppendUvarint(b, uint64(runs))
	end := uint32(0)
	for i := 0; i < len(pages); {
		j := i + 1
		for j < len(pages) && pages[j] == pages[j-1]+1 {
			j++
		}
		b = binary.AppendUvarint(b, uint64(pages[i]-end))
		b = binary.AppendUvarint(b, uint64(j-i-1))
		end, i = pages[j-1]+1, j
	}
	return b
}

// runs reads what appendRuns wrote behind what dst holds. No page is at or above pages.
func (s *scanner) runs(dst []pageRun, pages int) []pageRun {
	n, end := s.count(2), uint64(0)
	for i := range n {
		gap, more := s.uvarint(), s.uvarint()
		if s.err != nil {
			return dst
		}
		from := end + gap
		if i > 0 && gap == 0 || gap > uint64(pages) || more >= uint64(pages) || from+more >= uint64(pages) {
			s.fail("a set of pages is not in order")
			return dst
		}
		end = from + more + 1
		dst = append(dst, pageRun{uint32(from), uint32(end)})
	}
	return dst
}

// bitmap is a set of pages.
type bitmap []uint64

func newBitmap(n int) bitmap { return make(bitmap, (n+63)/64) }

func (b bitmap) addRange(from, to uint32) {
	for p := from; p < to; p++ {
		b[p/64] |= 1 << (p % 64)
	}
}

func (b bitmap) add(runs []pageRun) {
	for _, r := range runs {
		b.addRange(r.from, r.to)
	}
}

func (b bitmap) has(p int) bool { return b[p/64]&(1<<(p%64)) != 0 }

// and keeps what is in o, too.
func (b bitmap) and(o bitmap) {
	for i := range b {
		b[i] &= o[i]
	}
}
