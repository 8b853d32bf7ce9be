package blockgen

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
)

var errOrder = errors.New("series are not in label order")

// indexFile is an index of format 2 in the making, see tsdb/docs/format/index.md of Prometheus.
type indexFile struct {
	out        []byte
	castagnoli *crc32.Table
	symbols    map[string]uint32
	postings   map[string]map[string][]uint32
	all        []uint32
	unordered  bool // chunks of a series may be
}

// encodeIndex returns the index of a block.
func encodeIndex(series []Series, places [][]place, unordered bool) ([]byte, error) {
	f := &indexFile{
		unordered:  unordered,
		castagnoli: crc32.MakeTable(crc32.Castagnoli),
		symbols:    map[string]uint32{}, postings: map[string]map[string][]uint32{},
		out: []byte{0xba, 0xaa, 0xd7, 0x00, 2},
	}
	toc := make([]uint64, 0, 6)
	toc = append(toc, f.position())
	f.addSymbols(series)
	toc = append(toc, f.position())
	for i, s := range series {
		if i > 0 && labels.Compare(series[i-1].Labels, s.Labels) >= 0 {
			return nil, fmt.Errorf("%w: %s after %s", errOrder, s.Labels, series[i-1].Labels)
		}
		if err := f.addSeries(s, places[i]); err != nil {
			return nil, err
		}
	}
	toc = append(toc, f.position()) // of the label indices, which nobody writes any more
	f.pad(4)
	begin := f.position()
	table := f.addPostings()
	toc = append(toc, f.position(), begin, f.position())
	f.section(table)
	if len(f.out)/16 > math.MaxUint32 {
		return nil, errors.New("the index is too large for its references")
	}
	begin = f.position()
	for _, x := range toc {
		f.out = binary.BigEndian.AppendUint64(f.out, x)
	}
	f.sum(int(begin))
	return f.out, nil
}

func (f *indexFile) position() uint64 { return uint64(len(f.out)) }

func (f *indexFile) pad(size int) {
	for len(f.out)%size != 0 {
		f.out = append(f.out, 0)
	}
}

// sum appends the checksum of everything from begin on.
func (f *indexFile) sum(begin int) {
	f.out = binary.BigEndian.AppendUint32(f.out, crc32.Checksum(f.out[begin:], f.castagnoli))
}

// section appends a length, the content and its checksum.
func (f *indexFile) section(content []byte) {
	f.out = binary.BigEndian.AppendUint32(f.out, uint32(len(content)))
	begin := len(f.out)
	f.out = append(f.out, content...)
	f.sum(begin)
}

func (f *indexFile) addSymbols(series []Series) {
	for _, s := range series {
		s.Labels.Range(func(l labels.Label) {
			f.symbols[l.Name] = 0
			f.symbols[l.Value] = 0
		})
	}
	sorted := slices.Sorted(maps.Keys(f.symbols))
	content := binary.BigEndian.AppendUint32(nil, uint32(len(sorted)))
	for i, s := range sorted {
		f.symbols[s] = uint32(i)
		content = binary.AppendUvarint(content, uint64(len(s)))
		content = append(content, s...)
	}
	f.section(content)
}

func (f *indexFile) addSeries(s Series, places []place) error {
	f.pad(16)
	ref := uint32(len(f.out) / 16)
	f.all = append(f.all, ref)
	e := binary.AppendUvarint(make([]byte, 0, 64+8*len(places)), uint64(s.Labels.Len()))
	s.Labels.Range(func(l labels.Label) {
		e = binary.AppendUvarint(e, uint64(f.symbols[l.Name]))
		e = binary.AppendUvarint(e, uint64(f.symbols[l.Value]))
		values := f.postings[l.Name]
		if values == nil {
			values = map[string][]uint32{}
			f.postings[l.Name] = values
		}
		values[l.Value] = append(values[l.Value], ref)
	})
	e = binary.AppendUvarint(e, uint64(len(places)))
	lastMax, lastRef := int64(0), int64(0)
	for i, c := range s.Chunks {
		if c.MaxTime < c.MinTime || i > 0 && c.MinTime <= lastMax && !f.unordered {
			return fmt.Errorf("chunks of %s overlap", s.Labels)
		}
		at := int64(places[i].segment)<<32 | int64(places[i].offset)
		if i == 0 {
			e = binary.AppendVarint(e, c.MinTime)
			e = binary.AppendUvarint(e, uint64(c.MaxTime-c.MinTime))
			e = binary.AppendUvarint(e, uint64(at))
		} else {
			e = binary.AppendUvarint(e, uint64(c.MinTime-lastMax))
			e = binary.AppendUvarint(e, uint64(c.MaxTime-c.MinTime))
			e = binary.AppendVarint(e, at-lastRef)
		}
		lastMax, lastRef = c.MaxTime, at
	}
	f.out = binary.AppendUvarint(f.out, uint64(len(e)))
	begin := len(f.out)
	f.out = append(f.out, e...)
	f.sum(begin)
	return nil
}

// addPostings appends the lists of series and returns the table that says where they are.
func (f *indexFile) addPostings() (table []byte) {
	n := uint32(0)
	add := func(name, value string, refs []uint32) {
		f.pad(4)
		table = append(table, 2)
		for _, s := range []string{name, value} {
			table = binary.AppendUvarint(table, uint64(len(s)))
			table = append(table, s...)
		}
		table = binary.AppendUvarint(table, f.position())
		list := binary.BigEndian.AppendUint32(make([]byte, 0, 4+4*len(refs)), uint32(len(refs)))
		for _, r := range refs {
			list = binary.BigEndian.AppendUint32(list, r)
		}
		f.section(list)
		n++
	}
	table = make([]byte, 4)
	add("", "", f.all)
	for _, name := range slices.Sorted(maps.Keys(f.postings)) {
		values := f.postings[name]
		for _, value := range slices.Sorted(maps.Keys(values)) {
			add(name, value, values[value])
		}
	}
	binary.BigEndian.PutUint32(table, n)
	return table
}
