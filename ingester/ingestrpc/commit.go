package ingestrpc

import (
	"context"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/tracing"
)

const (
	// maxTogether bounds what is pushed at once: beyond it the cost of a push is nothing beside that of its samples.
	maxTogether = 1 << 20
	// pushesAtOnce bounds the pushes that run. Those of one tenant follow one another anyway; a push that waits for the
	// tenant's disk must not hold up others.
	pushesAtOnce = 32
	// keptFloats is how large a batch may become and yet be kept for the next one.
	keptFloats = 256 << 10
)

// Pusher stores batches: an ingester.
type Pusher interface {
	Push(ctx context.Context, tenantID string, b *duramenpb.Batch, r *duramenpb.PushResult) error
}

// arrival is a section that waits to be stored.
type arrival struct {
	tenant      string
	incarnation uint64
	section     []byte
	deadline    time.Time // zero for none
	to          answerer
	number      uint64
	span        tracing.Span // from the arrival to the answer; commit ends it

	err error // why it is in no batch
}

// answerer takes what became of a section. It is called once, must be quick, and verdict is valid during the call.
type answerer interface {
	answer(a *arrival, verdict []byte, err error)
}

// committer collects the sections that arrive while a push of their tenant runs, and pushes them together: one append lock,
// one commit and one record in the log for all of them. Sections of a tenant are stored in the order of put.
type committer struct {
	pusher  Pusher
	log     *slog.Logger
	metrics *serverMetrics

	slots   chan struct{}
	working sync.WaitGroup
	pool    sync.Pool // of *commit

	mu      sync.Mutex
	waiting map[string][]*arrival // by tenant, of those for whom a goroutine runs
}

func newCommitter(pusher Pusher, log *slog.Logger, m *serverMetrics) *committer {
	return &committer{
		pusher: pusher, log: log, metrics: m, slots: make(chan struct{}, pushesAtOnce),
		pool: sync.Pool{New: func() any { return &commit{} }}, waiting: map[string][]*arrival{},
	}
}

// put takes a section over until its answer. It never waits; who calls bounds what is put.
func (c *committer) put(a *arrival) {
	c.mu.Lock()
	defer c.mu.Unlock()
	queue, running := c.waiting[a.tenant]
	c.waiting[a.tenant] = append(queue, a)
	if !running {
		c.working.Go(func() { c.serve(a.tenant) })
	}
}

// wait returns when every section has its answer and nothing runs.
func (c *committer) wait() { c.working.Wait() }

// serve stores what arrives for a tenant until nothing is left.
func (c *committer) serve(tenantID string) {
	for c.round(tenantID) {
	}
}

func (c *committer) round(tenantID string) bool {
	c.slots <- struct{}{}
	defer func() { <-c.slots }()
	w, _ := c.pool.Get().(*commit)
	defer c.giveBack(w)
	if w.take(c, tenantID); len(w.arrivals) == 0 {
		return false
	}
	w.run(c, tenantID)
	return true
}

func (c *committer) giveBack(w *commit) {
	w.reset()
	clear(w.arrivals)
	w.arrivals = w.arrivals[:0]
	if cap(w.batch.Floats) <= keptFloats && cap(w.batch.Series) <= keptFloats {
		c.pool.Put(w)
	}
}

// commit is a push of sections of one tenant.
type commit struct {
	arrivals []*arrival
	answered int // arrivals that have their answer

	decoder duramenpb.SectionDecoder
	batch   duramenpb.Batch
	parts   []part
	result  duramenpb.PushResult
	verdict []byte
}

// part is a section's share of the batch.
type part struct {
	a  *arrival
	at duramenpb.Range
}

// take moves sections of a tenant that wait into w, the oldest first. When there are none the tenant has no goroutine any
// more.
func (w *commit) take(c *committer, tenantID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	queue := c.waiting[tenantID]
	if len(queue) == 0 {
		delete(c.waiting, tenantID)
		return
	}
	n, size := 0, 0
	for n < len(queue) && (n == 0 || size+len(queue[n].section) <= maxTogether) {
		size += len(queue[n].section)
		n++
	}
	w.arrivals = append(w.arrivals[:0], queue[:n]...)
	c.waiting[tenantID] = slices.Delete(queue, 0, n)
}

// run pushes the sections, as many at a time as have references of one life of the tenant, and answers each.
func (w *commit) run(c *committer, tenantID string) {
	w.answered = 0
	defer func() {
		if p := recover(); p != nil {
			c.metrics.panics.Inc()
			c.log.Error("push panicked", "tenant", tenantID, "panic", p, "stack", string(debug.Stack()))
			err := errkind.New(errkind.Internal, "internal error: a push panicked; the log of the ingester has the details")
			for _, a := range w.arrivals[w.answered:] {
				w.answer(a, nil, err)
			}
		}
	}()
	for w.answered < len(w.arrivals) {
		next := w.decode(w.arrivals[w.answered:])
		err := w.push(c, tenantID)
		if len(next) > 1 && err != nil && !errkind.Of(err).Retry() {
			w.each(c, tenantID, next) // one of them may be to blame
			continue
		}
		w.tell(next, err)
	}
}

// each pushes sections one by one.
func (w *commit) each(c *committer, tenantID string, arrivals []*arrival) {
	for i := range arrivals {
		one := w.decode(arrivals[i : i+1])
		w.tell(one, w.push(c, tenantID))
	}
}

func (w *commit) reset() {
	b := &w.batch
	clear(b.Series)
	clear(b.Histograms)
	clear(b.Exemplars)
	clear(b.Metadata)
	clear(w.parts)
	*b = duramenpb.Batch{
		Series: b.Series[:0], Floats: b.Floats[:0], Histograms: b.Histograms[:0], Exemplars: b.Exemplars[:0],
		Metadata: b.Metadata[:0],
	}
	w.parts = w.parts[:0]
	clear(w.result.Refused)
	w.result.Reset()
}

// decode fills the batch with the first of arrivals that fit together and returns them. Those that cannot be decoded have
// their err, and no part.
func (w *commit) decode(arrivals []*arrival) []*arrival {
	w.reset()
	b := &w.batch
	for i, a := range arrivals {
		if a.incarnation != 0 && b.Incarnation != 0 && a.incarnation != b.Incarnation {
			return arrivals[:i]
		}
		before, metadata := b.All(), len(b.Metadata)
		if a.err = w.add(a); a.err != nil {
			b.Series, b.Floats = b.Series[:before.Series[1]], b.Floats[:before.Floats[1]]
			b.Histograms, b.Exemplars = b.Histograms[:before.Histograms[1]], b.Exemplars[:before.Exemplars[1]]
			b.Metadata = b.Metadata[:metadata]
			continue
		}
		b.Incarnation = max(b.Incarnation, a.incarnation) // one of them is 0, or they are equal
		at := b.All()
		at.Series[0], at.Floats[0] = before.Series[1], before.Floats[1]
		at.Histograms[0], at.Exemplars[0] = before.Histograms[1], before.Exemplars[1]
		w.parts = append(w.parts, part{a, at})
	}
	return arrivals
}

// add decodes a section, unless nobody waits for its answer any more.
func (w *commit) add(a *arrival) error {
	if !a.deadline.IsZero() && time.Now().After(a.deadline) {
		return errkind.Wrap(errkind.Unavailable, errLate)
	}
	if err := w.decoder.Decode(a.section, &w.batch); err != nil {
		return undecodable(err)
	}
	return nil
}

// push pushes the batch. The last deadline of its sections holds for it.
func (w *commit) push(c *committer, tenantID string) error {
	if len(w.parts) == 0 {
		return nil
	}
	ctx := w.together(context.Background())
	latest := w.parts[0].a.deadline
	for _, p := range w.parts {
		if p.a.deadline.IsZero() {
			latest = time.Time{}
			break
		}
		if p.a.deadline.After(latest) {
			latest = p.a.deadline
		}
	}
	if !latest.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, latest)
		defer cancel()
	}
	c.metrics.pushes.Inc()
	return c.pusher.Push(ctx, tenantID, &w.batch, &w.result)
}

// tell answers the sections of a push: err is the push's. Exemplars are counted for the push alone, and shared out in order.
func (w *commit) tell(arrivals []*arrival, err error) {
	exemplars, n := w.result.Exemplars, 0
	for _, a := range arrivals {
		if a.err != nil {
			w.answer(a, nil, a.err)
			continue
		}
		at := w.parts[n].at
		n++
		if err != nil {
			w.answer(a, nil, err)
			continue
		}
		own := min(exemplars, at.Exemplars[1]-at.Exemplars[0])
		exemplars -= own
		w.verdict = duramenpb.AppendResult(w.verdict[:0], &w.batch, &w.result, at, own)
		w.answer(a, w.verdict, nil)
	}
}

func (w *commit) answer(a *arrival, verdict []byte, err error) {
	w.answered++
	a.endSpan(err)
	a.to.answer(a, verdict, err)
}
