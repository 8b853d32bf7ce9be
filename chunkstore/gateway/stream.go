package gateway

import (
	"context"
	"fmt"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"google.golang.org/grpc"

	"github.com/duramendb/duramen/internal/rpcframe"
)

const (
	// seriesWindow is how many series of a stream may be under way or waiting for the consumer.
	seriesWindow = 8192
	// chunkWindow is the same for the bytes of chunks. At 40 ms for a round trip it allows 100 MB/s from each member.
	chunkWindow = 4 << 20
	// smallWindow is where the window begins again when series are read out of order; it doubles while they are in order.
	smallWindow = 64 << 10
)

// stream is a Select at one member, for some blocks. Its receiver fills what the consumer, one goroutine, takes.
type stream struct {
	sel    *selecting
	member Member
	conn   grpc.ClientStream
	cancel context.CancelFunc
	blocks []int // of the session, by their number in the stream

	arrived chan struct{} // holds one when there is news

	mu     sync.Mutex
	failed error
	wanted int // series that the member may send still; below zero when it sent more in a round
	held   int // series that came and were not handed out
	order  []entry

	generation  uint64 // of the reading; 0 before the first one
	next        int    // the position from which the next chunk comes
	nextChunk   int    // the number of that chunk in its entry
	sum         int64  // bytes of that entry's chunks since the reading reached it
	window      int64  // of bytes that are under way or waiting for the consumer
	outstanding int64  // credit that is not used up
	buffered    int64  // bytes in entries
	entries     map[int]*arrivedEntry
}

// arrivedEntry is what came of an entry and was not taken yet.
type arrivedEntry struct {
	first  int // number of the first of chunks
	chunks []chunks.Meta
	size   int64
	whole  bool
}

// newStream makes the stream that feeds the sets of blocks from now on.
func newStream(sel *selecting, m Member, conn grpc.ClientStream, blocks []int) *stream {
	st := &stream{
		sel: sel, member: m, conn: conn, blocks: blocks, arrived: make(chan struct{}, 1), wanted: seriesWindow,
		entries: map[int]*arrivedEntry{},
	}
	for i, b := range blocks {
		set := sel.sets[b]
		set.stream, set.index = st, i
		set.seen, set.seenHash, set.positions = 0, 0, nil
		st.held += len(set.pending)
	}
	return st
}

// receive runs until the stream ends.
func (st *stream) receive(ctx context.Context) {
	var b labels.ScratchBuilder
	for {
		frame, err := st.sel.s.client.receive(ctx, st.member, st.conn)
		if err == nil {
			err = st.apply(ctx, frame, &b)
		}
		if err != nil {
			st.mu.Lock()
			st.failed = err
			st.mu.Unlock()
		}
		select {
		case st.arrived <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

func (st *stream) apply(ctx context.Context, frame []byte, b *labels.ScratchBuilder) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	var err error
	switch frame[0] {
	case frameSeries:
		err = decodeSeries(frame[1:], len(st.blocks), b, seriesOf{st})
	case frameChunks:
		var generation uint64
		var items []byte
		generation, items, err = chunkFrameGeneration(frame[1:])
		switch {
		case err != nil || generation < st.generation: // the latter was under way when the reading began elsewhere
		case generation > st.generation:
			err = fmt.Errorf("chunks of reading %d came in place of %d", generation, st.generation)
		default:
			err = decodeChunks(items, &chunksOf{st: st})
		}
	default:
		err = fmt.Errorf("frame %d among series", frame[0])
	}
	if err != nil {
		return broken(ctx, st.member, err)
	}
	return nil
}

// seriesOf is the stream as what takes series.
type seriesOf struct{ st *stream }

func (s seriesOf) set(block int) *blockSet { return s.st.sel.sets[s.st.blocks[block]] }

func (s seriesOf) found(lset labels.Labels, blocks []int) error {
	for _, b := range blocks {
		fresh, err := s.set(b).found(lset)
		if err != nil {
			return err
		}
		s.st.wanted--
		if fresh {
			s.st.held++
		}
	}
	return nil
}

func (s seriesOf) ended(block int, series uint64) error { return s.set(block).end(series) }

func (s seriesOf) turn(blocks []int) error {
	for _, b := range blocks {
		set := s.set(b)
		if len(set.positions) >= set.seen {
			return fmt.Errorf("the turn of a series that did not come")
		}
		s.st.order = append(s.st.order, entry{uint32(b), uint32(len(set.positions))})
		set.positions = append(set.positions, len(s.st.order)-1)
	}
	return nil
}

// chunksOf is the stream as what takes chunks.
type chunksOf struct {
	st    *stream
	entry *arrivedEntry
}

func (c *chunksOf) run(position, first int) error {
	st := c.st
	if position != st.next || first != st.nextChunk || position >= len(st.order) {
		return fmt.Errorf("chunk %d of entry %d came in place of %d of %d", first, position, st.nextChunk, st.next)
	}
	c.entry = st.entries[position]
	if c.entry == nil {
		c.entry = &arrivedEntry{first: first}
		st.entries[position] = c.entry
	}
	st.outstanding -= runCharge
	return nil
}

func (c *chunksOf) chunk(m chunks.Meta, size int) error {
	if c.entry == nil {
		return rpcframe.ErrCut
	}
	c.entry.chunks = append(c.entry.chunks, m)
	c.entry.size += int64(size)
	c.st.nextChunk++
	c.st.sum += int64(size)
	c.st.outstanding -= int64(size)
	c.st.buffered += int64(size)
	return nil
}

func (c *chunksOf) entryEnd(count, sum uint64) error {
	st := c.st
	if c.entry == nil || count != uint64(st.nextChunk) || sum != uint64(st.sum) {
		return fmt.Errorf("%d chunks with %d bytes came of %d with %d", st.nextChunk, st.sum, count, sum)
	}
	c.entry.whole = true
	c.entry = nil
	st.next, st.nextChunk, st.sum = st.next+1, 0, 0
	return nil
}

// chunks returns the chunks of a series from number from on that have arrived, and whether these are all. It returns none
// after it has waited for news.
func (b *blockSet) chunks(ordinal, from int) (ready []chunks.Meta, whole bool, err error) {
	st := b.stream
	st.mu.Lock()
	defer func() { st.mu.Unlock() }()
	if b.sel.err != nil {
		return nil, false, b.sel.err
	}
	position := -1
	if ordinal < len(b.positions) {
		position = b.positions[ordinal]
		if ready, whole = st.takeChunks(position, from); whole || len(ready) > 0 {
			return ready, whole, nil
		}
	}
	switch {
	case st.failed != nil:
		return nil, false, st.replaced()
	case position < 0: // its turn comes when the series before it in other blocks are known
		if st.wanted <= 0 {
			st.wantSeries(seriesWindow)
		}
	case !st.comes(position, from):
		st.seek(position, from)
	default:
		st.passBy(position)
		if st.outstanding <= 0 { // what has arrived is for others: a series is larger than the window, or some are left out
			st.grant(st.outstanding)
		}
	}
	st.wait()
	return nil, false, nil
}

// takeChunks takes what has arrived of an entry, from chunk number from on.
func (st *stream) takeChunks(position, from int) (ready []chunks.Meta, whole bool) {
	e := st.entries[position]
	if e == nil || e.first > from {
		return nil, false
	}
	skip := min(from-e.first, len(e.chunks))
	ready = e.chunks[skip:]
	st.buffered -= e.size
	e.first, e.chunks, e.size = e.first+len(e.chunks), nil, 0
	if e.whole {
		delete(st.entries, position)
	}
	if taken := st.outstanding + st.buffered; taken < st.window/2 {
		st.grant(taken)
	}
	return ready, e.whole
}

// comes reports whether the chunk is on its way, or will be soon if the reading goes on as it does.
func (st *stream) comes(position, from int) bool {
	if st.generation == 0 || position < st.next {
		return false
	}
	if position == st.next {
		return from >= st.nextChunk
	}
	return position-st.next <= 4*len(st.blocks)
}

// seek makes the reading go on at another place. What it has brought so far is dropped.
func (st *stream) seek(position, from int) {
	st.window = chunkWindow
	if st.generation > 0 {
		st.sel.s.client.metrics.seeks.Inc()
		st.window = smallWindow
	}
	st.generation++
	st.next, st.nextChunk, st.sum = position, from, 0
	st.outstanding, st.buffered = st.window, 0
	clear(st.entries)
	st.tell(command{read: true, generation: st.generation, position: position, skip: from, credit: st.window})
}

// passBy drops entries that a merge of the blocks has left behind when it comes to position, so that they do not hold the
// window for ever.
func (st *stream) passBy(position int) {
	for p, e := range st.entries {
		if p < position-len(st.blocks) && p != st.next {
			st.buffered -= e.size
			delete(st.entries, p)
		}
	}
}

// grant gives credit for a window that is twice as wide as before, up to its limit, of which taken bytes are used.
func (st *stream) grant(taken int64) {
	st.window = min(2*st.window, chunkWindow)
	credit := st.window - taken
	st.outstanding += credit
	st.tell(command{generation: st.generation, credit: credit})
}

func (st *stream) wantSeries(more int) {
	st.wanted += more
	st.tell(command{more: more})
}

// tell sends a command. Only the consumer calls it. When it cannot be sent, the receiver gets to know why.
func (st *stream) tell(c command) { _ = send(st.conn, c.frame()) }

// wait returns when there is news. The mutex is let go meanwhile.
func (st *stream) wait() {
	st.mu.Unlock()
	<-st.arrived
	st.mu.Lock()
}

// replaced replaces a stream that failed. The mutex is let go meanwhile.
func (st *stream) replaced() error {
	err := st.failed
	st.mu.Unlock()
	defer st.mu.Lock()
	return st.sel.replace(st, err)
}
