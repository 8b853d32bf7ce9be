package manifest

import (
	"context"
	"time"

	"github.com/duramendb/duramen/tenant"
)

const (
	// lookBusy is how often a tenant is looked at to which blocks are added.
	lookBusy = 10 * time.Minute

	// lookIdle is how often at least, however long nothing has been added.
	lookIdle = 2 * time.Hour

	// restShare is the part of the time since something happened after which it is worth a look again: two hours after
	// the last block, when an ingester ships the next one, that is the ten minutes of a busy tenant.
	restShare = 12
)

// Rest returns how long to wait from one look to the next at what changed last so long ago: a twelfth of that, between
// busy and idle. So something that changes every other hour is looked at without a pause, and what lies still costs ever
// less.
func Rest(sinceChange, busy, idle time.Duration) time.Duration {
	return max(busy, min(sinceChange/restShare, idle))
}

// LastGrowth returns when the youngest of the listed blocks was added, in milliseconds since the Unix epoch; 0 when none
// is listed.
func (m *Manifest) LastGrowth() int64 {
	last := int64(0)
	for i := range m.Blocks {
		last = max(last, m.Blocks[i].AddedAt)
	}
	return last
}

// observation is when a tenant of Observe was looked at.
type observation struct {
	// looked is when the newest version was asked for, changed when that last made a difference or a block was added.
	looked, changed time.Time
	version         uint64
}

// due reports whether it is worth a request to look for a newer version.
func (s *observation) due(now time.Time) bool {
	return now.Sub(s.looked) >= Rest(now.Sub(s.changed), lookBusy, lookIdle) || now.Before(s.looked)
}

// Observe is Refresh for those who follow many tenants over and over: it asks the bucket every ten minutes when blocks
// were added within two hours or so, and ever more seldom the longer nothing changes, every two hours in the end; all
// callers share these looks. Between them it returns what is in memory, which has all that this process has written, or
// nil when that has been forgotten. Errors are as for Current.
func (o *Owner) Observe(ctx context.Context, tenantID string) (*Manifest, error) {
	if !o.lookDue(tenantID) {
		return o.Known(tenantID), nil
	}
	return o.Refresh(ctx, tenantID)
}

// lookDue begins to observe a tenant that it is asked about for the first time.
func (o *Owner) lookDue(tenantID string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.observed[tenantID]
	if s == nil && tenant.ValidateID(tenantID) == nil {
		o.observed[tenantID] = &observation{}
	}
	return s == nil || s.due(o.now())
}

// noteLook notes that m was the newest version at a moment.
func (o *Owner) noteLook(tenantID string, m *Manifest, at time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.observed[tenantID]
	if s == nil {
		return
	}
	if grown := time.UnixMilli(m.LastGrowth()); grown.After(s.changed) {
		s.changed = grown
	}
	if !s.looked.IsZero() && m.Version != s.version {
		s.changed = at
	}
	s.looked, s.version = at, m.Version
}
