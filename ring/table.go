package ring

import (
	"maps"
	"slices"
	"time"
)

// How long entries are kept that say nothing new. A view that was apart for longer can bring back an ingester that
// left, and then only as one that does not answer, for an operator to forget.
const (
	// leftRetention is for ingesters that left and for notes of forgetting. They are few and small.
	leftRetention = 7 * 24 * time.Hour
	// statelessRetention is for members that hold no samples, since their last heartbeat. It is also how wrong the
	// clock of such a member may be.
	statelessRetention = time.Hour
)

// Table is what one process knows of the cluster: an entry for each instance. It is not safe for concurrent use.
type Table struct {
	entries map[string]*Entry // never changed, only replaced
}

// NewTable returns an empty table.
func NewTable() *Table { return &Table{entries: map[string]*Entry{}} }

// Merge takes entries into a table and returns those that replaced something or were new. Tables that have merged the
// same entries, in any order and any number of times, hold the same. now sets Member.Seen and decides nothing.
func Merge(into *Table, now time.Time, entries ...Entry) (changed []Entry) {
	for i := range entries {
		e := &entries[i]
		old := into.entries[e.ID()]
		if old != nil && !newer(e, old) {
			continue
		}
		next := *e
		next.raw = e.bytes() // encoded once, for all comparisons and messages to come
		next.Member.Seen = seen(e, old, now.UnixMilli())
		into.entries[e.ID()] = &next
		changed = append(changed, next)
	}
	return changed
}

// seen is the Seen of an entry that enters a table. A first sight may be old news, passed on by somebody who kept it.
func seen(e, old *Entry, now int64) int64 {
	if e.Forgotten != nil {
		return 0
	}
	if old != nil && old.Forgotten == nil {
		return now
	}
	return min(now, e.Member.Heartbeat)
}

// Get returns the entry of an instance.
func (t *Table) Get(id string) (Entry, bool) {
	e := t.entries[id]
	if e == nil {
		return Entry{}, false
	}
	return *e, true
}

// Len is the number of entries.
func (t *Table) Len() int { return len(t.entries) }

// Entries returns all entries by ID. The slice is the caller's, what it points to is shared and never changed.
func (t *Table) Entries() []Entry {
	entries := make([]Entry, 0, len(t.entries))
	for _, id := range slices.Sorted(maps.Keys(t.entries)) {
		entries = append(entries, *t.entries[id])
	}
	return entries
}

// Expire drops entries that nobody needs any more and returns how many. What it drops depends on the entry alone, so
// that one that comes back from a process that has yet to drop it is dropped again.
func (t *Table) Expire(now time.Time) int {
	before := len(t.entries)
	for id, e := range t.entries {
		if expired(e, now) {
			delete(t.entries, id)
		}
	}
	return before - len(t.entries)
}

// Expired reports whether Expire would drop the entry.
func Expired(e Entry, now time.Time) bool { return expired(&e, now) }

func expired(e *Entry, now time.Time) bool {
	switch {
	case e.Forgotten != nil:
		return e.Forgotten.At < now.Add(-leftRetention).UnixMilli()
	case !e.Member.Has(RoleIngester):
		return e.Member.Heartbeat < now.Add(-statelessRetention).UnixMilli()
	case e.Member.State == Left:
		return max(e.Member.Heartbeat, e.Member.Floor) < now.Add(-leftRetention).UnixMilli()
	default:
		return false
	}
}
