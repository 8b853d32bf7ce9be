package cache

import (
	"cmp"
	"hash/maphash"
	"slices"
	"strings"
)

// maxHits is how often an extent is counted as found; more makes no difference to what leaves.
const maxHits = 3

// The bytes of memory that the index is reckoned to take: an extent in its place's slice and its slot's, with the room
// to grow that slices have, and a place without its key.
const (
	extentOverhead = 72
	placeOverhead  = 160
)

// extent is where some bytes of an object lie on disk.
type extent struct {
	offset int64 // in the object
	slot   *slot
	at     uint32 // in the slot
	length uint32
	crc    uint32
	hits   uint8
}

func (x extent) end() int64                  { return x.offset + int64(x.length) }
func (x extent) compareOffset(off int64) int { return cmp.Compare(x.offset, off) }

// partBytes bounds what one slice of extents is about, so that one more does not move very many. It is a multiple of
// granule.
const partBytes = 16 << 20

// place is a part of an object: its bytes [part*partBytes, (part+1)*partBytes).
type place struct {
	obj  Object
	part int64
}

// contents is the extents at one place, by offset. They may overlap inside a granule.
type contents struct {
	place   place
	extents []extent
}

// slotExtent is an extent of a slot, as seen from the slot. It is stale when the contents know no such extent.
type slotExtent struct {
	of     *contents
	offset int64
}

// diskIndex says what lies where. The lock is the caller's.
type diskIndex struct {
	places  map[place]*contents
	extents int
	keys    int64 // bytes
}

// bytes is about what the index takes in memory.
func (ix *diskIndex) bytes() int64 {
	return int64(ix.extents)*extentOverhead + int64(len(ix.places))*placeOverhead + ix.keys
}

// piece is a part of a read that is on disk: the bytes span of the object, inside of x.
type piece struct {
	Span

	x extent
}

// at returns the contents of the place that has the byte off of obj, nil when there are none.
func (ix *diskIndex) at(obj Object, off int64) *contents {
	return ix.places[place{obj, off / partBytes}]
}

// find returns what there is of the bytes s of obj, in order, and counts it as found.
func (ix *diskIndex) find(obj Object, s Span) []piece {
	var found []piece
	for at := s.Offset; at < s.end(); {
		next := (at/partBytes + 1) * partBytes
		if c := ix.at(obj, at); c != nil {
			i, behind := c.covering(at)
			if i >= 0 {
				x := &c.extents[i]
				if x.hits < maxHits {
					x.hits++
				}
				next = min(x.end(), s.end())
				found = append(found, piece{Span{at, next - at}, *x})
			} else if behind >= 0 {
				next = behind
			}
		}
		at = next
	}
	return found
}

// covering returns the extent that has the byte at and reaches farthest behind it, or -1 and the offset of the first
// extent behind at, -1 when there is none.
func (c *contents) covering(at int64) (i int, next int64) {
	after, _ := slices.BinarySearchFunc(c.extents, at+1, extent.compareOffset)
	i, next = -1, -1
	if after < len(c.extents) {
		next = c.extents[after].offset
	}
	for j := after - 1; j >= 0 && c.extents[j].offset/granule == at/granule; j-- {
		if c.extents[j].end() > at && (i < 0 || c.extents[j].end() > c.extents[i].end()) {
			i = j
		}
	}
	return i, next
}

// has reports whether one extent holds all of s, which lies in one granule.
func (ix *diskIndex) has(obj Object, s Span) bool {
	c := ix.at(obj, s.Offset)
	if c == nil {
		return false
	}
	i, _ := c.covering(s.Offset)
	return i >= 0 && c.extents[i].end() >= s.end()
}

// insert adds x, taking the place of extents inside it; with keep it gives way to those that hold all of it instead.
func (ix *diskIndex) insert(obj Object, x extent, keep bool) {
	if keep && ix.has(obj, Span{x.offset, int64(x.length)}) {
		return
	}
	c := ix.at(obj, x.offset)
	if c == nil {
		obj.Key = strings.Clone(obj.Key)
		c = &contents{place: place{obj, x.offset / partBytes}}
		ix.places[c.place] = c
		ix.keys += int64(len(obj.Key))
	}
	if !keep {
		ix.remove(c, func(old extent) bool { return x.offset <= old.offset && old.end() <= x.end() })
	}
	i, _ := slices.BinarySearchFunc(c.extents, x.offset, extent.compareOffset)
	c.extents = slices.Insert(c.extents, i, x)
	ix.extents++
	x.slot.extents = append(x.slot.extents, slotExtent{c, x.offset})
}

// remove takes the extents out for which gone says so. c stays in the index, perhaps empty.
func (ix *diskIndex) remove(c *contents, gone func(extent) bool) {
	before := len(c.extents)
	c.extents = slices.DeleteFunc(c.extents, gone)
	ix.extents -= before - len(c.extents)
}

// prune takes c out of the index when it is empty.
func (ix *diskIndex) prune(c *contents) {
	if len(c.extents) == 0 && ix.places[c.place] == c {
		delete(ix.places, c.place)
		ix.keys -= int64(len(c.place.obj.Key))
	}
}

// drop takes out what overlaps the bytes s of obj.
func (ix *diskIndex) drop(obj Object, s Span) {
	for at := s.Offset; at < s.end(); at = (at/partBytes + 1) * partBytes {
		if c := ix.at(obj, at); c != nil {
			ix.remove(c, func(x extent) bool { return x.offset < s.end() && s.Offset < x.end() })
			ix.prune(c)
		}
	}
}

// dropExtent takes out x, when it is still there.
func (ix *diskIndex) dropExtent(obj Object, x extent) {
	if c := ix.at(obj, x.offset); c != nil {
		ix.remove(c, func(y extent) bool { return y.slot == x.slot && y.at == x.at })
		ix.prune(c)
	}
}

// dropSlot takes out all extents of s.
func (ix *diskIndex) dropSlot(s *slot) {
	var last *contents
	for _, e := range s.extents {
		if e.of == last {
			continue // extents of a place come in rows
		}
		last = e.of
		ix.remove(e.of, func(x extent) bool { return x.slot == s })
		ix.prune(e.of)
	}
	s.extents = nil
}

// coolDown counts each extent of s as found once less.
func (ix *diskIndex) coolDown(s *slot) {
	var last *contents
	for _, e := range s.extents {
		if e.of == last {
			continue
		}
		last = e.of
		for i := range e.of.extents {
			if x := &e.of.extents[i]; x.slot == s && x.hits > 0 {
				x.hits--
			}
		}
	}
}

// live returns the extents of s that are still there, with the objects they are of.
func (s *slot) live() (objs []Object, extents []extent) {
	for _, e := range s.extents {
		i, _ := slices.BinarySearchFunc(e.of.extents, e.offset, extent.compareOffset)
		for ; i < len(e.of.extents) && e.of.extents[i].offset == e.offset; i++ {
			if e.of.extents[i].slot == s {
				objs, extents = append(objs, e.of.place.obj), append(extents, e.of.extents[i])
			}
		}
	}
	return objs, extents
}

// ghosts remembers extents that left without having been found, in two generations so that it forgets. The lock is the
// caller's.
type ghosts struct {
	seed        maphash.Seed
	most        int
	now, before map[uint64]struct{}
}

func newGhosts(most int) *ghosts {
	return &ghosts{seed: maphash.MakeSeed(), most: most, now: map[uint64]struct{}{}}
}

func (g *ghosts) key(obj Object, off int64) uint64 {
	return maphash.Comparable(g.seed, struct {
		obj Object
		at  int64
	}{obj, off / granule})
}

func (g *ghosts) add(obj Object, off int64) {
	if len(g.now) >= g.most {
		g.before, g.now = g.now, map[uint64]struct{}{}
	}
	g.now[g.key(obj, off)] = struct{}{}
}

// take reports whether the extent left not long ago, and forgets that.
func (g *ghosts) take(obj Object, off int64) bool {
	k := g.key(obj, off)
	_, now := g.now[k]
	_, before := g.before[k]
	delete(g.now, k)
	delete(g.before, k)
	return now || before
}
