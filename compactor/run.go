package compactor

import (
	"context"

	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/tenant"
)

// Run looks through a tenant's blocks now and has everything tried that was left alone after a failure, or that waits for
// more late data. With wait it
// returns when nothing more is to be done, or what is left has failed; else when it is known what is to be done.
//
// The kind of the error is NotFound for a tenant that has no blocks and never had, and Misdirected for one of another
// process, which is named.
func (c *Compactor) Run(ctx context.Context, tenantID string, wait bool) (TenantStatus, error) {
	if err := tenant.ValidateID(tenantID); err != nil {
		return TenantStatus{}, errkind.Wrap(errkind.Invalid, err)
	}
	if owner, here := c.cluster.Owner(tenantID); !here {
		return TenantStatus{}, errkind.New(errkind.Misdirected, "tenant %s is looked after by %s: ask there", tenantID, owner)
	}
	m, err := c.manifests.Refresh(ctx, tenantID)
	if err != nil {
		return TenantStatus{}, err
	}
	if m.Version == 0 {
		return TenantStatus{}, errkind.New(errkind.NotFound, "tenant %s has no blocks in the bucket", tenantID)
	}
	c.mu.Lock()
	t := c.tenant(tenantID)
	t.pardon()
	t.settled = true
	c.mu.Unlock()
	c.look(ctx, t)
	if wait {
		c.waitQuiet(ctx, t)
	}
	if err := ctx.Err(); err != nil {
		return TenantStatus{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return t.status(c.now()), nil
}

// waitQuiet returns when no job of the tenant runs and none may run now.
func (c *Compactor) waitQuiet(ctx context.Context, t *tenantState) {
	for {
		now := c.now()
		c.mu.Lock()
		next, _ := t.next(now, lane{})
		quiet, news := next == nil && len(t.running) == 0, c.news
		c.mu.Unlock()
		if quiet {
			return
		}
		if waitFor(ctx, news, longestWait) != nil {
			return
		}
	}
}
