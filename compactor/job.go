package compactor

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/compactor/merge"
	"github.com/duramendb/duramen/compactor/plan"
	"github.com/duramendb/duramen/internal/errkind"
)

// Merger makes one block of several, as merge.Run does. Tests have others, that fail.
type Merger interface {
	Merge(ctx context.Context, tenantID string, job merge.Job, progress *merge.Progress) (*merge.Result, error)
}

// mergers is package merge.
type mergers struct {
	cfg merge.Config
	bkt bucket.Bucket
}

// Merge implements Merger.
func (m mergers) Merge(
	ctx context.Context, tenantID string, job merge.Job, progress *merge.Progress,
) (*merge.Result, error) {
	return merge.Run(ctx, m.cfg, m.bkt, tenantID, job, progress)
}

var (
	// errMoved says that the tenant has become another process'.
	errMoved = errors.New("another process looks after the tenant now")
	// errStale says that the job is not to be done any more.
	errStale = errors.New("the newest manifest asks for other work")
	// errStalled says that a job made no progress for stallTime.
	errStalled = errkind.New(errkind.Unavailable, "no progress for a long time")
)

// panicked is a panic of a job.
type panicked struct{ value any }

func (p *panicked) Error() string { return fmt.Sprintf("panic: %v", p.value) }

// panicked writes a panic to the log, with the stack, and makes an error of it.
func (c *Compactor) panicked(what, tenantID string, value any) error {
	c.log.Error("panic while compacting", "what", what, "tenant", tenantID, "panic", value, "stack", string(debug.Stack()))
	return &panicked{value}
}

// attempt carries a job out: it is planned anew on the newest manifest, merged, and swapped in. Nothing is changed before
// the swap, and all is done after it.
func (c *Compactor) attempt(ctx context.Context, a *activity) (err error) {
	worker := ctx
	defer func() {
		if p := recover(); p != nil {
			err = c.panicked("job panicked", a.tenant.id, p)
		}
	}()
	ctx, cancel := c.stoppable(ctx, a)
	defer cancel(nil)
	watched := make(chan struct{})
	go func() { // ends with ctx; waited for below
		defer close(watched)
		a.watch(ctx, cancel)
	}()
	defer func() {
		cancel(nil)
		<-watched
	}()
	err = c.carryOut(ctx, a, func() { c.rest(worker, a) })
	return stopped(ctx, err)
}

const (
	// stallTime without any progress ends a job, which is tried again later: requests have timeouts of their own, and
	// nothing that a job does takes minutes without a byte.
	stallTime  = 20 * time.Minute
	stallCheck = time.Minute

	// indexStallTime is the same while the index is closed: postings are made of all series on the local disk, which shows
	// no progress, and takes hours for the largest.
	indexStallTime = 6 * time.Hour
)

// watch ends the job when it stands still.
func (a *activity) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	last, signs, still := a.progress.Snapshot(), uint64(0), time.Duration(0)
	for sleep(ctx, stallCheck) == nil {
		next, seen := a.progress.Snapshot(), a.signs.Load()
		if still += stallCheck; next != last || seen != signs || a.resting.Load() {
			last, signs, still = next, seen, 0
		}
		if still >= patience(next) {
			cancel(errStalled)
		}
	}
}

// patience is how long a job may stand still at what it does.
func patience(at merge.Snapshot) time.Duration {
	if at.Phase == merge.PhaseIndex.String() {
		return indexStallTime
	}
	return stallTime
}

func (c *Compactor) carryOut(ctx context.Context, a *activity, rest func()) error {
	id := a.tenant.id
	if _, here := c.cluster.Owner(id); !here {
		return errMoved
	}
	if a.job.Kind == kindRepair {
		return &missingObjects{a.job.Blocks[0], a.job.Reason} // treat does it
	}
	limits := c.planLimits(a.tenant)
	m, err := c.manifests.Refresh(ctx, id)
	if err != nil {
		return err
	}
	p := c.makePlan(m, limits)
	if p == nil {
		return errStale
	}
	i := slices.IndexFunc(p.Jobs, func(j plan.Job) bool { return j.ID == a.job.ID })
	if i < 0 {
		return errStale
	}
	job, applied, err := c.mergeJob(m, &p.Jobs[i])
	if err != nil {
		return err
	}
	job.Rest = rest
	res, err := c.merger.Merge(ctx, id, job, a.progress)
	if err != nil {
		return err
	}
	change := manifest.Change{Applied: applied}
	if res.Empty {
		change.Drop = a.job.Blocks
	} else {
		change.Add, change.Replace = []manifest.Block{res.Block}, a.job.Blocks
	}
	if err := c.swap(ctx, id, change); err != nil {
		return err
	}
	c.metrics.count(res)
	c.log.Info("blocks compacted", "tenant", id, "kind", a.job.Kind, "block", res.Block.ULID, "inputs", len(a.job.Blocks),
		"min_time", time.UnixMilli(a.job.MinTime).UTC(), "max_time", time.UnixMilli(a.job.MaxTime).UTC(),
		"samples", res.OutputSamples, "duplicates", res.Duplicates, "deleted", res.Deleted, "bytes", res.Block.SizeBytes,
		"duration", c.now().Sub(a.began))
	return nil
}

// mergeJob is the planned job for package merge, and the deletions that it works in.
func (c *Compactor) mergeJob(m *manifest.Manifest, j *plan.Job) (merge.Job, []uint64, error) {
	id, err := newOutput(c.now())
	if err != nil {
		return merge.Job{}, nil, err
	}
	job := merge.Job{
		ULID: id, Writer: c.cfg.Writer, MinTime: j.MinTime, MaxTime: j.MaxTime, Level: j.Level,
		Labels: j.Labels, Shard: j.Shard,
	}
	if m.NextDeletion > 0 {
		job.DeletedThrough = m.NextDeletion - 1
	}
	for i := range j.Inputs {
		job.Inputs = append(job.Inputs, merge.Input{Block: j.Inputs[i]})
	}
	applied := workIn(m, &job)
	return job, applied, nil
}

const (
	// swapTries is how often a swap is repeated that may or may not have happened: the output cost far more than a try.
	swapTries = 6
	swapPause = time.Second
)

// sweptAfter is below the age at which the sweep of orphans takes an output that no manifest lists for one of a lost swap.
const sweptAfter = 12 * time.Hour

// stillThere makes sure that outputs which were begun long ago were not swept: a machine may stand still for a day between
// the last byte of an output and its swap, and the manifest must not list a block that is not there.
func (c *Compactor) stillThere(ctx context.Context, tenantID string, outputs []manifest.Block) error {
	for i := range outputs {
		id := outputs[i].ULID
		if c.now().Sub(ulid.Time(id.Time())) < sweptAfter {
			continue
		}
		_, err := c.bkt.Stat(ctx, block.Key(tenantID, id, block.MetaName))
		if errors.Is(err, bucket.ErrNotFound) {
			return fmt.Errorf("%w: output %s was swept as an orphan", errStale, id)
		}
		if err != nil {
			return errkind.Wrap(errkind.Unavailable, err)
		}
	}
	return nil
}

// swap changes the manifest, as long as the tenant is this process'. A swap that has happened is a success when it is
// repeated, so that a lost answer does no harm.
func (c *Compactor) swap(ctx context.Context, tenantID string, change manifest.Change) error {
	for try := 0; ; try++ {
		if _, here := c.cluster.Owner(tenantID); !here {
			return errMoved
		}
		err := c.stillThere(ctx, tenantID, change.Add)
		if err == nil {
			_, err = c.manifests.Swap(ctx, tenantID, change)
		}
		if err == nil || errkind.Of(err) != errkind.Unavailable || try+1 == swapTries {
			return err
		}
		if sleep(ctx, swapPause<<try) != nil {
			return err
		}
	}
}
