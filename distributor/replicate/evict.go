package replicate

// age returns for how many minutes an entry was not seen, unseenMinutes at most.
func age(e *entry, minute uint32) int {
	if n := int32(minute - e.seen.Load()); n > 0 {
		return min(unseenMinutes, int(n))
	}
	return 0
}

// evict drops every series whose age is chosen, and returns how many those were. Slabs without series are given back. The
// caller holds the write lock.
func (t *table) evict(minute uint32, chosen func(age int) bool) (dropped int) {
	before := t.used
	t.each(func(slot uint32, e *entry) {
		if chosen(age(e, minute)) {
			t.drop(slot, e)
		}
	})
	if t.used == before {
		return 0
	}
	t.free = t.free[:0]
	for n, s := range t.slabs {
		switch {
		case s == nil:
		case s.used == 0:
			t.slabs[n] = nil
			t.holes++
			t.account(-t.slabBytes())
		default:
			for i := slabSize - 1; i >= 0; i-- {
				if s.entries[i].birth == 0 {
					t.free = append(t.free, uint32(n*slabSize+i))
				}
			}
		}
	}
	t.reindex()
	return before - t.used
}

func (t *table) drop(slot uint32, e *entry) {
	t.account(-int64(labelBytes(e.labels)))
	s := t.slabs[slot/slabSize]
	clear(s.of(slot, t.rf))
	minute := e.seen.Load()
	s.entries[slot%slabSize] = entry{}
	e.seen.Store(minute)
	s.used--
	t.used--
}

// shrink drops the series that were not seen for longest: a quarter of all, and half a slab at least.
func (t *table) shrink(minute uint32) (dropped int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var byAge [unseenMinutes + 1]int
	t.each(func(_ uint32, e *entry) { byAge[age(e, minute)]++ })
	want := max(slabSize/2, t.used/4)
	border := unseenMinutes
	for ; border > 0 && byAge[border] < want; border-- {
		want -= byAge[border]
	}
	return t.evict(minute, func(age int) bool {
		switch {
		case age > border:
			return true
		case age == border && want > 0:
			want--
			return true
		}
		return false
	})
}
