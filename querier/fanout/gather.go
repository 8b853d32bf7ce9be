package fanout

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/ring"
)

// question is what all members of a quorum's zones are asked.
type question[T any] struct {
	what string // for errors
	// mint is where the query begins, in milliseconds: what was lost above it matters.
	mint int64
	// first are zones to ask before others, beside the own one.
	first []string
	// every asks all zones at once and takes the answers of all that are not away or slow, a quorum at least.
	every bool
	ask   func(ctx context.Context, m Member) (T, error)
	// keep says that an answer needs the context of its call for longer; reply.end ends it then.
	keep bool
	// drop gives up an answer that is not wanted any more; nil needs none.
	drop func(T)
	// limit ends the wait for a member; 0 leaves it to the context.
	limit time.Duration
	// timed says that an answer takes a member as long as a plan does, so that a slow one is noticed by that. When it is not
	// set, probe is asked of a member that takes long, and only one that does not answer that is slow.
	timed bool
	probe func(ctx context.Context, m Member) error
}

// reply is an answer of a member.
type reply[T any] struct {
	zone   string
	member ring.Member
	value  T
	// end ends the context of the call, which the answer may still need.
	end context.CancelCauseFunc
}

// gathered is a quorum's answer, by zone in the order of the ring, and by member within.
type gathered[T any] struct {
	ring    *ring.Ring
	zones   []string
	replies []reply[T]
}

// gatherPatiently is gather over the ring as it is at each time, and waits a little for members to come back.
func gatherPatiently[T any](ctx context.Context, f *Fanout, q question[T]) (gathered[T], error) {
	until, pause := time.Now().Add(f.cfg.QuorumWait), firstPause
	for {
		got, err := gather(ctx, f, f.rings.Ring(), q)
		var few *quorumError
		if err == nil || !errors.As(err, &few) || !time.Now().Before(until) {
			return got, err
		}
		select {
		case <-ctx.Done():
			return got, errors.Join(ctx.Err(), err)
		case <-time.After(min(pause, time.Until(until))):
			pause = min(2*pause, maxPause)
		}
	}
}

// gather asks all members of as many zones as a quorum takes. A zone of which a member fails is replaced at once, one of
// which a member is slow is hedged by another; whoever is complete first is the answer. The error is a quorumError when no
// zone is left to ask. The goroutines of calls that are given up end with their contexts, and Fanout.Close waits for them.
func gather[T any](ctx context.Context, f *Fanout, r *ring.Ring, q question[T]) (gathered[T], error) {
	f.health.forget(r)
	order := choice{first: q.first, suspect: func(z ring.Zone) int { return f.suspects(r, z) }}
	if len(order.first) == 0 {
		order.first, order.turn = []string{f.zone}, f.turn.Add(1)
	}
	c := choose(r, q.mint, order)
	members := 0
	for _, z := range c.zones {
		members += len(z.Members)
	}
	g := &gathering[T]{
		f: f, q: q, ctx: ctx, c: c, ring: r,
		inbox: &inbox[T]{events: make(chan event[T], 2*members), drop: q.drop},
	}
	defer g.inbox.close()
	for _, m := range c.missing {
		f.metrics.missing.WithLabelValues(missingLost).Inc()
		f.log.DebugContext(ctx, "zone does not count", "zone", m.zone, "why", m.why)
	}
	if q.probe != nil {
		f.probeSuspects(r, q.probe)
	}
	return g.run()
}

// event is what a call of a member came to, or its probe.
type event[T any] struct {
	zone   int
	member int
	value  T
	err    error
	probe  bool
}

// inbox takes what calls come to. What arrives after close is dropped. Its channel has room for all events.
type inbox[T any] struct {
	mu     sync.Mutex
	closed bool
	events chan event[T]
	drop   func(T)
}

func (b *inbox[T]) put(e event[T]) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.events <- e
		return
	}
	b.refuse(e)
}

func (b *inbox[T]) refuse(e event[T]) {
	if e.err == nil && !e.probe && b.drop != nil {
		b.drop(e.value)
	}
}

func (b *inbox[T]) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for len(b.events) > 0 {
		b.refuse(<-b.events)
	}
}

// asked is a zone that was asked.
type asked[T any] struct {
	zone    ring.Zone
	replies []reply[T]
	waiting map[int]bool // members that have not answered, by index
	began   time.Time
	failed  bool
	// hedgeAt is when another zone is asked as well, or when the waiting members are probed; hedged says that it was.
	hedgeAt time.Time
	probes  int // that have not answered
	hedged  bool
}

func (z *asked[T]) complete() bool { return !z.failed && len(z.waiting) == 0 }

// due reports that something is done about the zone at hedgeAt. Once it is hedged there is nothing but to probe it, and
// no second probe while one is out.
func (z *asked[T]) due(timed bool) bool {
	return !z.failed && len(z.waiting) > 0 && (!z.hedged || !timed && z.probes == 0)
}

// gathering is the state of one gather; one goroutine has it.
type gathering[T any] struct {
	f      *Fanout
	q      question[T]
	ctx    context.Context //nolint:containedctx // lives as long as the call
	ring   *ring.Ring
	c      candidates
	inbox  *inbox[T]
	asked  []*asked[T] // the first of c.zones
	failed []missing
	// limited is how many zones have failed because a member answers as many reads as it may, retryAfter how long such ones
	// ask to wait.
	limited    int
	retryAfter time.Duration
}

func (g *gathering[T]) run() (got gathered[T], err error) {
	defer func() {
		if err != nil {
			g.giveUp(func(*asked[T]) bool { return false })
		}
	}()
	first := g.c.need
	if g.q.every {
		first = len(g.c.zones)
	}
	for len(g.asked) < min(first, len(g.c.zones)) {
		g.next()
	}
	for {
		whole, wanted, possible := 0, 0, len(g.c.zones)-len(g.asked)
		for _, z := range g.asked {
			if z.complete() {
				whole++
			}
			if !z.failed {
				possible++
			}
			if g.q.every && !z.failed && !z.complete() && !z.hedged {
				wanted++
			}
		}
		switch {
		case whole >= g.c.need && wanted == 0:
			return g.finish(), nil
		case possible < g.c.need:
			return got, g.short()
		}
		if err := g.wait(); err != nil {
			return got, err
		}
	}
}

// short is the error when a quorum is not possible any more. When nothing is wrong but that there is too much to read, the
// client is told so, as one ingester alone would.
func (g *gathering[T]) short() error {
	g.f.metrics.noQuorum.Inc()
	err := noQuorum(g.ring, g.c, g.failed)
	if g.limited > 0 && g.limited == len(g.failed) {
		return &errkind.Error{Kind: errkind.Limited, RetryAfter: g.retryAfter, Err: err}
	}
	return &errkind.Error{Kind: errkind.Unavailable, RetryAfter: retryAfter, Err: err}
}

// next asks the next zone, if there is one.
func (g *gathering[T]) next() bool {
	if len(g.asked) == len(g.c.zones) {
		return false
	}
	z := &asked[T]{zone: g.c.zones[len(g.asked)], waiting: map[int]bool{}, began: time.Now()}
	number := len(g.asked)
	g.asked = append(g.asked, z)
	z.replies = make([]reply[T], len(z.zone.Members))
	hedge := minHedge
	for i := range z.zone.Members {
		m := &z.zone.Members[i]
		z.waiting[i] = true
		hedge = max(hedge, g.f.health.hedgeAfter(m))
		ctx, end := context.WithCancelCause(g.ctx)
		z.replies[i] = reply[T]{zone: z.zone.Name, member: *m, end: end}
		g.call(ctx, number, i)
	}
	z.hedgeAt = z.began.Add(hedge)
	return true
}

// call asks one member in a goroutine of its own.
func (g *gathering[T]) call(ctx context.Context, zone, member int) {
	m, q, f, inbox := g.asked[zone].zone.Members[member], g.q, g.f, g.inbox
	limit := q.limit
	if limit > 0 && f.health.suspect(&m) {
		limit = min(limit, suspectTimeout)
	}
	f.calls.Go(func() {
		if limit > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeoutCause(ctx, limit, errTooSlow)
			defer cancel()
		}
		began := time.Now()
		value, err := q.ask(ctx, f.members.Member(m))
		if cause := context.Cause(ctx); err != nil && cause != nil {
			err = cause
		}
		switch {
		case err == nil && q.timed:
			f.health.answered(&m, time.Since(began))
		case err != nil && away(err) && !ended(err):
			f.health.suspects(&m, err.Error())
		}
		inbox.put(event[T]{zone: zone, member: member, value: value, err: err})
	})
}

// wait takes the next event, or what is due by the clock.
func (g *gathering[T]) wait() error {
	var due <-chan time.Time
	if at, ok := g.due(); ok {
		timer := time.NewTimer(time.Until(at))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-g.ctx.Done():
		return fmt.Errorf("%s: ingesters have not answered: %w", g.q.what, context.Cause(g.ctx))
	case e := <-g.inbox.events:
		return g.take(e)
	case <-due:
		g.hedge(time.Now())
		return nil
	}
}

// due is when the next zone is to be hedged or probed.
func (g *gathering[T]) due() (at time.Time, ok bool) {
	for _, z := range g.asked {
		if z.due(g.q.timed) && (!ok || z.hedgeAt.Before(at)) {
			at, ok = z.hedgeAt, true
		}
	}
	return at, ok
}

func (g *gathering[T]) take(e event[T]) error {
	z := g.asked[e.zone]
	if e.probe {
		if z.probes--; z.probes == 0 {
			z.hedgeAt = time.Now().Add(probeEvery)
		}
		if e.err == nil || z.failed || !z.waiting[e.member] {
			return nil
		}
	} else if e.err == nil {
		if z.failed {
			g.inbox.refuse(e)
			return nil
		}
		delete(z.waiting, e.member)
		z.replies[e.member].value = e.value
		return nil
	}
	if g.ctx.Err() != nil {
		return fmt.Errorf("%s: %w", g.q.what, context.Cause(g.ctx))
	}
	if z.failed {
		return nil
	}
	m := z.zone.Members[e.member]
	if !e.probe && final(e.err) {
		return fmt.Errorf("ingester %s: %w", m.ID, e.err)
	}
	if errkind.Of(e.err) == errkind.Limited {
		g.limited++
		g.retryAfter = max(g.retryAfter, errkind.RetryAfter(e.err))
	}
	g.fail(z, missing{z.zone.Name, fmt.Sprintf("ingester %s (%s): %s", m.ID, m.Address, e.err)})
	return nil
}

// fail gives a zone up and asks another in its place.
func (g *gathering[T]) fail(z *asked[T], why missing) {
	z.failed = true
	g.drop(z)
	g.failed = append(g.failed, why)
	g.f.metrics.missing.WithLabelValues(missingAway).Inc()
	g.f.log.DebugContext(g.ctx, "zone does not answer in full", "zone", why.zone, "why", why.why)
	if z.hedged {
		return // its place is taken already
	}
	if g.next() {
		g.f.metrics.failovers.Inc()
	}
}

// hedge asks another zone beside those that are slow, or finds out first whether they are alive.
func (g *gathering[T]) hedge(now time.Time) {
	for number, z := range g.asked {
		switch {
		case z.failed || z.complete() || z.hedged || z.hedgeAt.After(now):
		case !z.hedged && (g.q.timed || z.probes > 0):
			z.hedged = true
			for i := range z.waiting {
				g.f.health.suspects(&z.zone.Members[i], "slow: no answer after "+now.Sub(z.began).Round(time.Millisecond).String())
			}
			if g.next() {
				g.f.metrics.hedges.Inc()
			}
		default:
			wait := minHedge
			for i := range z.waiting {
				wait = max(wait, g.f.health.hedgeAfter(&z.zone.Members[i]))
				g.probe(number, i)
			}
			z.hedgeAt = now.Add(wait)
		}
	}
}

// probe asks something small of a member that takes long. One that does not answer even that is away.
func (g *gathering[T]) probe(zone, member int) {
	z, f, inbox, probe := g.asked[zone], g.f, g.inbox, g.q.probe
	m := z.zone.Members[member]
	z.probes++
	ctx, cancel := context.WithTimeoutCause(g.ctx, probeTimeout, errSilent)
	f.calls.Go(func() {
		defer cancel()
		err := f.probe(ctx, m, probe)
		inbox.put(event[T]{zone: zone, member: member, err: err, probe: true})
	})
}

// finish returns the answers of the first zones that are complete, of all of them when every one was wanted, and gives the
// others up.
func (g *gathering[T]) finish() gathered[T] {
	got := gathered[T]{ring: g.ring}
	most := g.c.need
	if g.q.every {
		most = len(g.c.zones)
	}
	g.giveUp(func(z *asked[T]) bool {
		if !z.complete() || len(got.zones) == most {
			return false
		}
		got.zones = append(got.zones, z.zone.Name)
		got.replies = append(got.replies, z.replies...)
		return true
	})
	if g.q.keep {
		return got
	}
	for _, r := range got.replies {
		r.end(nil)
	}
	return got
}

// giveUp drops the zones that are not kept.
func (g *gathering[T]) giveUp(keep func(*asked[T]) bool) {
	for _, z := range g.asked {
		if !keep(z) && !z.failed {
			z.failed = true
			g.drop(z)
		}
	}
}

// drop ends the calls of a zone and gives up what came of them.
func (g *gathering[T]) drop(z *asked[T]) {
	for i, r := range z.replies {
		if !z.waiting[i] && g.q.drop != nil {
			g.q.drop(r.value)
		}
		r.end(errUnwanted)
	}
}
