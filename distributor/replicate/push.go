package replicate

import (
	"context"
	"sync"
	"time"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/tracing"
)

// Above these sizes a push's memory is left to the garbage collector.
const maxPooledItems = 32 << 10

// push is one batch on its way. It is taken from a pool and given back when Push returns; what members have not answered
// by then goes on without it.
type push struct {
	r      *Replicator
	id     string
	b      *duramenpb.Batch
	minute uint32

	table       *table
	placement   *placement
	incarnation uint64
	// handles are those of the batch's series; 0 for a series that the table does not know or has no room for.
	handles  []handle
	labelled []int32 // series with labels
	unplaced []int32 // series whose entries follow an older placement
	opened   []*section
	fresh    []*section // encoded, and not sent yet
	touched  uint32
	sends    *sends
	deadline time.Time
	timer    *time.Timer
	signal   chan struct{} // something has happened for the goroutine of Push to do

	mu     sync.Mutex
	ledger ledger
	flying []*section         // sections on their way
	failed []*section         // sections that failed, to go again when somebody needs their answer
	stale  []*section         // sections answered, with series that have to go again with labels
	moved  map[int32][]uint32 // items whose replicas are others than in placement
}

type pushPool struct{ pool sync.Pool }

// get returns a push of b; put must be called on it.
func (pool *pushPool) get(r *Replicator, id string, b *duramenpb.Batch) *push {
	p, _ := pool.pool.Get().(*push)
	if p == nil {
		p = &push{signal: make(chan struct{}, 1)}
	}
	p.r, p.id, p.b = r, id, b
	p.minute = uint32(r.now().Unix() / 60)
	return p
}

func (pool *pushPool) put(p *push) {
	if cap(p.ledger.items) > maxPooledItems || cap(p.handles) > maxPooledItems {
		return
	}
	select {
	case <-p.signal:
	default:
	}
	clear(p.ledger.refused)
	clear(p.opened)
	p.r, p.b, p.table, p.placement, p.sends = nil, nil, nil, nil, nil
	p.id, p.incarnation, p.touched = "", 0, 0
	p.handles, p.labelled, p.unplaced = p.handles[:0], p.labelled[:0], p.unplaced[:0]
	p.fresh, p.flying, p.failed, p.stale = empty(p.fresh), empty(p.flying), empty(p.failed), empty(p.stale)
	p.ledger.items = p.ledger.items[:0]
	clear(p.moved)
	pool.pool.Put(p)
}

func empty(s []*section) []*section {
	clear(s)
	return s[:0]
}

// run takes the batch the whole way.
func (p *push) run(ctx context.Context, res *duramenpb.PushResult) error {
	if p.r.inflight.Load() >= p.r.cfg.MaxInflightBytes {
		return unavailable(errInflight)
	}
	began := time.Now()
	p.deadline = began.Add(p.r.cfg.PushTimeout)
	if err := p.routeInTime(ctx, res); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		p.discard()
		return err
	}
	p.sends = &sends{}
	p.sends.ctx, p.sends.cancel = context.WithDeadline(context.WithoutCancel(ctx), began.Add(p.r.cfg.LateTimeout))
	p.sends.open.Store(1)
	p.ledger.begin(p.placement.view.ring.Quorum())
	p.launch(p.fresh)
	p.fresh = p.fresh[:0]
	err := p.wait(ctx)
	p.leave()
	p.sends.end()
	if err != nil {
		return err
	}
	return p.verdict(res)
}

// ringPoll is how often a push without enough zones looks for another ring.
const ringPoll = 20 * time.Millisecond

// routeInTime encodes the batch. While the ring has too few zones that take writes it waits for another one: when one
// ingester stops as soon as another is back, not everybody has heard of both in that order.
func (p *push) routeInTime(ctx context.Context, res *duramenpb.PushResult) error {
	for {
		err := p.route(res)
		if err == nil {
			return nil
		}
		p.discard()
		p.handles, p.labelled, p.unplaced = p.handles[:0], p.labelled[:0], p.unplaced[:0]
		p.ledger.items, p.fresh = p.ledger.items[:0], empty(p.fresh)
		res.Stale = res.Stale[:0]
		if !p.waitForRing(ctx) {
			return err
		}
	}
}

// waitForRing returns true when there is another ring, and false when there is no time left.
func (p *push) waitForRing(ctx context.Context) bool {
	tick := time.NewTicker(ringPoll)
	defer tick.Stop()
	for p.placement.view == p.r.view() {
		if !time.Now().Before(p.deadline) {
			return false
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// verdict fills res from the ledger, which nobody changes any more.
func (p *push) verdict(res *duramenpb.PushResult) error {
	if err := p.ledger.verdict(p.b, res); err != nil {
		return errkind.Wrap(errkind.Internal, err)
	}
	res.Incarnation, res.Restarts = p.incarnation, p.table.restarts.Load()
	res.Refs = res.Refs[:0]
	for i := range p.b.Series {
		if ref := p.b.Series[i].Ref; ref != 0 && p.handles[i] == 0 {
			res.Refs = append(res.Refs, 0) // stale
			continue
		}
		res.Refs = append(res.Refs, uint64(p.handles[i]))
	}
	if len(p.labelled) > 0 {
		for i := range p.ledger.items {
			if it := &p.ledger.items[i]; it.series >= 0 && p.b.Series[it.series].Ref == 0 && !it.held {
				res.Refs[it.series] = 0
			}
		}
	}
	return nil
}

// launch sends sections that belong to the push from now on. Their answers may come at once.
func (p *push) launch(fresh []*section) {
	p.mu.Lock()
	for _, s := range fresh {
		s.owner.Store(p)
		p.flying = append(p.flying, s)
	}
	p.mu.Unlock()
	for _, s := range fresh {
		s.send(p.sends)
	}
}

// discard drops sections that were not sent.
func (p *push) discard() {
	for _, s := range p.fresh {
		s.release()
	}
	for i, s := range p.opened {
		if s != nil {
			s.release()
			p.opened[i] = nil
		}
	}
}

// wake tells the goroutine of Push that there is something to do.
func (p *push) wake() {
	select {
	case p.signal <- struct{}{}:
	default:
	}
}

// take enters the answer for a section. The caller holds the lock.
func (p *push) take(s *section, res *duramenpb.PushResult, err error) {
	p.land(s)
	if err == nil && len(res.Refused)+len(res.Stale) > 0 {
		if err = s.refusals(&p.ledger, res); err != nil {
			s.to.fails.Inc()
		}
	}
	if err != nil {
		s.err = err
		s.next = time.Now().Add(backoff(s.tries))
		s.tries++
		p.ledger.failed(s.items)
		p.failed = append(p.failed, s)
		p.wake()
		return
	}
	p.takeVerdict(s, res)
	if p.ledger.undecided == 0 || len(p.flying) == 0 || len(p.stale) > 0 {
		p.wake()
	}
}

// takeVerdict enters a verdict that accounts for every sample of the section.
func (p *push) takeVerdict(s *section, res *duramenpb.PushResult) {
	for _, j := range s.labelled {
		if len(res.Refs) == len(s.handles) && res.Refs[j] != 0 {
			p.ledger.items[s.items[j]].held = true
		}
	}
	if s.exemplars > 0 && res.Exemplars >= s.exemplars {
		for _, i := range s.items {
			p.ledger.items[i].examples++
		}
	}
	if len(res.Stale) == 0 {
		p.ledger.answered(s.items)
		s.release()
		return
	}
	at := 0
	for j := range s.items {
		if at < len(res.Stale) && res.Stale[at] == j {
			at++
			s.stale = append(s.stale, int32(j))
			continue
		}
		p.ledger.answered(s.items[j : j+1])
	}
	p.stale = append(p.stale, s)
}

// land takes a section out of those that are on their way. The caller holds the lock.
func (p *push) land(s *section) {
	last := len(p.flying) - 1
	for i, other := range p.flying {
		if other == s {
			p.flying[i], p.flying[last] = p.flying[last], nil
			p.flying = p.flying[:last]
			return
		}
	}
}

// leave parts with what is not answered: it goes on without the push.
func (p *push) leave() {
	p.mu.Lock()
	p.r.outlive(len(p.flying) + len(p.stale))
	for _, s := range p.flying {
		p.r.addLate(s, s.accounted)
		s.owner.Store(nil) // From here on the answer releases it.
	}
	p.flying = empty(p.flying)
	p.mu.Unlock()
	for _, s := range p.failed {
		s.release()
	}
	for _, s := range p.stale {
		p.r.resendLate(s)
	}
}

func (p *push) endSpan(span tracing.Span, res *duramenpb.PushResult, err error) {
	if !span.Recording() {
		return
	}
	span.String("tenant", p.id)
	span.Int("series", int64(len(p.b.Series)))
	span.Int("series.labelled", int64(len(p.labelled)))
	span.Int("samples", int64(len(p.b.Floats)+len(p.b.Histograms)))
	span.Int("samples.stored", int64(res.Floats+res.Histograms))
	span.Fail(err)
	span.End()
}
