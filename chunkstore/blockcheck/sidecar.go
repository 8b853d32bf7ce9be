package blockcheck

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/index"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

// CompareSidecar returns where the manifest's entry of a block says another size of its sidecar than the check has seen. An
// entry without sizes says nothing, and a sidecar that is missing is built by the query that needs it.
func CompareSidecar(sum *Summary, entry manifest.Block) (faults []Fault) {
	size, ok := sum.Files[block.SidecarName]
	if !ok || entry.SidecarBytes == 0 {
		return nil
	}
	compare := func(what string, here, listed int64) {
		if here != listed {
			text := fmt.Sprintf("%s is %d bytes here and %d in the manifest", what, here, listed)
			faults = append(faults, Fault{File: block.SidecarName, Offset: -1, Text: text})
		}
	}
	compare("its size", size, entry.SidecarBytes)
	if sum.DirectoryBytes > 0 {
		compare("its directory", sum.DirectoryBytes, entry.DirectoryBytes)
	}
	return faults
}

// sidecars adds up the series of an index, by metric, so that they can be held against those of the sidecar.
type sidecars struct {
	series pairs
	digest xxhash.Digest
	number [8]byte
}

// begin begins a series.
func (s *sidecars) begin(lset labels.Labels) {
	s.digest.Reset()
	lset.Range(func(l labels.Label) {
		_, _ = s.digest.WriteString(l.Name) // a hash takes everything
		_, _ = s.digest.Write([]byte{0xff})
		_, _ = s.digest.WriteString(l.Value)
		_, _ = s.digest.Write([]byte{0xff})
	})
}

// chunk adds a chunk of the series. Segments count from 1, end is where its record ends.
func (s *sidecars) chunk(segment int, offset, end, mint, maxt int64) {
	for _, n := range []int64{int64(segment), offset, end, mint, maxt} {
		for i := range s.number {
			s.number[i] = byte(n >> (8 * i))
		}
		_, _ = s.digest.Write(s.number[:])
	}
}

// end ends the series.
func (s *sidecars) end(metric string) {
	if s.series == nil {
		s.series = pairs{}
	}
	t := s.series[metric]
	if t == nil {
		t = &total{}
		s.series[metric] = t
	}
	t.count++
	t.sum += mix(s.digest.Sum64())
}

// sidecar checks the sidecar: that it is intact, that it contradicts neither itself nor meta.json, and that it says of each
// series what the index says. sound is false when the latter is not known.
func (c *check) sidecar(sound bool) error {
	size, ok := c.files[block.SidecarName]
	if !ok {
		return nil
	}
	f := c.beside(block.SidecarName, size)
	fault := func(off int64, format string, args ...any) { c.fault(f.name, off, "", format, args...) }
	tail, err := f.at(max(0, size-int64(index.FooterSize)), min(size, int64(index.FooterSize)))
	if err != nil {
		return err
	}
	directory, err := index.DirectorySize(tail)
	if err != nil {
		fault(-1, "%v", err)
		return nil
	}
	if directory > size-int64(len(index.Magic)) {
		fault(-1, "its directory should have %d bytes, and it has %d", directory, size)
		return nil
	}
	tail, err = c.open(f.name, size).at(size-directory, directory)
	if err != nil {
		return err
	}
	dec, err := index.NewDecoder()
	if err != nil {
		return err
	}
	defer dec.Close()
	d, err := index.ParseDirectory(dec, tail)
	if err != nil {
		fault(size-directory, "%v", err)
		return nil
	}
	c.sum.DirectoryBytes = directory
	c.sidecarHead(d, sound)
	said, ok, err := c.pages(c.open(f.name, size), d, dec, size-directory)
	if err != nil || !ok || !sound {
		return err
	}
	for _, metric := range differing(c.indexed.series, said.series) {
		fault(-1, "series of metric %q, or their chunks, are not those of the index", metric)
	}
	return nil
}

// sidecarHead compares what the directory says of the block.
func (c *check) sidecarHead(d *index.Directory, sound bool) {
	wrong := func(what string, is, want any) {
		c.fault(block.SidecarName, -1, "", "it says %s %v; meta.json and the files say %v", what, is, want)
	}
	var segments []int64
	for n := 1; ; n++ {
		size, ok := c.files[block.SegmentName(n)]
		if !ok {
			break
		}
		segments = append(segments, size)
	}
	if sound && !slices.Equal(d.Segments, segments) { // else a file that misses or is cut was named
		wrong("chunk files of bytes", d.Segments, segments)
	}
	m := c.sum.Meta
	if m == nil {
		return
	}
	if d.MinTime != m.MinTime || d.MaxTime != m.MaxTime {
		wrong("times", []int64{d.MinTime, d.MaxTime}, []int64{m.MinTime, m.MaxTime})
	}
	if d.Series != m.Stats.NumSeries || d.Chunks != m.Stats.NumChunks {
		wrong("series and chunks", []uint64{d.Series, d.Chunks}, []uint64{m.Stats.NumSeries, m.Stats.NumChunks})
	}
}

// pages decodes all pages, which fill the file up to end, and returns what they say of the series. ok is false when one of
// them cannot be read.
func (c *check) pages(f *file, d *index.Directory, dec *index.Decoder, end int64) (said sidecars, ok bool, err error) {
	head, err := f.at(0, int64(len(index.Magic)))
	if err != nil {
		return said, false, err
	}
	if string(head) != index.Magic {
		c.fault(f.name, 0, "", "the file does not begin as a sidecar does")
	}
	numbers := make([]int, d.Pages())
	for i := range numbers {
		numbers[i] = i
	}
	slices.SortFunc(numbers, func(a, b int) int { return cmp.Compare(d.Page(a).Offset, d.Page(b).Offset) })
	checker, at, ok := index.NewChecker(d, dec), int64(len(index.Magic)), true
	for _, i := range numbers {
		e := d.Page(i)
		if e.Offset != at || e.Length > end-at {
			c.fault(f.name, at, "", "a page should begin here and end before %d, and is from %d to %d", end, e.Offset, e.Offset+e.Length)
			return said, false, nil
		}
		packed, err := f.at(e.Offset, e.Length)
		if err != nil {
			return said, false, err
		}
		p, err := d.DecodePage(dec, i, packed)
		if err == nil {
			err = checker.Page(i, p)
		}
		if err != nil {
			c.fault(f.name, at, "", "page %d: %v", i, err)
			ok = false
		} else {
			said.page(p)
		}
		at = e.Offset + e.Length
	}
	if at != end {
		c.fault(f.name, at, "", "%d bytes belong to no page", end-at)
	}
	if ok {
		if err := checker.End(); err != nil {
			c.fault(f.name, end, "", "%v", err)
		}
	}
	return said, ok, nil
}

// page adds the series of a page.
func (s *sidecars) page(p *index.Page) {
	var b labels.ScratchBuilder
	for i := range p.Len() {
		lset := p.Labels(i, &b)
		s.begin(lset)
		for _, k := range p.Chunks(i) {
			s.chunk(int(k.Segment)+1, int64(k.Offset), int64(k.Offset)+int64(k.Length), k.MinTime, k.MaxTime)
		}
		s.end(lset.Get(labels.MetricName))
	}
}

// differing returns the names that have not the same sum in both, in order.
func differing(a, b pairs) (names []string) {
	for name, t := range a {
		if o := b[name]; o == nil || *o != *t {
			names = append(names, name)
		}
	}
	for name := range b {
		if a[name] == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
