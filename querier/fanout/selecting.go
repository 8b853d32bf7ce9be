package fanout

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/duramendb/duramen/duramenpb"
)

// stream is the answer of one member to a Select, standing at its next series.
type stream struct {
	selection duramenpb.Selection
	member    string
	zone      string
	end       context.CancelCauseFunc
	next      storage.ChunkSeries
	labels    labels.Labels
	n         int // series so far
}

// advance moves to the next series. An answer that is not whole is an error.
func (s *stream) advance() (more bool, err error) {
	if s.selection.Series.Next() {
		s.next = s.selection.Series.At()
		s.labels = s.next.Labels()
		s.n++
		return true, nil
	}
	s.next = nil
	return false, s.selection.Series.Err()
}

func (s *stream) close() {
	s.selection.Close()
	if s.end != nil {
		s.end(nil)
	}
}

// selecting merges the answers of a quorum by the labels of their series, in one merge, as they come. What it holds of
// those that were not read yet is bounded by the streams' own windows. One goroutine uses it.
type selecting struct {
	s       *session
	ctx     context.Context //nolint:containedctx // of the Select, which its set outlives
	streams []*stream
	heap    []*stream // those that have a next series, the first by labels in front
	current []storage.ChunkSeries
	taken   []*stream // that stand at the current series and have to advance
	err     error
	done    bool
	closed  bool
}

// start opens the answers of a quorum.
func (s *session) start(ctx context.Context, hints *storage.SelectHints, matchers []*labels.Matcher) (*selecting, error) {
	got, err := askAgain(ctx, s, question[*stream]{
		what: "select", keep: true, drop: (*stream).close,
		ask: func(ctx context.Context, m Member) (*stream, error) {
			selection, err := m.Select(ctx, s.tenantID, s.view, s.mint, s.maxt, hints, matchers...)
			if err != nil {
				return nil, err
			}
			st := &stream{selection: selection}
			if _, err := st.advance(); err != nil {
				st.close()
				return nil, err
			}
			return st, nil
		},
	})
	if err != nil {
		return nil, err
	}
	sel := &selecting{s: s, ctx: ctx}
	for _, r := range got.replies {
		st := r.value
		st.member, st.zone, st.end = r.member.ID, r.zone, r.end
		sel.streams = append(sel.streams, st)
		if !st.selection.Held.Fits(s.view, s.mint) {
			err = errors.Join(err, outgrown(st.member, st.selection.Held))
		}
	}
	if err != nil {
		sel.close()
		return nil, err
	}
	for _, st := range sel.streams {
		if st.next != nil {
			sel.push(st)
		}
	}
	s.open = append(s.open, sel)
	return sel, nil
}

// close ends all streams. Further calls do nothing.
func (sel *selecting) close() {
	if sel.closed {
		return
	}
	sel.closed = true
	for _, st := range sel.streams {
		sel.s.f.metrics.series.WithLabelValues(st.zone).Add(float64(st.n))
		st.close()
	}
}

// step moves to the next series, whose sources are current then.
func (sel *selecting) step() bool {
	if sel.err != nil || sel.done {
		return false
	}
	for _, st := range sel.taken {
		more, err := st.advance()
		if err != nil {
			sel.fail(st, err)
			return false
		}
		if more {
			sel.push(st)
		}
	}
	sel.taken = sel.taken[:0]
	if len(sel.heap) == 0 {
		sel.done = true
		return false
	}
	sel.current = make([]storage.ChunkSeries, 0, min(len(sel.heap), sel.s.ring.RF()))
	for first := sel.heap[0].labels; len(sel.heap) > 0 && labels.Equal(sel.heap[0].labels, first); {
		st := sel.pop()
		sel.current = append(sel.current, st.next)
		sel.taken = append(sel.taken, st)
	}
	return true
}

// fail ends the set with what a stream ended with.
func (sel *selecting) fail(st *stream, err error) {
	if sel.ctx.Err() != nil {
		sel.err = fmt.Errorf("ingester %s: %w", st.member, context.Cause(sel.ctx))
		return
	}
	if m, ok := sel.s.ring.Get(st.member); ok && away(err) {
		sel.s.f.health.suspects(&m, err.Error())
	}
	sel.s.f.metrics.broken.Inc()
	sel.err = broken(st.member, err)
}

func (sel *selecting) warnings() (all annotations.Annotations) {
	for _, st := range sel.streams {
		all.Merge(st.selection.Series.Warnings())
	}
	return all
}

// push puts a stream into the heap.
func (sel *selecting) push(st *stream) {
	h := append(sel.heap, st)
	i := len(h) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if labels.Compare(h[parent].labels, h[i].labels) <= 0 {
			break
		}
		h[parent], h[i] = h[i], h[parent]
		i = parent
	}
	sel.heap = h
}

// pop takes the first stream off the heap, which is not empty.
func (sel *selecting) pop() *stream {
	h := sel.heap
	st, last := h[0], len(h)-1
	h[0] = h[last]
	h = h[:last]
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			break
		}
		if child+1 < last && labels.Compare(h[child+1].labels, h[child].labels) < 0 {
			child++
		}
		if labels.Compare(h[i].labels, h[child].labels) <= 0 {
			break
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
	sel.heap = h
	return st
}
