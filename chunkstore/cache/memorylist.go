package cache

// entry is a value in memory and its place in a list.
type entry[K comparable, V any] struct {
	key        K
	value      V
	bytes      int64
	list       *list[K, V]
	prev, next *entry[K, V]
}

// list is a ring of entries around a root; push and remove allocate nothing.
type list[K comparable, V any] struct {
	root  entry[K, V]
	bytes int64
}

func (l *list[K, V]) init() { l.root.prev, l.root.next = &l.root, &l.root }

// push puts e, which is in no list, first.
func (l *list[K, V]) push(e *entry[K, V]) {
	e.list, e.prev, e.next = l, &l.root, l.root.next
	e.prev.next, e.next.prev = e, e
	l.bytes += e.bytes
}

// remove takes e, which is in l, out.
func (l *list[K, V]) remove(e *entry[K, V]) {
	e.prev.next, e.next.prev = e.next, e.prev
	e.list, e.prev, e.next = nil, nil, nil
	l.bytes -= e.bytes
}

// last returns the entry at the end, or nil.
func (l *list[K, V]) last() *entry[K, V] {
	if l.root.prev == &l.root {
		return nil
	}
	return l.root.prev
}
