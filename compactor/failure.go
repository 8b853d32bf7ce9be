package compactor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/compactor/merge"
	"github.com/duramendb/duramen/internal/errkind"
)

// outcome is how a job ended, as in the label of a metric.
type outcome string

const (
	outcomeDone outcome = "done"
	// outcomeStale and outcomeMoved need nobody: there was other work to do, or another process to do it.
	outcomeStale outcome = "stale"
	outcomeMoved outcome = "moved"
	// outcomeConflict is a swap that did not fit the manifest any more; the work was in vain.
	outcomeConflict outcome = "conflict"
	// outcomeUnavailable is a failure of the bucket or the disk.
	outcomeUnavailable outcome = "unavailable"
	// outcomeSalvaged ended with a damaged input that could be replaced by what is readable of it.
	outcomeSalvaged outcome = "salvaged"
	// outcomeDamaged ended with an input that cannot be read and could not be salvaged, or is gone.
	outcomeDamaged outcome = "damaged"
	// outcomeTooLarge is an output that would have been larger than an index may be.
	outcomeTooLarge outcome = "too_large"
	// outcomeFault is an output that was not what the inputs should give, or a panic: a fault of ours or of the machine.
	outcomeFault outcome = "fault"
	// outcomeStopped is a job that the end of the process has ended.
	outcomeStopped outcome = "stopped"
)

func outcomes() []outcome {
	return []outcome{
		outcomeDone, outcomeStale, outcomeMoved, outcomeConflict, outcomeUnavailable, outcomeSalvaged, outcomeDamaged,
		outcomeTooLarge, outcomeFault, outcomeStopped,
	}
}

const (
	// firstRetry, doubled each time, is when a job that failed is tried again; lastRetry at most, or faultRetry where
	// trying again is not likely to help.
	firstRetry = 15 * time.Second
	lastRetry  = 10 * time.Minute
	faultRetry = time.Hour

	// mostFaults is how often a job is tried whose output was wrong.
	mostFaults = 3

	// mostConflicts is how often in a row a job's swap may find the manifest changed before somebody is told: a block that
	// was added, or another owner for a while, does no harm.
	mostConflicts = 3

	// verdictTime is how long a block or a job is left alone that cannot be dealt with, unless its inputs change or
	// somebody asks for a run.
	verdictTime = 24 * time.Hour

	// largeTime is the same for a job whose output was too large: finding that out takes nearly as long as writing it, and
	// only another limit, which comes with a restart, or other inputs, which make another job, change it.
	largeTime = 30 * 24 * time.Hour

	// goneTime is the same for a listed block that was not in the bucket and could not be made again: a listing may be late,
	// or an operator may bring it back.
	goneTime = time.Hour
)

// trial is a job that failed.
type trial struct {
	failures int
	again    time.Time
	err      string
}

// salvagedError says that a damaged input was dealt with, and that the work has to be planned anew.
type salvagedError struct{ cause error }

func (e *salvagedError) Error() string { return fmt.Sprintf("%v; salvaged", e.cause) }

// treat does what the failure of a job asks for, and returns the failure as finish is to see it.
func (c *Compactor) treat(ctx context.Context, a *activity, err error) error {
	var damaged *merge.Damaged
	var gone *merge.Gone
	var disputed *merge.Disputed
	var missing *missingObjects
	switch {
	case errors.As(err, &disputed):
		return c.treatDispute(a.tenant, disputed)
	case errors.As(err, &damaged):
		return c.treatDamage(ctx, a, damaged.ULID, damaged)
	case errors.As(err, &gone):
		return c.treatDamage(ctx, a, gone.ULID, gone)
	case errors.As(err, &missing):
		return c.treatDamage(ctx, a, missing.id, missing)
	}
	return err
}

// mostDisputes is how often a block may seem damaged to a merge alone. Bytes that come damaged so often of one block, each time
// the first time and never the second, are no fault of the way.
const mostDisputes = 5

// treatDispute leaves a block out of plans about which a merge and a check disagree for good.
func (c *Compactor) treatDispute(t *tenantState, d *merge.Disputed) error {
	id := d.Seen.ULID
	c.mu.Lock()
	t.disputed[id]++
	again := t.disputed[id] < mostDisputes
	if !again {
		delete(t.disputed, id)
	}
	c.mu.Unlock()
	if again {
		return d
	}
	c.log.Error("a merge and a check of a block disagree", "tenant", t.id, "block", id, "times", mostDisputes, "err", d)
	c.exclude(t, id, verdictTime, fmt.Sprintf("%v, which a check of the block does not find, %d times: a fault of the program or "+
		"the machine; please report it", d.Seen, mostDisputes))
	return d.Seen
}

// exclude leaves a block out of all plans for a while.
func (c *Compactor) exclude(t *tenantState, id ulid.ULID, d time.Duration, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t.excluded[id] = verdict{why: why, until: c.now().Add(d)}
}

// finish records how a job ended, and when it is tried again.
func (c *Compactor) finish(ctx context.Context, a *activity, err error) {
	o := classify(ctx, err)
	now := c.now()
	c.metrics.jobs.WithLabelValues(string(a.job.Kind), string(o)).Inc()
	c.metrics.jobSeconds.WithLabelValues(string(a.job.Kind)).Observe(now.Sub(a.began).Seconds())
	c.mu.Lock()
	t := a.tenant
	t.lastRun = now
	level, again := slog.LevelDebug, time.Duration(0)
	switch o {
	case outcomeDone, outcomeSalvaged:
		delete(t.trials, a.job.ID)
		t.dropJob(a.job.ID)
		if o == outcomeDone {
			t.jobErr = ""
		}
	case outcomeStale: // should it be planned again, then not at once
		t.trials[a.job.ID] = &trial{again: now.Add(firstRetry)}
	case outcomeMoved:
		t.jobs = nil
	case outcomeStopped:
	default:
		level, again = t.punish(a.job.ID, o, err, now)
		if o != outcomeConflict || t.trials[a.job.ID].failures >= mostConflicts {
			t.jobErr = fmt.Sprintf("%s job of %s: %v", a.job.Kind, time.UnixMilli(a.job.MinTime).UTC().Format(time.RFC3339), err)
		}
	}
	c.mu.Unlock()
	if again > 0 {
		c.log.Log(ctx, level, "job failed", "tenant", t.id, "job", a.job.ID, "kind", a.job.Kind, "blocks", a.job.Blocks,
			"min_time", time.UnixMilli(a.job.MinTime).UTC(), "outcome", string(o), "again_in", again, "err", err)
	}
}

func classify(ctx context.Context, err error) outcome {
	var salvaged *salvagedError
	var damaged *merge.Damaged
	var gone *merge.Gone
	var large *merge.TooLarge
	var missing *missingObjects
	switch {
	case err == nil:
		return outcomeDone
	case errors.Is(err, errStale):
		return outcomeStale
	case errors.Is(err, errMoved):
		return outcomeMoved
	case ctx.Err() != nil:
		return outcomeStopped
	case errors.Is(err, manifest.ErrConflict):
		return outcomeConflict
	case errors.As(err, &salvaged):
		return outcomeSalvaged
	case errors.As(err, &large):
		return outcomeTooLarge
	case errkind.Of(err) == errkind.Unavailable:
		return outcomeUnavailable
	case errors.As(err, &damaged), errors.As(err, &gone), errors.As(err, &missing):
		return outcomeDamaged
	default:
		return outcomeFault
	}
}

// punish decides when a job is tried again, and how loud its failure is. The caller holds Compactor.mu.
func (t *tenantState) punish(jobID string, o outcome, err error, now time.Time) (slog.Level, time.Duration) {
	tried := t.trials[jobID]
	if tried == nil {
		tried = &trial{}
		t.trials[jobID] = tried
	}
	tried.failures++
	tried.err = err.Error()
	level, pause := slog.LevelWarn, min(firstRetry<<min(tried.failures-1, 10), lastRetry)
	switch o {
	case outcomeConflict:
		if tried.failures < mostConflicts {
			level = slog.LevelInfo
		}
	case outcomeTooLarge:
		level, pause = slog.LevelError, largeTime
		t.refused[jobID] = verdict{why: err.Error(), until: now.Add(largeTime)}
	case outcomeFault:
		level, pause = slog.LevelError, faultRetry
		if tried.failures >= mostFaults {
			pause = verdictTime
			t.refused[jobID] = verdict{
				why:   fmt.Sprintf("failed %d times, which is a fault of the program or the machine: %v", tried.failures, err),
				until: now.Add(verdictTime),
			}
		}
	case outcomeDamaged:
		level = slog.LevelError
	}
	tried.again = now.Add(pause)
	return level, pause
}

// dropJob takes a job out of the plan until the next look. The caller holds Compactor.mu.
func (t *tenantState) dropJob(id string) {
	for i := range t.jobs {
		if t.jobs[i].ID == id {
			t.jobs = append(t.jobs[:i:i], t.jobs[i+1:]...)
			return
		}
	}
}

// forgetTrials forgets those that are long over. The caller holds Compactor.mu.
func (t *tenantState) forgetTrials(now time.Time) {
	for id, tried := range t.trials {
		if now.Sub(tried.again) > verdictTime {
			delete(t.trials, id)
		}
	}
}

// pardon has everything tried again that was left alone. The caller holds Compactor.mu.
func (t *tenantState) pardon() {
	clear(t.trials)
	clear(t.refused)
	clear(t.excluded)
	clear(t.salvaged)
	clear(t.disputed)
}
