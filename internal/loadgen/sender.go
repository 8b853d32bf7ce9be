package loadgen

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"time"

	"github.com/klauspost/compress/s2"
	"golang.org/x/sync/errgroup"

	"github.com/duramendb/duramen/internal/loadledger"
	"github.com/duramendb/duramen/internal/loadplan"
	"github.com/duramendb/duramen/internal/remotewrite"
)

// Config says how a plan is sent.
type Config struct {
	// Connections is how many requests are under way at a time. Each series belongs to one, so that it arrives in order.
	Connections int
	// Rate is the samples a second to aim for; 0 is as fast as the server takes them. What a pause left behind is caught up.
	Rate float64
	// Attempts is how often a request is sent at most; 0 is until it is answered for good. Sending again is safe.
	Attempts int
	// Spread is how far connections may be apart in the time of the samples: what falls behind further than a server's
	// out-of-order window would be refused.
	Spread time.Duration
}

// Validate checks the configuration.
func (c *Config) Validate() error {
	switch {
	case c.Connections < 1:
		return fmt.Errorf("%d connections: set at least 1", c.Connections)
	case c.Rate < 0 || math.IsNaN(c.Rate) || math.IsInf(c.Rate, 0):
		return fmt.Errorf("rate %v: set samples a second, or 0 for no limit", c.Rate)
	case c.Attempts < 0:
		return fmt.Errorf("%d attempts: set a number, or 0 for no limit", c.Attempts)
	case c.Spread < 0:
		return fmt.Errorf("spread %s: set a positive duration", c.Spread)
	}
	return nil
}

// Pusher sends one compressed request; remotewrite.Client is one. An error means that no answer came, and
// remotewrite.ErrRequest that none ever will.
type Pusher interface {
	Push(ctx context.Context, v remotewrite.Version, body []byte) (remotewrite.Answer, error)
}

// Notes remembers what became of requests; loadledger.Journal does. Claim is called before a scrape's requests are sent,
// Note for each of them in the order of scrapes of its chunk.
type Notes interface {
	Claim(scrape int) error
	Note(tenant, chunk, scrape int, f loadledger.Fate) error
}

// Options are what a run may be given beside its plan. The zero value has none.
type Options struct {
	// Notes is told every fate.
	Notes Notes
	// Ledger is that of an earlier run of the plan, which this one continues.
	Ledger *loadledger.Ledger
	// OnSamples is called with the number of samples whenever a request is settled, from all connections.
	OnSamples func(n int)
	// OnTrouble is called with a text, from all connections, when a request is refused or has to be sent again.
	OnTrouble func(text string)
}

var (
	// ErrNotStored means that the server does not speak the version of remote write, whatever status it answered.
	ErrNotStored = errors.New("the server does not store this version of remote write")
	// ErrTurnedAway means an answer that no repetition changes and that is not about the samples, such as 401 or 404.
	ErrTurnedAway = errors.New("the server turns requests away")
)

// Sender sends one plan.
type Sender struct {
	cfg  Config
	plan *loadplan.Plan
	to   []Pusher // by tenant
	opts Options

	begin time.Time
	first int // the scrape at which the earliest chunk begins
	steps *lockstep
}

// New checks cfg. There is one Pusher for each tenant of the plan.
func New(cfg Config, plan *loadplan.Plan, to []Pusher, opts Options) (*Sender, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if len(to) != len(plan.Tenants()) {
		return nil, fmt.Errorf("%d targets for %d tenants", len(to), len(plan.Tenants()))
	}
	if opts.OnSamples == nil {
		opts.OnSamples = func(int) {}
	}
	if opts.OnTrouble == nil {
		opts.OnTrouble = func(string) {}
	}
	return &Sender{cfg: cfg, plan: plan, to: to, opts: opts}, nil
}

// Run sends the plan and returns how that went, also when it ends early: because ctx is over, the notes cannot be written,
// no request can be built, or the server turns requests away. It is called once.
func (s *Sender) Run(ctx context.Context) (Report, error) {
	s.prepare()
	s.begin = time.Now()
	workers := make([]*worker, s.cfg.Connections)
	group, ctx := errgroup.WithContext(ctx)
	s.steps = newLockstep(len(workers), max(1, int(s.cfg.Spread/s.plan.Config().Interval)))
	defer context.AfterFunc(ctx, s.steps.wake)()
	for n := range workers {
		w := &worker{Sender: s, number: n}
		w.report.Statuses = map[int]int64{}
		workers[n] = w
		group.Go(func() error {
			defer s.steps.leave(n)
			return w.run(ctx)
		})
	}
	err := group.Wait()
	total := Report{Statuses: map[int]int64{}, Took: time.Since(s.begin)}
	for _, w := range workers {
		total.add(&w.report)
	}
	return total, err
}

// prepare builds the series of the first scrape, so that the first requests do not wait for it.
func (s *Sender) prepare() {
	s.first = s.plan.Config().Scrapes
	for tenant := range s.plan.Tenants() {
		for chunk := range s.plan.Chunks() {
			s.first = min(s.first, s.next(tenant, chunk))
		}
		if s.first < s.plan.Config().Scrapes {
			from, to := s.plan.AliveChunks(s.first)
			for chunk := from; chunk < to; chunk++ {
				s.plan.Prepare(tenant, chunk)
			}
		}
	}
}

// next returns the scrape that a chunk has to go on with.
func (s *Sender) next(tenant, chunk int) int {
	if s.opts.Ledger == nil {
		return 0
	}
	return s.opts.Ledger.Next(tenant, chunk)
}

// worker is one connection.
type worker struct {
	*Sender
	number    int
	raw, body []byte
	report    Report
}

// run sends every scrape of the chunks that are the worker's.
func (w *worker) run(ctx context.Context) error {
	tenants, forgotten := len(w.plan.Tenants()), 0
	for scrape := w.first; scrape < w.plan.Config().Scrapes; scrape++ {
		if err := w.enter(ctx, scrape); err != nil {
			return err
		}
		from, to := w.plan.AliveChunks(scrape)
		for ; forgotten < from; forgotten++ {
			for tenant := range tenants {
				if w.mine(tenant, forgotten) {
					w.plan.Forget(tenant, forgotten)
				}
			}
		}
		for chunk := from; chunk < to; chunk++ {
			for tenant := range tenants {
				if !w.mine(tenant, chunk) || scrape < w.next(tenant, chunk) {
					continue
				}
				position := ((chunk-from)*tenants + tenant) * w.plan.Config().PerRequest
				if err := w.pace(ctx, scrape, position); err != nil {
					return err
				}
				if err := w.send(ctx, request{tenant, chunk, scrape}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (w *worker) mine(tenant, chunk int) bool {
	return (chunk*len(w.plan.Tenants())+tenant)%w.cfg.Connections == w.number
}

// enter waits until a scrape may begin: the slowest connection is near, its samples are not of the future, and the notes
// know of it.
func (w *worker) enter(ctx context.Context, scrape int) error {
	if err := w.steps.enter(ctx, w.number, scrape); err != nil {
		return err
	}
	if err := wait(ctx, time.Until(time.UnixMilli(w.plan.Begin(scrape+1)))); err != nil {
		return err
	}
	if w.opts.Notes == nil {
		return nil
	}
	return w.opts.Notes.Claim(scrape)
}

// pace waits until it is the turn of a request. All connections share one schedule, so that they stay together.
func (w *worker) pace(ctx context.Context, scrape, position int) error {
	if w.cfg.Rate == 0 {
		return ctx.Err()
	}
	perScrape := int64(w.plan.PerScrape()) * int64(len(w.plan.Tenants()))
	before := float64(int64(scrape-w.first)*perScrape + int64(position))
	return wait(ctx, time.Until(w.begin.Add(time.Duration(before/w.cfg.Rate*float64(time.Second)))))
}

// request names one request: one scrape of a chunk of a tenant.
type request struct{ tenant, chunk, scrape int }

// The pause after an attempt that has to be repeated doubles from the first to the last: short enough to find a server that
// starts again, long enough not to hinder it. A server may ask for up to maxRetryAfter.
const (
	minPause      = 50 * time.Millisecond
	maxPause      = 2 * time.Second
	maxRetryAfter = time.Minute
)

// send sends a request until its fate is settled, and notes it.
func (w *worker) send(ctx context.Context, r request) error {
	from, to := w.plan.Span(r.chunk, r.scrape)
	version := w.plan.Version(r.chunk, r.scrape)
	w.raw = w.plan.AppendRequest(w.raw[:0], r.tenant, r.chunk, r.scrape)
	w.body = s2.EncodeSnappy(w.body[:cap(w.body)], w.raw)
	w.report.Requests++
	pause := minPause
	for attempt := 1; ; attempt++ {
		begin := time.Now()
		a, err := w.to[r.tenant].Push(ctx, version, w.body)
		took := time.Since(begin)
		w.report.Statuses[a.Status]++ // 0 without an answer
		fate, err := judge(a, err, version, to-from)
		again := errors.Is(err, errAgain) && ctx.Err() == nil && (w.cfg.Attempts == 0 || attempt < w.cfg.Attempts)
		if err != nil && ctx.Err() == nil {
			w.opts.OnTrouble(err.Error())
		}
		if !again {
			w.report.settle(fate, to-from, took, err)
			w.opts.OnSamples(to - from)
			return w.settled(ctx, r, fate, err)
		}
		w.report.Retries++
		if wait(ctx, max(pause, min(a.RetryAfter(time.Now()), maxRetryAfter))) != nil {
			w.report.settle(fate, to-from, took, err)
			return w.settled(ctx, r, fate, err)
		}
		pause = min(2*pause, maxPause)
	}
}

// settled notes a fate and returns an error when the worker has to stop.
func (w *worker) settled(ctx context.Context, r request, fate loadledger.Fate, err error) error {
	if w.opts.Notes != nil {
		if err := w.opts.Notes.Note(r.tenant, r.chunk, r.scrape, fate); err != nil {
			return err
		}
	}
	if errors.Is(err, ErrNotStored) || errors.Is(err, ErrTurnedAway) || errors.Is(err, remotewrite.ErrRequest) {
		return err
	}
	return ctx.Err()
}

// errAgain means that a request has to be sent again, errRefused that it must not.
var (
	errAgain   = errors.New("not now")
	errRefused = errors.New("refused")
)

// judge says what an answer to a request of n samples means for them.
func judge(a remotewrite.Answer, err error, v remotewrite.Version, n int) (loadledger.Fate, error) {
	switch {
	case errors.Is(err, remotewrite.ErrRequest):
		return loadledger.Unknown, err
	case err != nil:
		return loadledger.Unknown, fmt.Errorf("%w: %w", errAgain, err)
	case a.OK() && v == remotewrite.V2:
		if written, ok := a.Written(); !ok || written != n {
			return loadledger.Unknown, fmt.Errorf("%w: 2.0 was answered %d, but %d of %d samples were said to be written",
				ErrNotStored, a.Status, written, n)
		}
		return loadledger.Acknowledged, nil
	case a.OK():
		return loadledger.Acknowledged, nil
	case a.Retry():
		return loadledger.Unknown, fmt.Errorf("%w: %s", errAgain, text(a))
	case v == remotewrite.V2 && a.Status == http.StatusUnsupportedMediaType:
		return loadledger.Refused, fmt.Errorf("%w: %s", ErrNotStored, text(a))
	case refusesSamples(a.Status):
		return loadledger.Refused, fmt.Errorf("%w: %s", errRefused, text(a))
	default:
		return loadledger.Refused, fmt.Errorf("%w: %s", ErrTurnedAway, text(a))
	}
}

// refusesSamples reports whether a status is about the samples of the request, so that others may fare better.
func refusesSamples(status int) bool {
	return status == http.StatusBadRequest || status == http.StatusRequestEntityTooLarge ||
		status == http.StatusUnprocessableEntity
}

func text(a remotewrite.Answer) string {
	const most = 300
	body := a.Body
	if len(body) > most {
		body = body[:most] + "…"
	}
	return fmt.Sprintf("answered %d: %s", a.Status, body)
}

// wait returns after d, or with an error when ctx is over first.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
