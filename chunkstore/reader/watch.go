package reader

import (
	"sync"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// decodeFault keeps the first error that decoding a chunk of one Select met. Prometheus' series iterator goes on with the
// next chunk when one ends early, and forgets why it ended; the answer would be a part. So the request for the next
// chunk fails instead. Safe for concurrent use.
type decodeFault struct {
	mu  sync.Mutex
	err error
}

func (f *decodeFault) note(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
}

func (f *decodeFault) get() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// watchedChunk notes the errors of its iterators.
type watchedChunk struct {
	chunkenc.Chunk
	fault *decodeFault
}

// Iterator implements chunkenc.Chunk.
func (c watchedChunk) Iterator(reuse chunkenc.Iterator) chunkenc.Iterator {
	w, ok := reuse.(*watchedIterator)
	if !ok {
		w = &watchedIterator{Iterator: reuse}
	}
	w.Iterator, w.fault = c.Chunk.Iterator(w.Iterator), c.fault
	return w
}

type watchedIterator struct {
	chunkenc.Iterator
	fault *decodeFault
}

// Next implements chunkenc.Iterator.
func (w *watchedIterator) Next() chunkenc.ValueType { return w.watch(w.Iterator.Next()) }

// Seek implements chunkenc.Iterator.
func (w *watchedIterator) Seek(t milliseconds) chunkenc.ValueType { return w.watch(w.Iterator.Seek(t)) }

func (w *watchedIterator) watch(typ chunkenc.ValueType) chunkenc.ValueType {
	if typ == chunkenc.ValNone {
		if err := w.Err(); err != nil {
			w.fault.note(err)
		}
	}
	return typ
}

// milliseconds since the Unix epoch. (As an alias it also keeps vet from taking Seek for an io.Seeker's.)
type milliseconds = int64
