package compactor

import (
	"cmp"
	"slices"
	"time"
)

// Status is what /compactor shows.
type Status struct {
	// Tenants are those of this process, the one that lags most first. Those beyond the limit of the page are left out.
	Tenants []TenantStatus `json:"tenants"`
	// TenantsTotal counts those that are left out as well.
	TenantsTotal int `json:"tenants_total"`
}

// TenantStatus is a tenant as this process last saw it. Times are milliseconds since the Unix epoch, 0 for never.
type TenantStatus struct {
	Tenant  string `json:"tenant"`
	Version uint64 `json:"version"`
	Blocks  int    `json:"blocks"`
	Bytes   int64  `json:"bytes"`
	// OldestUncompactedSlotAge is what duramen_compactor_oldest_uncompacted_slot_age_seconds is the highest of.
	OldestUncompactedSlotAge float64 `json:"oldest_uncompacted_slot_age_seconds"`
	LastRun                  int64   `json:"last_run,omitempty"`
	LastError                string  `json:"last_error,omitempty"`
}

// Status describes the tenants of this process, at most limit of them.
func (c *Compactor) Status(limit int) Status {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Status{Tenants: []TenantStatus{}, TenantsTotal: len(c.tenants)}
	all := make([]*tenantState, 0, len(c.tenants))
	for _, t := range c.tenants {
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b *tenantState) int {
		return cmp.Or(cmp.Compare(b.lag(now), a.lag(now)), cmp.Compare(a.id, b.id))
	})
	for _, t := range all[:min(limit, len(all))] {
		s.Tenants = append(s.Tenants, t.status(now))
	}
	return s
}

// TenantStatus describes one tenant of this process.
func (c *Compactor) TenantStatus(tenantID string) (TenantStatus, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.tenants[tenantID]
	if t == nil {
		return TenantStatus{}, false
	}
	return t.status(c.now()), true
}

// status is what is known of a tenant. The caller holds Compactor.mu.
func (t *tenantState) status(now time.Time) TenantStatus {
	s := TenantStatus{Tenant: t.id, LastError: t.lastError, OldestUncompactedSlotAge: t.lag(now).Seconds()}
	if !t.lastLook.IsZero() {
		s.LastRun = t.lastLook.UnixMilli()
	}
	if m := t.found; m != nil {
		s.Version, s.Blocks = m.Version, len(m.Blocks)
		for i := range m.Blocks {
			s.Bytes += m.Blocks[i].SizeBytes
		}
	}
	return s
}
