package distributor

import (
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/duramendb/duramen/duramenpb"
)

const (
	// cacheShards lets inserts of one request go on beside those of another; 16 read locks a request cost nothing.
	cacheShards = 16
	// minSlots keeps a tenant of a few series at 10 kB.
	minSlots = 16
	// entryBytes is the size of an entry; a test holds it.
	entryBytes = 40
	// unseenMinutes is after how long a series counts as gone: a scrape interval is a minute or less, and a target
	// that comes back after half an hour costs one slow pass.
	unseenMinutes = 30
)

// key is a keyed 128-bit hash of how a series was written in a body: of its raw label bytes in format 1.0, of its
// symbols in 2.0, each with seeds of its own. Equal keys are taken for equal labels. The zero key marks an empty slot.
type key struct{ hi, lo uint64 }

// view is what holds for every entry of a tenant's cache at one moment. It is immutable.
type view struct {
	// epoch is that of the tenant's limits, gen counts its changes: labels validated in another gen are validated anew.
	epoch uint64
	gen   uint32
	// incarnation is the newest known life of the tenant's TSDB, life counts its changes: a reference of another life
	// is never sent.
	incarnation uint64
	life        uint32
}

// lifeRefused is the life of an entry whose labels are refused: its ref is the index of the reason.
const lifeRefused = ^uint32(0)

// entry is what a cache knows of a series. All but seen changes only under the shard's write lock.
type entry struct {
	key  key
	ref  uint64
	life uint32
	gen  uint32
	meta uint32        // hash of the metadata last passed on, 0 for none
	seen atomic.Uint32 // minute of the last lookup
}

// cache knows the series of one tenant: a hit needs no labels, no validation and no lookup in the ingester.
//
// It is a hash table by open addressing with linear probing, in shards. Entries leave only when a shard is rebuilt:
// while growing, those unseen for half an hour; over budget, those unseen for longest.
type cache struct {
	current atomic.Pointer[view]
	moving  sync.Mutex    // serialises changes of current
	bytes   *atomic.Int64 // of all tenants
	// restarts is the newest PushResult.Restarts. It goes into what is kept of metadata, so that it is passed on again
	// after one.
	restarts atomic.Uint64
	shards   [cacheShards]shard
}

type shard struct {
	mu     sync.RWMutex
	slots  []entry // a power of two, or none
	used   int
	closed bool
}

func newCache(bytes *atomic.Int64) *cache {
	c := &cache{bytes: bytes}
	c.current.Store(&view{gen: 1, life: 1})
	return c
}

// view returns the present view after limits of the given epoch took effect.
func (c *cache) view(epoch uint64) *view {
	v := c.current.Load()
	if v.epoch == epoch {
		return v
	}
	c.moving.Lock()
	defer c.moving.Unlock()
	v = c.current.Load()
	if v.epoch == epoch {
		return v
	}
	moved := *v
	moved.epoch, moved.gen = epoch, v.gen+1
	c.current.Store(&moved)
	return &moved
}

// learn is told the incarnation that a push which began under v was answered with. It returns the view under which the
// references of the answer may be stored, or nil when they belong to a life that is over.
func (c *cache) learn(v *view, incarnation uint64) *view {
	if v.incarnation == incarnation {
		return v
	}
	if incarnation == 0 {
		return nil
	}
	c.moving.Lock()
	defer c.moving.Unlock()
	now := c.current.Load()
	learnt := *v
	learnt.incarnation = incarnation
	switch {
	case now.incarnation == incarnation:
		learnt.life = now.life
		return &learnt
	case now.life != v.life:
		return nil // Another request has learnt of a newer life meanwhile.
	}
	moved := *now
	moved.incarnation, moved.life = incarnation, now.life+1
	c.current.Store(&moved)
	learnt.life = moved.life
	return &learnt
}

func (c *cache) rlock() {
	for i := range c.shards {
		c.shards[i].mu.RLock()
	}
}

func (c *cache) runlock() {
	for i := range c.shards {
		c.shards[i].mu.RUnlock()
	}
}

func (k key) shard() int { return int(k.hi >> 60) }

// touch reads from the slot where k would be, so that a following find meets it in the processor's cache: a block of
// touches waits for memory once where a block of finds waits for each. The caller holds rlock.
func (c *cache) touch(k key) uint64 {
	s := c.shards[k.shard()].slots
	if len(s) == 0 {
		return 0
	}
	e := &s[k.lo&uint64(len(s)-1)]
	return e.key.lo ^ uint64(e.life)
}

// find returns the entry of k, or nil. The caller holds rlock, and the entry is valid until it lets go.
func (c *cache) find(k key) *entry {
	s := c.shards[k.shard()].slots
	if len(s) == 0 {
		return nil
	}
	mask := uint64(len(s) - 1)
	for i := k.lo & mask; ; i = (i + 1) & mask {
		e := &s[i]
		if e.key == k {
			return e
		}
		if e.key == (key{}) {
			return nil
		}
	}
}

// put stores the reference of a series under a view that learn returned.
func (c *cache) put(k key, v *view, ref uint64, meta uint32, minute uint32) {
	c.store(k, minute, func(e *entry) { e.ref, e.life, e.gen, e.meta = ref, v.life, v.gen, meta })
}

// refuse stores that the labels of a series are refused by the limits of v.
func (c *cache) refuse(k key, v *view, reason duramenpb.Reason, minute uint32) {
	code := slices.Index(labelReasons, reason)
	if code < 0 {
		return
	}
	c.store(k, minute, func(e *entry) { e.ref, e.life, e.gen, e.meta = uint64(code), lifeRefused, v.gen, 0 })
}

// told notes which metadata of a series was passed on.
func (c *cache) told(k key, meta uint32) {
	s := &c.shards[k.shard()]
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.slots) == 0 {
		return
	}
	if e := s.slot(k); e.key == k {
		e.meta = meta
	}
}

func (c *cache) store(k key, minute uint32, set func(*entry)) {
	s := &c.shards[k.shard()]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if (s.used+1)*4 > len(s.slots)*3 {
		c.resize(s, minute, max(minSlots, s.survivors(minute)*2))
	}
	e := s.slot(k)
	if e.key != k {
		e.key = k
		s.used++
	}
	set(e)
	e.seen.Store(minute)
}

// slot returns the entry of k or the empty slot for it; there is one, since no more than three quarters are used.
func (s *shard) slot(k key) *entry {
	mask := uint64(len(s.slots) - 1)
	for i := k.lo & mask; ; i = (i + 1) & mask {
		if e := &s.slots[i]; e.key == k || e.key == (key{}) {
			return e
		}
	}
}

func age(e *entry, minute uint32) int { return min(unseenMinutes, int(minute-e.seen.Load())) }

func (s *shard) survivors(minute uint32) (n int) {
	for i := range s.slots {
		if e := &s.slots[i]; e.key != (key{}) && age(e, minute) < unseenMinutes {
			n++
		}
	}
	return n
}

// resize rebuilds s with room for at least n slots. Entries unseen for half an hour stay behind; if the others fill
// more than half of the slots, those unseen for longest do too. The caller holds the write lock.
func (c *cache) resize(s *shard, minute uint32, n int) (dropped int) {
	slots := make([]entry, 1<<bits.Len(uint(n-1)))
	var byAge [unseenMinutes + 1]int
	for i := range s.slots {
		if e := &s.slots[i]; e.key != (key{}) {
			byAge[age(e, minute)]++
		}
	}
	room := len(slots) / 2
	oldest, atOldest := 0, 0 // entries of this age stay, as many as there is room for; younger ones all stay
	for ; oldest < unseenMinutes; oldest++ {
		if atOldest = min(room, byAge[oldest]); atOldest < byAge[oldest] {
			break
		}
		room -= atOldest
	}
	old, before := s.slots, s.used
	s.slots, s.used = slots, 0
	for i := range old {
		e := &old[i]
		a := age(e, minute)
		if e.key == (key{}) || a > oldest || a >= unseenMinutes {
			continue
		}
		if a == oldest {
			if atOldest == 0 {
				continue
			}
			atOldest--
		}
		to := s.slot(e.key)
		to.key, to.ref, to.life, to.gen, to.meta = e.key, e.ref, e.life, e.gen, e.meta
		to.seen.Store(e.seen.Load())
		s.used++
	}
	c.bytes.Add(int64(len(slots)-len(old)) * entryBytes)
	return before - s.used
}

// shrink halves the largest shard and returns how many entries it dropped.
func (c *cache) shrink(minute uint32) (dropped int) {
	largest := &c.shards[0]
	most := -1
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		if len(s.slots) > most {
			largest, most = s, len(s.slots)
		}
		s.mu.RUnlock()
	}
	largest.mu.Lock()
	defer largest.mu.Unlock()
	n := len(largest.slots)
	if n <= minSlots {
		dropped = largest.used
		c.bytes.Add(-int64(n) * entryBytes)
		largest.slots, largest.used = nil, 0
		return dropped
	}
	return c.resize(largest, minute, n/2)
}

// size returns the entries and bytes of the cache.
func (c *cache) size() (entries int, bytes int64) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		entries += s.used
		bytes += int64(len(s.slots)) * entryBytes
		s.mu.RUnlock()
	}
	return entries, bytes
}

// close frees the cache; requests that still hold it find and store nothing.
func (c *cache) close() {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		c.bytes.Add(-int64(len(s.slots)) * entryBytes)
		s.slots, s.used, s.closed = nil, 0, true
		s.mu.Unlock()
	}
}
