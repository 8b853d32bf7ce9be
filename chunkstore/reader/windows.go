package reader

import (
	"cmp"
	"context"
	"slices"

	"github.com/duramendb/duramen/chunkstore/index"
)

// windows holds the chunks of a block's series, a stretch of series at a time: the one being read and the one ahead of it.
// Series are numbered in the order in which the block's set gives them.
// When all fit in memory there is one window. It is for the session's goroutine; fetching is done by others.
type windows struct {
	b    *blockSelection
	size int64 // memory of one window
	at   int   // the series that was read last
	gate chan struct{}

	early   *fetch
	current *window
	next    *window
}

// window is the chunks of the series [from, to).
type window struct {
	from, to int
	starts   []uint32 // of each series' chunks in refs, and the end of the last
	refs     []index.Chunk
	*fetch
}

// fetch is chunks' bytes on their way. Its fields are read when done is closed.
type fetch struct {
	cancel context.CancelFunc
	done   chan struct{}
	runs   []run // by place
	err    error
}

// run is a piece of a chunk file.
type run struct {
	segment uint32
	start   int64
	end     int64
	data    []byte
}

// beginEarly reads pieces of chunk files before it is known which chunks are wanted.
func (w *windows) beginEarly(spans []index.Span) {
	w.b.sel.s.l.metrics.windows.WithLabelValues("early").Inc()
	w.early = w.spawn(func(ctx context.Context, f *fetch) error {
		f.runs = runsOf(spans)
		return w.b.read(ctx, f.runs)
	})
}

// begin starts the first window, behind the series that was read last.
func (w *windows) begin(gate chan struct{}) {
	w.gate = gate
	if w.current == nil {
		w.current = w.load(w.at, "ahead")
	}
}

// spawn runs fn in a goroutine that the session waits for.
func (w *windows) spawn(fn func(context.Context, *fetch) error) *fetch {
	s := w.b.sel.s
	ctx, cancel := context.WithCancel(w.b.sel.ctx)
	f := &fetch{cancel: cancel, done: make(chan struct{})}
	s.wg.Go(func() {
		defer close(f.done)
		defer cancel()
		defer recovered(&f.err)
		f.err = fn(ctx, f)
	})
	return f
}

// load starts the window that begins with a series.
func (w *windows) load(from int, when string) *window {
	w.b.sel.s.l.metrics.windows.WithLabelValues(when).Inc()
	win, early, gate := &window{from: from}, w.early, w.gate
	w.early = nil
	win.fetch = w.spawn(func(ctx context.Context, f *fetch) error {
		if gate != nil {
			select {
			case gate <- struct{}{}:
				defer func() { <-gate }()
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		collect := win.collect
		if w.b.order != nil {
			collect = win.collectInOrder
		}
		if err := collect(ctx, w.b, w.size); err != nil {
			return err
		}
		if early != nil {
			select {
			case <-early.done:
			case <-ctx.Done():
				return ctx.Err()
			}
			if early.err == nil {
				f.runs = early.runs
				return nil
			}
		}
		f.runs = runsOfChunks(win.refs)
		return w.b.read(ctx, f.runs)
	})
	return win
}

// collect notes the chunks of as many series as the size allows, one at least.
func (win *window) collect(ctx context.Context, b *blockSelection, size int64) error {
	c := cursor{b: b}
	used := int64(0)
	win.starts = append(win.starts, 0)
	at := c.find(win.from)
	skip := win.from - b.picked[at].first
	win.to = win.from
	for ; at < len(b.picked); at++ {
		page, err := c.page(ctx, at)
		if err != nil {
			return err
		}
		for _, i := range b.picked[at].series[skip:] {
			if !win.add(b, page.Chunks(int(i)), &used, size) {
				return nil
			}
		}
		skip = 0
	}
	return nil
}

// collectInOrder is collect for series that are read in another order than that of their pages.
func (win *window) collectInOrder(ctx context.Context, b *blockSelection, size int64) error {
	c := cursor{b: b}
	used := int64(0)
	win.starts = append(win.starts, 0)
	for win.to = win.from; win.to < len(b.order); {
		ordinal := b.order[win.to]
		at := c.find(ordinal)
		page, err := c.page(ctx, at)
		if err != nil {
			return err
		}
		i := b.picked[at].series[ordinal-b.picked[at].first]
		if !win.add(b, page.Chunks(int(i)), &used, size) {
			return nil
		}
	}
	return nil
}

// add notes the chunks of the next series when there is room for them.
func (win *window) add(b *blockSelection, all []index.Chunk, used *int64, size int64) bool {
	n, bytes := overlap(all, b.sel.mint, b.sel.maxt)
	if *used += chunkMemory(bytes, int64(n)); *used > size && win.to > win.from {
		return false
	}
	for _, chunk := range all {
		if chunk.Overlaps(b.sel.mint, b.sel.maxt) {
			win.refs = append(win.refs, chunk)
		}
	}
	win.starts = append(win.starts, uint32(len(win.refs)))
	win.to++
	return true
}

// series returns the window with a series' chunks once it is there. Series are best asked for in order.
func (w *windows) series(ordinal int) (*window, error) {
	if err := w.b.sel.ctx.Err(); err != nil {
		return nil, w.b.sel.s.l.lateError(err)
	}
	if err := w.b.sel.s.resume(w.b.sel.ctx); err != nil {
		return nil, err
	}
	w.at = ordinal
	w.b.sel.start()
	for {
		if w.current == nil {
			w.current = w.load(ordinal, "late")
		}
		win := w.current
		if err := w.wait(win.fetch); err != nil {
			w.drop() // tried again by whoever asks again
			return nil, err
		}
		switch {
		case win.from <= ordinal && ordinal < win.to:
			if w.next == nil && win.to < w.b.count {
				w.next = w.load(win.to, "ahead")
			}
			return win, nil
		case w.next != nil && ordinal >= w.next.from:
			w.current, w.next = w.next, nil
			if err := w.wait(w.current.fetch); err != nil {
				w.drop()
				return nil, err
			}
			if ordinal >= w.current.to {
				w.drop()
			}
		default:
			w.drop()
		}
	}
}

// wait returns when f is done, or earlier when the query ends.
func (w *windows) wait(f *fetch) error {
	select {
	case <-f.done:
		return f.err
	case <-w.b.sel.ctx.Done():
		<-f.done // its context is ours
		return w.b.sel.s.l.lateError(w.b.sel.ctx.Err())
	}
}

// drop forgets the windows. The next one that is asked for begins anew.
func (w *windows) drop() {
	var all []*fetch
	if w.early != nil {
		all = append(all, w.early)
	}
	for _, win := range []*window{w.current, w.next} {
		if win != nil {
			all = append(all, win.fetch)
		}
	}
	for _, f := range all {
		f.cancel()
	}
	for _, f := range all {
		<-f.done
	}
	w.early, w.current, w.next = nil, nil, nil
}

// chunks returns the places of the chunks of a series.
func (win *window) chunks(ordinal int) []index.Chunk {
	i := ordinal - win.from
	return win.refs[win.starts[i]:win.starts[i+1]]
}

// bytes returns the record of a chunk.
func (win *window) bytes(c index.Chunk) []byte {
	at, found := slices.BinarySearchFunc(win.runs, c, func(r run, c index.Chunk) int {
		return cmp.Or(cmp.Compare(r.segment, c.Segment), cmp.Compare(r.start, int64(c.Offset)))
	})
	if !found {
		at-- // the last one that begins before
	}
	if at < 0 {
		return nil
	}
	r := win.runs[at]
	from := int64(c.Offset) - r.start
	if r.segment != c.Segment || from+int64(c.Length) > int64(len(r.data)) {
		return nil
	}
	return r.data[from : from+int64(c.Length)]
}

// runsOfChunks returns the pieces of files that chunks take, by place. They have no bytes yet.
func runsOfChunks(chunks []index.Chunk) []run {
	spans := make([]index.Span, len(chunks))
	for i, c := range chunks {
		spans[i] = index.Span{Segment: c.Segment, Start: c.Offset, End: c.Offset + c.Length}
	}
	return runsOf(spans)
}
