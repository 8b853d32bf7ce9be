package gateway

import (
	"context"
	"fmt"
	"sync"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/tracing"
)

// selecting is one Select of a session: a set of series for each block, fed by a stream from each member.
//
// A stream that breaks is replaced: its blocks are asked of other members from the beginning. What has been handed out is
// compared with what comes now, and the reading of chunks goes on behind the last one that was handed out. A block does
// not change, so the answer is the same one, or the query fails.
type selecting struct {
	s        *session
	ctx      context.Context //nolint:containedctx // sets and iterators have no place for one
	cancel   context.CancelFunc
	hints    *storage.SelectHints
	matchers []*labels.Matcher
	asking   asking
	sets     []*blockSet
	err      error // ended the whole of it

	receivers sync.WaitGroup
}

// Select implements reader.Session. It returns when all members have begun to answer.
func (s *session) Select(
	ctx context.Context, hints *storage.SelectHints, matchers ...*labels.Matcher,
) (_ []storage.ChunkSeriesSet, err error) {
	ctx, span := tracing.Start(ctx, "gateway.select")
	defer func() { span.Fail(err); span.End() }()
	ctx, cancel := context.WithCancel(ctx)
	sel := &selecting{
		s: s, ctx: ctx, cancel: cancel, hints: hints, matchers: matchers,
		asking: asking{s: s, failed: map[int][]*failure{}},
	}
	s.selects = append(s.selects, sel)
	sets := make([]storage.ChunkSeriesSet, len(s.blocks))
	for i := range s.blocks {
		set := &blockSet{sel: sel, name: s.blocks[i].ULID.String()}
		sel.sets = append(sel.sets, set)
		sets[i] = set
	}
	if err := sel.open(s.everyBlock()); err != nil {
		sel.close()
		return nil, err
	}
	span.Int("blocks", int64(len(s.blocks)))
	return sets, nil
}

// open gives each of the blocks a stream.
func (sel *selecting) open(blocks []int) error {
	err := sel.asking.all(blocks, func(t task) error {
		r := sel.s.request(t.blocks, sel.matchers)
		r.SelectHints, r.More = sel.hints, seriesWindow
		m := sel.s.members[t.member]
		ctx, cancel := context.WithCancel(sel.ctx)
		conn, release, err := sel.s.call(ctx, m, methodSelect, r)
		if err != nil {
			cancel()
			return err
		}
		st := newStream(sel, m, conn, t.blocks)
		st.cancel = cancel
		sel.receivers.Go(func() {
			defer release()
			defer cancel()
			st.receive(ctx)
		})
		return nil
	})
	if err != nil {
		sel.err = err
	}
	return err
}

// replace opens other streams for the blocks of one that broke.
func (sel *selecting) replace(broken *stream, err error) error {
	if sel.err != nil {
		return sel.err
	}
	sel.s.client.metrics.requests.WithLabelValues(outcomeBroken).Inc()
	broken.cancel()
	if err := sel.asking.note(broken.blocks, err); err != nil {
		sel.err = err
		return err
	}
	return sel.open(broken.blocks)
}

// close ends all streams and waits for what they began.
func (sel *selecting) close() {
	sel.cancel()
	sel.receivers.Wait()
}

// blockSet is the set of series of one block. It implements storage.ChunkSeriesSet for one goroutine.
type blockSet struct {
	sel  *selecting
	name string

	// The stream that feeds the set, and the set's number in it; only the consumer changes them, between two streams.
	stream *stream
	index  int

	// Guarded by the stream's mutex.
	pending   []labels.Labels // received, not handed out
	received  int             // series from all streams, with the hash of their labels
	hash      uint64
	seen      int // series from this stream
	seenHash  uint64
	newest    labels.Labels // of this stream
	positions []int         // in the order of reading of this stream, by the number of the series
	ended     bool

	given   int
	current *series
	err     error
}

var _ storage.ChunkSeriesSet = (*blockSet)(nil)

// Next implements storage.ChunkSeriesSet.
func (b *blockSet) Next() bool {
	for b.err == nil {
		lset, found, ended, err := b.take()
		switch {
		case err != nil:
			b.err = err
		case found:
			b.current = &series{set: b, ordinal: b.given, lset: lset}
			b.given++
			return true
		case ended:
			return false
		}
	}
	return false
}

// take returns the next series if there is one, or waits for news.
func (b *blockSet) take() (lset labels.Labels, found, ended bool, err error) {
	st := b.stream
	st.mu.Lock()
	defer func() { st.mu.Unlock() }()
	switch {
	case b.sel.err != nil:
		return lset, false, false, b.sel.err
	case len(b.pending) > 0:
		lset, b.pending = b.pending[0], b.pending[1:]
		st.held--
		if st.wanted+st.held < seriesWindow/2 {
			st.wantSeries(seriesWindow - st.wanted - st.held)
		}
		return lset, true, false, nil
	case b.ended:
		return lset, false, true, nil
	case st.failed != nil:
		return lset, false, false, st.replaced()
	}
	if st.wanted <= 0 {
		st.wantSeries(seriesWindow)
	}
	st.wait()
	return lset, false, false, nil
}

// found takes a series that the stream gave.
func (b *blockSet) found(lset labels.Labels) (fresh bool, err error) {
	if b.seen > 0 && labels.Compare(b.newest, lset) >= 0 {
		return false, fmt.Errorf("block %s: series %s came behind %s", b.name, lset, b.newest)
	}
	b.newest = lset
	b.seen++
	b.seenHash = chained(b.seenHash, lset)
	if b.seen > b.received {
		b.received, b.hash = b.seen, b.seenHash
		b.pending = append(b.pending, lset)
		return true, nil
	}
	if b.seen == b.received && b.seenHash != b.hash {
		return false, b.disagree()
	}
	return false, nil
}

func (b *blockSet) end(series uint64) error {
	if uint64(b.seen) != series {
		return fmt.Errorf("block %s: %d series came of %d", b.name, b.seen, series)
	}
	if b.seen < b.received {
		return b.disagree()
	}
	b.ended = true
	return nil
}

// disagree is no reason to ask a third member: one of two has shown something that the block does not hold.
func (b *blockSet) disagree() error {
	return errkind.New(errkind.Corrupt, "block %s of tenant %s: two store-gateways read different series from it",
		b.name, b.sel.s.tenant)
}

// chained is the hash of a list of series from that of the list without the last one.
func chained(before uint64, lset labels.Labels) uint64 {
	var d xxhash.Digest
	d.ResetWithSeed(before)
	lset.Range(func(l labels.Label) {
		_, _ = d.WriteString(l.Name) // never fails
		_, _ = d.Write([]byte{0xff})
		_, _ = d.WriteString(l.Value)
		_, _ = d.Write([]byte{0xff})
	})
	return d.Sum64()
}

// At implements storage.ChunkSeriesSet.
func (b *blockSet) At() storage.ChunkSeries { return b.current }

// Err implements storage.ChunkSeriesSet.
func (b *blockSet) Err() error { return b.err }

// Warnings implements storage.ChunkSeriesSet; there are none.
func (*blockSet) Warnings() annotations.Annotations { return nil }

// series is a series of a block; its chunks come when they are iterated.
type series struct {
	set     *blockSet
	ordinal int
	lset    labels.Labels
}

// Labels implements storage.ChunkSeries.
func (s *series) Labels() labels.Labels { return s.lset }

// Iterator implements storage.ChunkSeries.
func (s *series) Iterator(reuse chunks.Iterator) chunks.Iterator {
	it, ok := reuse.(*chunkIterator)
	if !ok {
		it = &chunkIterator{}
	}
	*it = chunkIterator{series: s}
	return it
}

// chunkIterator iterates over the chunks of a series. Chunks stay valid for ever.
type chunkIterator struct {
	series *series
	at     chunks.Meta
	ready  []chunks.Meta
	next   int  // number of the chunk behind those in ready
	whole  bool // there is no chunk behind those in ready
	err    error
}

// At implements chunks.Iterator.
func (it *chunkIterator) At() chunks.Meta { return it.at }

// Err implements chunks.Iterator.
func (it *chunkIterator) Err() error { return it.err }

// Next implements chunks.Iterator.
func (it *chunkIterator) Next() bool {
	for it.err == nil && len(it.ready) == 0 {
		if it.whole {
			return false
		}
		it.ready, it.whole, it.err = it.series.set.chunks(it.series.ordinal, it.next)
		it.next += len(it.ready)
	}
	if it.err != nil {
		return false
	}
	it.at, it.ready = it.ready[0], it.ready[1:]
	return true
}
