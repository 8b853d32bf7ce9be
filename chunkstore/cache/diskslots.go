package cache

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// class says which slots an extent is in.
type class uint8

const (
	small class = iota // new extents; leave first
	main               // extents that were found again, or came back soon
	numClasses
)

var classNames = [numClasses]string{"small", "main"}

// errNoRoom means that the volume has no space to spare, or that the cache is closed.
var errNoRoom = errors.New("no room for the disk cache")

// slot is a file of the cache. Its fields are guarded by the lock of Disk, but for those that never change.
type slot struct {
	number uint64
	class  class
	path   string

	file    slotFile // nil until loaded; set once
	size    int64    // bytes that are taken, written or about to be
	charge  int64    // what it counts for: its size, or a whole slot while it is filled
	records int
	extents []slotExtent
	pins    int  // reads and writes under way; the file is closed after the last
	gone    bool // evicted, or the cache is closed
}

// list finds the slots in the directory by their names, oldest first by class, and returns all, newest first.
func (d *Disk) list() ([]*slot, error) {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, err
	}
	var all []*slot
	for _, e := range entries {
		number, c, ok := parseSlotName(e.Name())
		info, err := e.Info()
		if !ok || err != nil || !info.Mode().IsRegular() {
			continue
		}
		s := &slot{number: number, class: c, path: filepath.Join(d.dir, e.Name()), size: info.Size(), charge: info.Size()}
		all = append(all, s)
		d.slots[c] = append(d.slots[c], s) // ReadDir sorts
		d.used += s.charge
		d.next = max(d.next, number+1)
	}
	slices.SortFunc(all, func(a, b *slot) int { return strings.Compare(filepath.Base(b.path), filepath.Base(a.path)) })
	return all, nil
}

// slotName is the file of a slot: 20 digits, so that names sort as numbers.
func slotName(number uint64, c class) string { return fmt.Sprintf("%020d.%s", number, classNames[c]) }

func parseSlotName(name string) (number uint64, c class, ok bool) {
	digits, suffix, _ := strings.Cut(name, ".")
	i := slices.Index(classNames[:], suffix)
	number, err := strconv.ParseUint(digits, 10, 64)
	if i < 0 || err != nil || name != slotName(number, class(i)) {
		return 0, 0, false
	}
	return number, class(i), true
}

// load finds out what the slots hold, newest first, so that of two extents with the same bytes the newer one is kept. The
// newest of each class is filled further when it has room.
func (d *Disk) load(old []*slot) {
	defer close(d.loaded)
	d.rotating.Lock()
	for d.over(0) && d.evict(keepNothing) { // the cache was larger
	}
	d.rotating.Unlock()
	var seen [numClasses]bool
	for _, s := range old {
		select {
		case <-d.stop:
			return
		default:
		}
		d.loadSlot(s, !seen[s.class])
		seen[s.class] = true
	}
}

// loadSlot adds what s holds to the index. A file that is no slot goes away. Where reading fails the slot stays, counts,
// and leaves when its time comes.
func (d *Disk) loadSlot(s *slot, newest bool) {
	d.rotating.Lock() // against evicting it meanwhile
	defer d.rotating.Unlock()
	if s.gone {
		return
	}
	f, err := d.env.open(s.path)
	if err != nil {
		d.health.failed("open", err)
		return
	}
	var records []record
	end := int64(0)
	if s.size <= math.MaxUint32 {
		end = scanSlot(f, s.size, func(r record) { records = append(records, r) })
	}
	s.file, s.records = f, len(records)
	if len(records) == 0 {
		d.remove(s)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range slices.Backward(records) { // later ones are newer
		d.index.insert(r.obj, extent{
			offset: r.offset, slot: s, at: uint32(r.at), length: r.length, crc: r.crc,
		}, true)
	}
	if newest && d.active[s.class] == nil && end+maxRecord <= d.slotBytes && f.Truncate(end) == nil {
		s.size = end
		d.used += d.slotBytes - s.charge
		s.charge = d.slotBytes
		d.active[s.class] = s
	}
	d.count()
}

// reserve returns n bytes at a place in a slot of class c that is pinned, making room when it has to.
func (d *Disk) reserve(c class, n int64) (*slot, int64, error) {
	if s, at := d.take(c, n); s != nil {
		return s, at, nil
	}
	d.rotating.Lock()
	defer d.rotating.Unlock()
	if s, at := d.take(c, n); s != nil { // another one made room
		return s, at, nil
	}
	if err := d.makeRoom(); err != nil {
		return nil, 0, err
	}
	if s, at := d.take(c, n); s != nil { // a slot was opened for what was copied
		return s, at, nil
	}
	if err := d.openSlot(c); err != nil {
		return nil, 0, err
	}
	s, at := d.take(c, n)
	if s == nil {
		return nil, 0, errNoRoom
	}
	return s, at, nil
}

// reserveSpare is reserve for what is copied: it makes no room but takes the one slot that is kept for that.
func (d *Disk) reserveSpare(c class, n int64) (*slot, int64, error) {
	if s, at := d.take(c, n); s != nil {
		return s, at, nil
	}
	if d.over(d.slotBytes) {
		return nil, 0, errNoRoom
	}
	if err := d.openSlot(c); err != nil {
		return nil, 0, err
	}
	s, at := d.take(c, n)
	return s, at, nil
}

// take returns n bytes of the slot of class c that is being filled, nil when it has no room for them.
func (d *Disk) take(c class, n int64) (*slot, int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.active[c]
	if s == nil || s.size+n > d.slotBytes || s.records >= d.perSlot {
		return nil, 0
	}
	at := s.size
	s.size += n
	s.records++
	s.pins++
	return s, at
}

// openSlot creates a slot of class c to be filled. rotating is held.
func (d *Disk) openSlot(c class) error {
	d.mu.Lock()
	number := d.next
	d.next++
	d.mu.Unlock()
	select {
	case <-d.stop:
		return errNoRoom
	default:
	}
	s := &slot{
		number: number, class: c, path: filepath.Join(d.dir, slotName(number, c)),
		size: int64(len(slotMagic)), charge: d.slotBytes,
	}
	var err error
	if s.file, err = d.env.create(s.path); err != nil {
		return err
	}
	if _, err := s.file.WriteAt([]byte(slotMagic), 0); err != nil {
		return errors.Join(err, s.file.Close(), d.env.remove(s.path))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if full := d.active[c]; full != nil {
		d.seal(full)
	}
	d.active[c] = s
	d.slots[c] = append(d.slots[c], s)
	d.used += s.charge
	d.count()
	return nil
}

// seal makes s a slot to which nothing is added. The lock is held.
func (d *Disk) seal(s *slot) {
	if d.active[s.class] == s {
		d.active[s.class] = nil
		d.used += s.size - s.charge
		s.charge = s.size
	}
}

// remove takes s out of everything and deletes its file. rotating is held.
func (d *Disk) remove(s *slot) {
	d.mu.Lock()
	d.seal(s)
	d.slots[s.class] = slices.DeleteFunc(d.slots[s.class], func(o *slot) bool { return o == s })
	d.index.dropSlot(s)
	d.used -= s.charge
	file := s.detach()
	d.count()
	d.mu.Unlock()
	closeSlot(file)
	if err := d.env.remove(s.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		d.health.failed("remove", err)
	}
}

// detach says that s is gone, and returns the file to close when nobody uses it. The lock is held.
func (s *slot) detach() slotFile {
	s.gone = true
	s.pins++
	return s.release()
}

// release ends one use of s, and returns the file to close, without the lock, after the last. The lock is held.
func (s *slot) release() slotFile {
	if s.pins--; s.pins == 0 && s.gone {
		return s.file
	}
	return nil
}

// closeSlot closes what release returned. Freeing the blocks of a deleted file may take the disk a while.
func closeSlot(f slotFile) {
	if f != nil {
		_ = f.Close() // what was written is there or fails its CRC
	}
}
