package cache

import (
	"path/filepath"
	"slices"
)

const (
	// smallShare is the part of the cache, one in so many, that new extents keep even when the rest is full of better
	// ones.
	smallShare = 10
	// leftBytes, or leftShare of a small volume, one in so many, is what the cache leaves free. It gives way before an
	// ingester on the same volume stops writing.
	leftBytes = 5 << 30
	leftShare = 16
	// hotShare is the part of a slot, one in so many, that is copied at most when it leaves, so that evicting makes room.
	// A slot of which more was found again stays.
	hotShare = 2
	// maxStayed is how many slots may stay at one eviction: a bound on how long that takes while everything is read again
	// and again.
	maxStayed = 64
)

// over reports whether n more bytes would be more than the cache may take, or it has too many extents or files.
func (d *Disk) over(n int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.used+n > d.maxBytes || d.index.extents > d.maxExtents-d.perSlot ||
		len(d.slots[small])+len(d.slots[main]) >= 2*int(d.maxBytes/d.slotBytes)
}

// makeRoom evicts until there is room for two more slots, one of which is for what is copied at the next eviction.
// rotating is held.
func (d *Disk) makeRoom() error {
	how := keepHotSlots
	for stayed := 0; d.over(2*d.slotBytes) && d.evict(how); stayed++ {
		if stayed == maxStayed {
			how = keepHotExtents
		}
	}
	for d.crowded(d.slotBytes) {
		if !d.evict(keepNothing) {
			d.health.say("the volume of the disk cache is nearly full; nothing more is kept there", "dir", d.dir)
			return errNoRoom
		}
	}
	return nil
}

// giveWay makes the cache smaller when the volume runs full, whoever fills it.
func (d *Disk) giveWay() {
	d.rotating.Lock()
	defer d.rotating.Unlock()
	for d.crowded(0) && d.evict(keepNothing) {
	}
}

// crowded reports whether the volume would have less free space than is left to others when n more bytes are written.
func (d *Disk) crowded(n int64) bool {
	free, size, err := d.env.volume(d.dir)
	return err == nil && free-n < max(d.minFree, min(leftBytes, size/leftShare))
}

// rescue is what an eviction keeps of a slot.
type rescue uint8

const (
	// keepNothing is for when space is short.
	keepNothing rescue = iota
	// keepHotExtents copies what was found.
	keepHotExtents
	// keepHotSlots copies it as well, but when that is most of the slot, the slot becomes the newest main one instead.
	keepHotSlots
)

// evict removes one slot, the oldest of the class that has too much, and reports whether there was one. With keepHotSlots
// it may stay, its hits counted down. rotating is held.
func (d *Disk) evict(how rescue) bool {
	d.mu.Lock()
	s := d.victim()
	if s == nil {
		d.mu.Unlock()
		return false
	}
	filling := d.active[s.class] == s
	objs, extents := s.live()
	hot := int64(0)
	for i, x := range extents {
		if x.hits > 0 {
			hot += int64(x.length)
		} else if s.class == small {
			d.ghosts.add(objs[i], x.offset)
		}
	}
	d.mu.Unlock()
	if how == keepHotSlots && hot > d.slotBytes/hotShare && !filling && d.promote(s) {
		return true
	}
	if how != keepNothing {
		d.copyHot(objs, extents)
	}
	d.metrics.evicted.Inc()
	d.remove(s)
	return true
}

// promote makes s the newest main slot. rotating is held.
func (d *Disk) promote(s *slot) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	number := d.next
	d.next++
	path := filepath.Join(d.dir, slotName(number, main))
	if err := d.env.rename(s.path, path); err != nil {
		d.health.failed("rename", err)
		return false
	}
	d.slots[s.class] = slices.DeleteFunc(d.slots[s.class], func(o *slot) bool { return o == s })
	s.number, s.class, s.path = number, main, path
	d.slots[main] = append(d.slots[main], s)
	d.index.coolDown(s)
	d.metrics.promoted.Inc()
	return true
}

// victim returns the slot to leave next: a small one while they have more than their share, else a main one, and of those
// that are being filled only the last resort. The lock is held.
func (d *Disk) victim() *slot {
	order := []class{main, small}
	if taken := int64(len(d.slots[small])) * d.slotBytes; taken > max(d.maxBytes/smallShare, d.slotBytes) {
		order = []class{small, main}
	}
	for _, filling := range []bool{false, true} {
		for _, c := range order {
			for _, s := range d.slots[c] {
				if (d.active[c] == s) == filling {
					return s
				}
			}
		}
	}
	return nil
}

// copyHot copies the extents that were found to main slots, up to a part of a slot. rotating is held.
func (d *Disk) copyHot(objs []Object, extents []extent) {
	buf := d.buffers.get()
	defer d.buffers.put(buf)
	room := d.slotBytes / hotShare
	for i, x := range extents {
		if x.hits == 0 {
			continue
		}
		if room -= int64(x.length) + recordHeader + maxKey; room < 0 || d.health.off() {
			return
		}
		data := buf.b[:x.length]
		if d.fill(objs[i], piece{Span{x.offset, int64(x.length)}, x}, data) &&
			d.put(main, objs[i], x.offset, data, d.reserveSpare) == nil {
			d.metrics.rescued.Inc()
		}
	}
}
