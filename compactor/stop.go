package compactor

import (
	"context"
	"errors"
	"fmt"
)

// errDoomed says that the tenant is to be deleted: nothing is written for it any more.
var errDoomed = fmt.Errorf("%w: the tenant is to be deleted", errStale)

// stoppable returns a context for a part of a job, which Stop ends. The caller ends it as well.
func (c *Compactor) stoppable(ctx context.Context, a *activity) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	c.mu.Lock()
	a.stop = cancel
	c.mu.Unlock()
	return ctx, cancel
}

// stopped returns why a part of a job was ended, when it was, and err otherwise.
func stopped(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if err != nil && (errors.Is(cause, errStalled) || errors.Is(cause, errDoomed)) {
		return cause
	}
	return err
}

// treatStoppable is treat, until the tenant is to be deleted: a salvage takes as long as a merge.
func (c *Compactor) treatStoppable(ctx context.Context, a *activity, err error) error {
	ctx, cancel := c.stoppable(ctx, a)
	defer cancel(nil)
	return stopped(ctx, c.treat(ctx, a, err))
}

// stopJobs ends the jobs of a tenant that is to be deleted. The caller holds Compactor.mu.
func (t *tenantState) stopJobs() {
	for _, a := range t.running {
		if a.stop != nil {
			a.stop(errDoomed)
		}
	}
}

// Stop has this process write nothing more for a tenant that is to be deleted, and reports whether nothing is being written:
// when not, ask again. A job that begins afterwards finds in the manifest that there is nothing to do.
func (c *Compactor) Stop(tenantID string) (stopped bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.tenants[tenantID]
	if t == nil {
		return true
	}
	t.stopJobs()
	return len(t.running) == 0
}
