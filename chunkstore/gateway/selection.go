package gateway

import (
	"container/heap"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"google.golang.org/grpc"

	"github.com/duramendb/duramen/chunkstore/reader"
)

// entry is a series of a block, by their numbers.
type entry struct{ block, ordinal uint32 }

// selection is a Select that goes on. One goroutine works; what the client says arrives through commands.
//
// Series are sent in the order in which a merge of the blocks asks for them: first the first one of each block, then,
// when the smallest of these heads has had its turn, the next one of each block that had it. So neither side has to hold
// more than one series of a block ahead. The turns are the order of reading, too: chunks are sent in it.
type selection struct {
	server   *Server
	session  reader.Session
	stream   grpc.ServerStream
	commands *inbox

	sets   []storage.ChunkSeriesSet
	series [][]storage.ChunkSeries // by block, those sent
	heads  headHeap                // the newest of each block that has not ended
	next   []int                   // the blocks whose head had its turn, in order
	order  []entry                 // by position: the entries that had their turn
	list   blocksList              // of the frame that is made
	more   int                     // series that may be sent

	reading *reading
}

// reading is what the client reads of the chunks.
type reading struct {
	command

	it    chunks.Iterator // of the entry at position; nil before its first chunk
	count int             // chunks of the entry so far, skipped ones included
	sum   int64           // bytes of the chunks of the entry that were sent
}

func (w *selection) run(ctx context.Context, r *request, matchers []*labels.Matcher) (err error) {
	if w.sets, err = w.session.Select(ctx, r.SelectHints, matchers...); err != nil {
		return err
	}
	if len(w.sets) != len(r.Blocks) {
		return fmt.Errorf("the source answered for %d blocks of %d", len(w.sets), len(r.Blocks))
	}
	if err := send(w.stream, openedFrame(blockIDs(r.Blocks))); err != nil {
		return err
	}
	w.series = make([][]storage.ChunkSeries, len(w.sets))
	for b := range w.sets {
		w.next = append(w.next, b)
	}
	for {
		w.obey()
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		worked, err := w.work()
		if err != nil {
			return err
		}
		if !worked {
			w.wait(ctx)
		}
	}
}

// work sends a frame of each kind that the client waits for.
func (w *selection) work() (worked bool, err error) {
	if w.more > 0 && len(w.next) > 0 {
		if err := w.sendSeries(); err != nil {
			return false, err
		}
		worked = true
	}
	if r := w.reading; r != nil && r.credit > 0 && r.position < len(w.order) {
		if err := w.sendChunks(); err != nil {
			return false, err
		}
		worked = true
	}
	return worked, nil
}

// obey takes in what the client has said.
func (w *selection) obey() {
	var generation uint64
	if w.reading != nil {
		generation = w.reading.generation
	}
	read, credit, more := w.commands.take(generation)
	if read != nil {
		w.reading = &reading{command: *read}
	}
	if w.reading != nil {
		w.reading.credit += credit
	}
	w.more += more
}

// wait returns when the client has said something or the call is over. A client that takes its time gets no memory kept,
// also before it reads its first chunk: a query has a call for each of its selectors and members, and would else hold the
// memory of one while it waits for that of another.
func (w *selection) wait(ctx context.Context) {
	var impatient <-chan time.Time
	yielder, ok := w.session.(Yielder)
	if ok {
		timer := time.NewTimer(w.server.patience)
		defer timer.Stop()
		impatient = timer.C
	}
	for {
		select {
		case <-w.commands.arrived:
			return
		case <-ctx.Done():
			return
		case <-impatient:
			w.server.metrics.yields.Inc()
			yielder.Yield()
			impatient = nil
		}
	}
}

// sendSeries sends a frame of series, or of what ended.
func (w *selection) sendSeries() error {
	frame := []byte{frameSeries}
	w.list.last = w.list.last[:0]
	before := w.more
	for len(frame) < frameBytes && w.more > 0 && len(w.next) > 0 {
		var err error
		if frame, err = w.round(frame); err != nil {
			return err
		}
	}
	w.server.metrics.series.Add(float64(before - w.more))
	w.server.metrics.sentBytes.WithLabelValues(sentSeries).Add(float64(len(frame)))
	return send(w.stream, frame)
}

// found is a group of blocks that have the same series.
type found struct {
	lset   labels.Labels
	blocks []int
}

// round takes the next series of each block that had its turn, and gives the smallest heads theirs.
func (w *selection) round(frame []byte) ([]byte, error) {
	var groups []found
	for _, b := range w.next {
		if !w.sets[b].Next() {
			if err := w.sets[b].Err(); err != nil {
				return nil, err
			}
			frame = binary.AppendUvarint(append(frame, itemEnd), uint64(b))
			frame = binary.AppendUvarint(frame, uint64(len(w.series[b])))
			continue
		}
		s := w.sets[b].At()
		lset := s.Labels()
		w.series[b] = append(w.series[b], s)
		w.more--
		heap.Push(&w.heads, head{lset, b})
		groups = addTo(groups, lset, b)
	}
	for _, g := range groups {
		frame = appendLabels(append(frame, itemFound), g.lset)
		frame = w.list.append(frame, g.blocks)
	}
	w.next = w.next[:0]
	if len(w.heads) == 0 {
		return frame, nil
	}
	turn := w.heads[0].lset
	for len(w.heads) > 0 && labels.Equal(w.heads[0].lset, turn) {
		b := heap.Pop(&w.heads).(head).block
		w.order = append(w.order, entry{uint32(b), uint32(len(w.series[b]) - 1)})
		w.next = append(w.next, b)
	}
	return w.list.append(append(frame, itemTurn), w.next), nil
}

func addTo(groups []found, lset labels.Labels, block int) []found {
	for i := range groups {
		if labels.Equal(groups[i].lset, lset) {
			groups[i].blocks = append(groups[i].blocks, block)
			return groups
		}
	}
	return append(groups, found{lset, []int{block}})
}

// sendChunks sends a frame of chunks, and more than the credit by at most one chunk.
func (w *selection) sendChunks() error {
	r := w.reading
	frame := binary.AppendUvarint([]byte{frameChunks}, r.generation)
	for len(frame) < frameBytes && r.credit > 0 && r.position < len(w.order) {
		if r.it == nil {
			if err := w.open(r); err != nil {
				return err
			}
		}
		frame = binary.AppendUvarint(append(frame, itemRun), uint64(r.position))
		frame = binary.AppendUvarint(frame, uint64(r.count))
		r.credit -= runCharge
		var ended bool
		frame, ended = r.fill(frame)
		if !ended {
			continue
		}
		if err := r.it.Err(); err != nil {
			return err
		}
		frame = binary.AppendUvarint(append(frame, itemEntryEnd), uint64(r.count))
		frame = binary.AppendUvarint(frame, uint64(r.sum))
		r.position++
		r.it, r.count, r.sum, r.skip = nil, 0, 0, 0
	}
	w.server.metrics.sentBytes.WithLabelValues(sentChunks).Add(float64(len(frame)))
	return send(w.stream, frame)
}

// open begins the entry at the position and passes by what the client has of it.
func (w *selection) open(r *reading) error {
	e := w.order[r.position]
	r.it = w.series[e.block][e.ordinal].Iterator(nil)
	for r.count < r.skip {
		if !r.it.Next() {
			return errors.Join(r.it.Err(), fmt.Errorf("the client has %d chunks of a series of %d", r.skip, r.count))
		}
		r.count++
	}
	return nil
}

// fill appends chunks until the frame is full, the credit used up, or the entry at its end.
func (r *reading) fill(frame []byte) (_ []byte, ended bool) {
	for len(frame) < frameBytes && r.credit > 0 {
		if !r.it.Next() {
			return frame, true
		}
		m := r.it.At()
		data := m.Chunk.Bytes()
		frame = appendChunk(frame, m, data)
		r.count++
		r.sum += int64(len(data))
		r.credit -= int64(len(data))
	}
	return frame, false
}

func doneFrame(count int) []byte { return binary.AppendUvarint([]byte{frameDone}, uint64(count)) }

// reasonOfEnd tells a client that is done from a stream that broke.
func reasonOfEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return errClientDone
	}
	return fmt.Errorf("receive from the client: %w", err)
}

// head is the newest series of a block.
type head struct {
	lset  labels.Labels
	block int
}

// headHeap is a heap by labels, then block.
type headHeap []head

func (h headHeap) Len() int { return len(h) }
func (h headHeap) Less(i, j int) bool {
	c := labels.Compare(h[i].lset, h[j].lset)
	return c < 0 || c == 0 && h[i].block < h[j].block
}
func (h headHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *headHeap) Push(x any) { *h = append(*h, x.(head)) }

// Pop implements heap.Interface.
func (h *headHeap) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	(*h)[last] = head{}
	*h = (*h)[:last]
	return x
}
