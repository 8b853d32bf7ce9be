package compactor

import (
	"context"

	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/tenant"
)

// Run looks through a tenant's blocks now and starts what is to be done. With wait it answers when that is done, or has
// failed, else when it is known.
//
// The kind of the error is NotFound for a tenant that has no blocks and never had, and Misdirected for one of another
// process, which is named.
func (c *Compactor) Run(ctx context.Context, tenantID string, _ bool) (TenantStatus, error) {
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
	t := c.tenants[tenantID]
	if t == nil {
		t = newTenantState(tenantID)
		c.tenants[tenantID] = t
	}
	c.mu.Unlock()
	c.look(ctx, t)
	s, _ := c.TenantStatus(tenantID)
	return s, ctx.Err()
}
