package replicate

import (
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"
)

const (
	// slabSize is how many entries a table grows by: a tenant of a few series costs 6 kB, and entries never move.
	slabSize = 64
	// minSweep is how many series a table has before those unseen for long are looked for.
	minSweep = 1024
	// lifeBytes is the size of what is known of a member's TSDB.
	lifeBytes = 16
	// entryBytes and replicaBytes are the sizes of an entry and of each of its replicas; a test holds them.
	entryBytes   = 40
	replicaBytes = 16
	// indexBytes is the size of a slot of the index by labels.
	indexBytes = 4
	// unseenMinutes is after how long a series counts as gone.
	unseenMinutes = 30
)

// handle is the reference under which the distributor knows a series: the entry's slot, and in the lower half the
// entry's birth, which no other entry of the table's life has. So a handle of an evicted series never names another.
type handle uint64

func makeHandle(slot, birth uint32) handle { return handle(slot)<<32 | handle(birth) }

func (h handle) slot() uint32  { return uint32(h >> 32) }
func (h handle) birth() uint32 { return uint32(h) }

// entry is what a table knows of a series. All but seen changes only under the table's write lock.
type entry struct {
	hash      uint64 // labels.StableHash
	labels    labels.Labels
	birth     uint32 // 0 when the slot is free
	placed    uint32 // number of the placement that its replicas follow; 0 for none
	seen      atomic.Uint32
	partition uint16
	replicas  uint8
}

// replica is one of the places of a series: a member by its number, and the reference under which it knows the series.
type replica struct {
	ref    uint64
	member uint32
	life   uint32 // of the member's TSDB of this tenant; the reference counts while it is the present one
}

// slab is a part of a table: entries and, rf for each of them, their replicas.
type slab struct {
	entries  [slabSize]entry
	replicas []replica
	used     int
}

// life is what is known of one member's TSDB of the tenant: its present incarnation, and how often that changed.
type life struct {
	incarnation uint64
	no          uint32
}

// table knows the series of one tenant by handles: their labels, where they belong, and under which reference each of
// their replicas knows them. A hit allocates nothing.
//
// Slots of evicted series are used again, with another birth. A change of the ring places each series anew when it is
// seen next.
type table struct {
	id        string
	rf        int
	total     *atomic.Int64 // bytes of all tables
	seen      atomic.Uint32 // minute of the last push
	placement atomic.Pointer[placement]
	placing   sync.Mutex    // serialises changes of placement
	restarts  atomic.Uint64 // changes of lives, as PushResult.Restarts

	mu          sync.RWMutex
	incarnation uint64
	births      uint32
	slabs       []*slab // nil when nothing of it is used
	holes       int     // of slabs those that are nil
	free        []uint32
	index       []uint32 // slot+1 by hash, open addressing, a power of two; 0 is empty
	used        int
	bytes       int64
	sweepAt     int // number of series above which those unseen for long are looked for
	lives       []life
	closed      bool
}

func newTable(id string, rf int, total *atomic.Int64) *table {
	t := &table{id: id, rf: rf, total: total, sweepAt: minSweep}
	t.incarnation = rand.Uint64() | 1
	return t
}

// find returns the entry of h and its replicas, or nil. The caller holds the lock, and what is returned is valid until it
// lets go.
func (t *table) find(h handle) (*entry, []replica) {
	slot := h.slot()
	at := int(slot / slabSize)
	if at >= len(t.slabs) || t.slabs[at] == nil {
		return nil, nil
	}
	s := t.slabs[at]
	e := &s.entries[slot%slabSize]
	if e.birth != h.birth() || e.birth == 0 {
		return nil, nil
	}
	return e, s.of(slot, t.rf)
}

// touch reads what find will: a block of touches waits for memory once where a block of finds waits for each.
func (t *table) touch(h handle) uint32 {
	slot := h.slot()
	if at := int(slot / slabSize); at < len(t.slabs) && t.slabs[at] != nil {
		return t.slabs[at].entries[slot%slabSize].birth ^ t.slabs[at].replicas[int(slot%slabSize)*t.rf].life
	}
	return 0
}

func (s *slab) of(slot uint32, rf int) []replica {
	from := int(slot%slabSize) * rf
	return s.replicas[from : from+rf : from+rf]
}

// labelsOf returns the labels of a series, or false when it was evicted.
func (t *table) labelsOf(h handle) (labels.Labels, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	e, _ := t.find(h)
	if e == nil {
		return labels.Labels{}, false
	}
	return e.labels, true
}

// add returns the handle of a labelled series, which is new or known already. It keeps lset. 0 means that the table
// takes nothing any more. The caller holds the write lock.
func (t *table) add(lset labels.Labels, minute uint32, p *placement) handle {
	hash := labels.StableHash(lset)
	if h := t.search(hash, lset); h != 0 {
		e, _ := t.find(h)
		e.seen.Store(minute)
		return h
	}
	if t.closed {
		return 0
	}
	if t.births == ^uint32(0) {
		t.reset()
	}
	slot := t.take(minute)
	t.births++
	e := &t.slabs[slot/slabSize].entries[slot%slabSize]
	e.hash, e.labels, e.birth, e.placed = hash, lset, t.births, 0
	e.partition, e.replicas = p.partition(hash), 0
	e.seen.Store(minute)
	clear(t.slabs[slot/slabSize].of(slot, t.rf))
	t.slabs[slot/slabSize].used++
	t.used++
	t.account(int64(labelBytes(lset)))
	t.indexAdd(hash, slot)
	return makeHandle(slot, e.birth)
}

func (t *table) account(n int64) {
	t.bytes += n
	t.total.Add(n)
}

// search finds a series by its labels.
func (t *table) search(hash uint64, lset labels.Labels) handle {
	if len(t.index) == 0 {
		return 0
	}
	mask := uint64(len(t.index) - 1)
	for i := hash & mask; t.index[i] != 0; i = (i + 1) & mask {
		slot := t.index[i] - 1
		e := &t.slabs[slot/slabSize].entries[slot%slabSize]
		if e.hash == hash && labels.Equal(e.labels, lset) {
			return makeHandle(slot, e.birth)
		}
	}
	return 0
}

func (t *table) indexAdd(hash uint64, slot uint32) {
	if t.used*4 > len(t.index)*3 {
		t.reindex()
		return // which found the new one, too
	}
	t.indexPut(hash, slot)
}

func (t *table) indexPut(hash uint64, slot uint32) {
	mask := uint64(len(t.index) - 1)
	i := hash & mask
	for t.index[i] != 0 {
		i = (i + 1) & mask
	}
	t.index[i] = slot + 1
}

// reindex builds the index anew, at most half full.
func (t *table) reindex() {
	size := 0
	if t.used > 0 {
		size = 1 << bits.Len(uint(max(16, 2*t.used)-1))
	}
	t.account(int64(size-len(t.index)) * indexBytes)
	t.index = make([]uint32, size)
	t.each(func(slot uint32, e *entry) { t.indexPut(e.hash, slot) })
}

func (t *table) each(f func(slot uint32, e *entry)) {
	for n, s := range t.slabs {
		if s == nil || s.used == 0 {
			continue
		}
		for i := range s.entries {
			if e := &s.entries[i]; e.birth != 0 {
				f(uint32(n*slabSize+i), e)
			}
		}
	}
}

// take returns a free slot; its entry is empty.
func (t *table) take(minute uint32) uint32 {
	if len(t.free) == 0 && t.used >= t.sweepAt {
		t.evict(minute, func(age int) bool { return age >= unseenMinutes })
		t.sweepAt = max(minSweep, 2*t.used)
	}
	if len(t.free) == 0 {
		t.grow()
	}
	slot := t.free[len(t.free)-1]
	t.free = t.free[:len(t.free)-1]
	return slot
}

// grow adds a slab, in the place of one that was given back if there is one.
func (t *table) grow() {
	at := len(t.slabs)
	if t.holes > 0 {
		at = slices.Index(t.slabs, nil)
		t.holes--
	} else {
		t.slabs = append(t.slabs, nil)
	}
	t.slabs[at] = &slab{replicas: make([]replica, slabSize*t.rf)}
	t.account(t.slabBytes())
	for i := slabSize - 1; i >= 0; i-- {
		t.free = append(t.free, uint32(at*slabSize+i))
	}
}

func (t *table) slabBytes() int64 { return slabSize * int64(entryBytes+replicaBytes*t.rf) }

// reset forgets all series and begins another life. The caller holds the write lock.
func (t *table) reset() {
	t.account(int64(len(t.lives))*lifeBytes - t.bytes)
	t.slabs, t.holes, t.free, t.index, t.used, t.births = nil, 0, nil, nil, 0, 0
	t.incarnation = rand.Uint64() | 1
}

func (t *table) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lives, t.closed = nil, true
	t.reset()
}

// size returns the series and bytes of the table.
func (t *table) size() (series int, bytes int64) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.used, t.bytes
}

// lifeOf returns what is known of a member's TSDB. The caller holds the lock.
func (t *table) lifeOf(member uint32) life {
	if int(member) < len(t.lives) {
		return t.lives[member]
	}
	return life{}
}

// labelBytes is the memory of a label set, roughly: it is one string with a length before each part.
func labelBytes(lset labels.Labels) (n int) {
	lset.Range(func(l labels.Label) { n += len(l.Name) + len(l.Value) + 2 })
	return n + 16
}
