package salvage

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/duramendb/duramen/chunkstore/index"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

// sidecarFile is a block's sidecar of which any byte may be wrong. What it returns has a checksum that matches.
type sidecarFile struct {
	b     []byte
	fault faults
	dec   *index.Decoder
	d     *index.Directory // nil when it cannot be used
	order []int            // of the pages in the file
	bad   map[int]bool     // pages that were reported

	decoded       *index.Page // the one that length looked at last
	decodedNumber int
}

func openSidecar(b []byte, entry *manifest.Block, dec *index.Decoder, fault faults) *sidecarFile {
	s := &sidecarFile{b: b, fault: fault, dec: dec, bad: map[int]bool{}}
	if len(b) < index.FooterSize {
		return s // that there is none is no fault
	}
	if string(b[:len(index.Magic)]) != index.Magic {
		fault(0, "", "it does not begin as a sidecar does")
	}
	d, err := index.ParseDirectory(dec, b)
	if err != nil {
		fault(-1, "", "%v", err)
		if d, err = index.ParseDirectory(dec, mendedFooter(b, entry)); err != nil {
			return s
		}
	}
	if d.MinTime != entry.MinTime || d.MaxTime != entry.MaxTime ||
		entry.Series > 0 && d.Series != entry.Series || entry.Chunks > 0 && d.Chunks != entry.Chunks {
		fault(-1, "", "it is of another block: %d series and %d chunks from %d to %d", d.Series, d.Chunks, d.MinTime, d.MaxTime)
		return s
	}
	s.d = d
	s.order = make([]int, d.Pages())
	for i := range s.order {
		s.order[i] = i
	}
	if !d.Ordered {
		slices.SortFunc(s.order, func(a, b int) int { return cmp.Compare(d.Page(a).Offset, d.Page(b).Offset) })
	}
	return s
}

// mendedFooter returns the bytes with what can be known of a footer put right: its magic, its checksum, and the size of the
// directory, which the manifest has too. The directory has a checksum of its own, which decides.
func mendedFooter(b []byte, entry *manifest.Block) []byte {
	directory := entry.DirectoryBytes
	if directory < int64(index.FooterSize) || directory > int64(len(b)) {
		directory = int64(binary.LittleEndian.Uint32(b[len(b)-index.FooterSize+12:]))
		if directory < int64(index.FooterSize) || directory > int64(len(b)) {
			return nil
		}
	}
	b = slices.Clone(b[int64(len(b))-directory:])
	footer := b[len(b)-index.FooterSize:]
	binary.LittleEndian.PutUint32(footer[12:], uint32(directory))
	binary.LittleEndian.PutUint32(footer[16:], checksum(footer[:16]))
	copy(footer[20:], index.Magic)
	return b
}

// page returns an intact page, nil when it is damaged.
func (s *sidecarFile) page(number int) *index.Page {
	e := s.d.Page(number)
	var p *index.Page
	err := index.ErrDamaged
	if e.Offset >= 0 && e.Length >= 0 && e.Offset+e.Length <= int64(len(s.b)) {
		p, err = s.d.DecodePage(s.dec, number, s.b[e.Offset:e.Offset+e.Length])
	}
	if err != nil {
		if !s.bad[number] {
			s.bad[number] = true
			s.fault(e.Offset, "", "page %d with %d series: %v", number, e.Series, err)
		}
		return nil
	}
	return p
}

// each calls fn for each series of the intact pages: in label order when the directory is Ordered.
func (s *sidecarFile) each(fn func(lset labels.Labels, chunks []chunkPlace) error) error {
	if s.d == nil {
		return nil
	}
	var b labels.ScratchBuilder
	var chunks []chunkPlace
	for _, number := range s.order {
		p := s.page(number)
		if p == nil {
			continue
		}
		for i := range p.Len() {
			chunks = places(chunks[:0], p.Chunks(i))
			if err := fn(p.Labels(i, &b), chunks); err != nil {
				return err
			}
		}
	}
	return nil
}

func places(dst []chunkPlace, chunks []index.Chunk) []chunkPlace {
	for _, c := range chunks {
		dst = append(dst, chunkPlace{mint: c.MinTime, maxt: c.MaxTime, segment: c.Segment, offset: c.Offset, length: c.Length})
	}
	return dst
}

// length returns that of a chunk's record, 0 when it is not known.
func (s *sidecarFile) length(lset labels.Labels, c chunkPlace) uint32 {
	if s.d == nil {
		return 0
	}
	var matchers []*labels.Matcher
	lset.Range(func(l labels.Label) {
		matchers = append(matchers, labels.MustNewMatcher(labels.MatchEqual, l.Name, l.Value))
	})
	numbers, err := s.d.Candidates(s.dec, c.mint, c.maxt, matchers...)
	if err != nil { // a list of values is damaged: the metric alone leads to the page, too
		numbers, err = s.d.Candidates(s.dec, c.mint, c.maxt,
			labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, lset.Get(labels.MetricName)))
	}
	if err != nil {
		return 0
	}
	hash := labels.StableHash(lset)
	for _, number := range numbers {
		if s.decoded == nil || s.decodedNumber != number {
			s.decoded, s.decodedNumber = s.page(number), number
		}
		p := s.decoded
		if p == nil {
			continue
		}
		for i := range p.Len() {
			if p.Hash(i) != hash {
				continue
			}
			for _, x := range p.Chunks(i) {
				if x.Segment == c.segment && x.Offset == c.offset {
					return x.Length
				}
			}
		}
	}
	return 0
}
