package compactor

import (
	"context"
	"time"

	"github.com/duramendb/duramen/compactor/plan"
)

// Queries pay for each slot that is not merged, of every tenant, while a day that is merged hours later costs nobody much.
// A day of a large tenant takes hours. So that no tenant's slots wait for another's day, one worker of several takes
// nothing but slots. A worker that is alone does the slots that come up in between, while its large job rests.

// slotLength is the most that a job of a slot covers.
const slotLength = 2 * time.Hour

const (
	// restEvery is how often a large job looks for slots, at most: a look passes over all tenants.
	restEvery = time.Second
	// mostRest is how long a large job rests at a time, but for the last job that is begun meanwhile. It works as long as it
	// has rested before it does so again, so that more slots than one worker can merge do not keep days from being merged.
	mostRest = 10 * time.Minute
)

// lane is what a worker takes: the zero value is for everything.
type lane struct{ slotsOnly bool }

// lanes returns what each worker takes. The others take everything, by turns, so that neither days nor slots starve.
func lanes(workers int) []lane {
	all := make([]lane, workers)
	if workers > 1 {
		all[workers-1].slotsOnly = true
	}
	return all
}

// takes reports whether a worker of the lane takes a job.
func (l lane) takes(j *plan.Job) bool { return !l.slotsOnly || ofSlot(j) }

// ofSlot reports whether a job is one of a slot: it is small beside others of its tenant, and urgent.
func ofSlot(j *plan.Job) bool {
	return j.Kind != plan.KindRewrite && j.Kind != kindRepair && j.MaxTime-j.MinTime <= slotLength.Milliseconds()
}

// rest is called by a job now and then, at times when it can stand still. The only worker does all jobs of slots then. ctx
// is the worker's.
func (c *Compactor) rest(ctx context.Context, a *activity) {
	a.signs.Add(1)
	began := c.now()
	if c.cfg.Concurrency > 1 || ofSlot(&a.job) || began.Before(a.restAt) {
		return
	}
	a.resting.Store(true)
	defer a.resting.Store(false)
	rested := time.Duration(0)
	for rested < mostRest && ctx.Err() == nil {
		next, _, _ := c.take(lane{slotsOnly: true})
		if next == nil {
			break
		}
		c.work(ctx, next)
		rested = c.now().Sub(began)
	}
	a.restAt = c.now().Add(max(rested, restEvery))
}
