package compactor

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/compactor/merge"
	"github.com/duramendb/duramen/compactor/plan"
)

// activity is a job that runs.
type activity struct {
	tenant   *tenantState
	job      plan.Job
	began    time.Time
	progress *merge.Progress
	// stop ends what is being done, nil when that is nothing. It is guarded by Compactor.mu.
	stop context.CancelCauseFunc

	signs   atomic.Uint64 // of life, besides progress
	resting atomic.Bool   // the worker does other jobs meanwhile
	restAt  time.Time     // when it may do that next
}

// workLoop runs one job of its lane after the other, of whichever tenant has its turn.
func (c *Compactor) workLoop(ctx context.Context, l lane) error {
	for {
		a, news, pause := c.take(l)
		if a != nil {
			c.work(ctx, a)
		} else if err := waitFor(ctx, news, pause); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// longestWait is how long a worker without work sleeps at most. It is woken for everything; this is for clocks that jump.
const longestWait = 10 * time.Minute

func waitFor(ctx context.Context, news <-chan struct{}, pause time.Duration) error {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-news:
	case <-t.C:
	}
	return nil
}

// take returns the next job of a lane, of the tenant that has waited longest for a worker; of one tenant in the order of
// its plan.
// Without a job it returns what is closed at the next news, and the time until a job that failed may be tried again.
func (c *Compactor) take(l lane) (_ *activity, news <-chan struct{}, pause time.Duration) {
	now := c.now()
	pause = longestWait
	c.mu.Lock()
	defer c.mu.Unlock()
	var best *tenantState
	var job *plan.Job
	for _, t := range c.tenants {
		next, wait := t.next(now, l)
		if wait > 0 {
			pause = min(pause, wait)
		}
		if next == nil {
			continue
		}
		if best == nil || t.served < best.served || t.served == best.served && next.MinTime < job.MinTime {
			best, job = t, next
		}
	}
	if best == nil {
		return nil, c.news, pause
	}
	c.turns++
	best.served = c.turns
	a := &activity{tenant: best, job: *job, began: now, progress: &merge.Progress{}}
	best.running[job.ID] = a
	if job.Kind == kindRepair {
		delete(best.repairs, job.Blocks[0]) // the next look asks again
	}
	return a, nil, 0
}

// next returns the first job of a lane that may run now, or after what time one may. The caller holds Compactor.mu.
func (t *tenantState) next(now time.Time, l lane) (_ *plan.Job, wait time.Duration) {
	if len(t.jobs)+len(t.repairs) == 0 {
		return nil, 0
	}
	busy := map[ulid.ULID]struct{}{}
	for _, a := range t.running {
		for _, id := range a.job.Blocks {
			busy[id] = struct{}{}
		}
	}
	if !l.slotsOnly {
		if job := t.nextRepair(busy); job != nil {
			return job, 0 // queries fail without it
		}
	}
	for i := range t.jobs {
		job := &t.jobs[i]
		if !l.takes(job) || slices.ContainsFunc(job.Blocks, func(id ulid.ULID) bool { _, is := busy[id]; return is }) {
			continue
		}
		tried := t.trials[job.ID]
		if tried == nil || !now.Before(tried.again) {
			return job, 0
		}
		if left := tried.again.Sub(now); wait == 0 || left < wait {
			wait = left
		}
	}
	return nil, wait
}

// work runs a job, does what its failure asks for, and plans anew.
func (c *Compactor) work(ctx context.Context, a *activity) {
	err := c.attempt(ctx, a)
	if err != nil && ctx.Err() == nil {
		err = c.treatStoppable(ctx, a, err)
	}
	c.finish(ctx, a, err)
	c.look(ctx, a.tenant)
	c.mu.Lock()
	delete(a.tenant.running, a.job.ID)
	c.announce()
	c.mu.Unlock()
}

// announce wakes all who wait for news. The caller holds c.mu.
func (c *Compactor) announce() {
	close(c.news)
	c.news = make(chan struct{})
}
