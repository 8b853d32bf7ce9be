package blockcheck

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"

	"github.com/duramendb/duramen/chunkstore/rawblock"
)

// pairs adds up (label, series) pairs without keeping them: two collections that differ have, but for a chance of one
// in 2^64, different sums. The series of a block and its postings have to say the same.
type pairs map[string]*total

// total is what is known of the pairs of one label name.
type total struct{ count, sum uint64 }

func (p pairs) add(name string, pair, ref uint64) {
	t := p[name]
	if t == nil {
		t = &total{}
		p[name] = t
	}
	t.count++
	t.sum += mix(pair ^ mix(ref))
}

// mix scatters the bits of a number, so that sums of it are as good as sums of random numbers (the finalizer of
// splitmix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// compare tells where series and postings differ.
func (c *check) compare(f *file, t rawblock.Contents, series, postings pairs) {
	names := map[string]bool{}
	for name := range series {
		names[name] = true
	}
	for name := range postings {
		names[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		a, b := series[name], postings[name]
		switch {
		case name == "" && (a == nil || b == nil || *a != *b):
			c.fault(f.name, t.PostingsTable, "", "the list of all series is not that of the series in the index")
		case a == nil || b == nil || *a != *b:
			c.fault(f.name, t.PostingsTable, "", "postings of label %q are not those that the series have", name)
		}
	}
}

// postings checks the table of postings and all lists that it names, and returns what they say. ok is false when it could
// not be read to its end.
func (c *check) postings(f, lists *file, t rawblock.Contents) (said pairs, ok bool, err error) {
	said = pairs{}
	s, ok, err := c.section(f, "postings table", t.PostingsTable, t.End)
	if err != nil || !ok {
		return said, false, err
	}
	if s.end != t.End {
		c.fault(f.name, s.end, "", "%d bytes belong to nothing", t.End-s.end)
	}
	w := &postingsWalk{c: c, table: f, lists: lists, off: s.from + rawblock.LengthBytes, limit: s.to, at: t.Postings, end: t.LabelIndicesTable}
	b, err := f.at(s.from, rawblock.LengthBytes)
	if err != nil {
		return said, false, c.ended(f, s.from, err)
	}
	for range binary.BigEndian.Uint32(b) {
		if ok, err := w.next(said); err != nil || !ok {
			return said, false, err
		}
	}
	if w.off != s.to {
		c.fault(f.name, w.off, "", "%d bytes follow the last entry of the postings table", s.to-w.off)
	}
	return said, true, c.padding(lists, w.at, w.end, 4)
}

// postingsWalk goes over the postings table and, beside it, over the lists, which lie in the same order.
type postingsWalk struct {
	c            *check
	table, lists *file
	off, limit   int64 // in the table
	at, end      int64 // in the lists

	began       bool
	name, value []byte // of the entry before
}

// next checks one entry and its list. ok is false when the table cannot be read further.
func (w *postingsWalk) next(said pairs) (ok bool, err error) {
	off := w.off
	keys, err := w.uvarint()
	if err != nil {
		return w.broken(off, err)
	}
	name, length, err := readString(w.table, w.off, w.limit)
	if err != nil {
		return w.broken(off, err)
	}
	name = bytes.Clone(name) // the window moves
	w.off += length
	value, length, err := readString(w.table, w.off, w.limit)
	if err != nil {
		return w.broken(off, err)
	}
	value = bytes.Clone(value)
	w.off += length
	place, err := w.uvarint()
	if err != nil {
		return w.broken(off, err)
	}
	if keys != 2 {
		w.c.fault(w.table.name, off, "", "an entry of the postings table has %d keys instead of 2", keys)
	}
	if by := bytes.Compare(w.name, name); w.began && (by > 0 || by == 0 && bytes.Compare(w.value, value) >= 0) {
		w.c.fault(w.table.name, off, "", "postings of %s do not follow those of %s in order",
			describe(string(name), string(value)), describe(string(w.name), string(w.value)))
	}
	w.name, w.value, w.began = name, value, true
	return true, w.list(off, int64(place), said) //nolint:gosec // compared with where the list has to be
}

func (w *postingsWalk) uvarint() (uint64, error) {
	b, err := w.table.upTo(w.off, min(binary.MaxVarintLen64, w.limit-w.off))
	if err != nil {
		return 0, err
	}
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, errEnd
	}
	w.off += int64(n)
	return v, nil
}

func (w *postingsWalk) broken(off int64, err error) (bool, error) {
	if err != errEnd { //nolint:errorlint // readString and uvarint return it bare
		return false, err
	}
	w.c.fault(w.table.name, off, "", "an entry of the postings table leads beyond its end: what follows cannot be checked")
	return false, nil
}

// list checks the list at a place in the file, which the entry at off of the table names.
func (w *postingsWalk) list(off, place int64, said pairs) error {
	label := describe(string(w.name), string(w.value))
	due := alignUp(w.at, 4)
	if place != due || place > w.end {
		w.c.fault(w.table.name, off, "", "postings of %s are said to be at %d, and should be at %d", label, place, due)
		if place < 0 || place > w.end {
			return nil
		}
	} else if err := w.c.padding(w.lists, w.at, due, 4); err != nil {
		return err
	}
	s, ok, err := w.c.section(w.lists, "postings of "+label, place, w.end)
	if err != nil || !ok {
		return err
	}
	w.at = s.end
	b, err := w.lists.at(s.from, rawblock.LengthBytes)
	if err != nil {
		return w.c.ended(w.lists, s.from, err)
	}
	if n := int64(binary.BigEndian.Uint32(b)); s.to-s.from != rawblock.LengthBytes+4*n {
		w.c.fault(w.lists.name, place, "", "postings of %s are %d in %d bytes", label, n, s.to-s.from)
		return nil
	}
	return w.refs(s, label, said)
}

// refs adds up the references of one list.
func (w *postingsWalk) refs(s section, label string, said pairs) error {
	name, pair := string(w.name), pairHash(string(w.name), string(w.value))
	previous, unordered := int64(-1), false
	err := w.lists.each(s.from+rawblock.LengthBytes, s.to, func(_ int64, piece []byte) error {
		for ; len(piece) >= 4; piece = piece[4:] {
			ref := binary.BigEndian.Uint32(piece)
			unordered = unordered || int64(ref) <= previous
			previous = int64(ref)
			said.add(name, pair, uint64(ref))
		}
		return nil
	})
	if unordered {
		w.c.fault(w.lists.name, s.from, "", "postings of %s are not in order", label)
	}
	return err
}
