package compactor

import (
	"cmp"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/compactor/merge"
	"github.com/duramendb/duramen/compactor/plan"
)

// mostJobs bounds the jobs that are shown of a tenant.
const mostJobs = 50

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
	// Deleting is set while the tenant is being deleted; nothing is compacted then.
	Deleting bool `json:"deleting,omitempty"`
	// UncompactedSlots should be merged by now. OldestUncompactedSlotAge is in seconds since when the oldest should be;
	// the metric of that name is the highest of all tenants.
	UncompactedSlots         int     `json:"uncompacted_slots"`
	OldestUncompactedSlotAge float64 `json:"oldest_uncompacted_slot_age_seconds"`
	// PendingDeletions are hidden from queries and still in some block.
	PendingDeletions int `json:"pending_deletions"`
	// Jobs are the first that are planned, JobsTotal counts all. Running are those of Jobs that run.
	Jobs      []JobStatus  `json:"jobs"`
	JobsTotal int          `json:"jobs_total"`
	Running   []RunningJob `json:"running"`
	// Skips are what is left alone, and why.
	Skips []plan.Skip `json:"skips"`
	// LastLook is when the blocks were last looked through, LastRun when a job last ended.
	LastLook int64 `json:"last_look"`
	LastRun  int64 `json:"last_run"`
	// LastError is why the tenant cannot be looked at, or why the last job failed; it is empty when all is well.
	LastError string `json:"last_error"`
}

// JobStatus is a planned job.
type JobStatus struct {
	ID      string    `json:"id"`
	Kind    plan.Kind `json:"kind"`
	Reason  string    `json:"reason"`
	MinTime int64     `json:"min_time"`
	MaxTime int64     `json:"max_time"`
	// Blocks are the first of the inputs, Inputs counts all.
	Blocks []ulid.ULID `json:"blocks"`
	Inputs int         `json:"inputs"`
	Bytes  int64       `json:"bytes"`
	// Failures is how often it was tried in vain; it is tried again at Again at the earliest.
	Failures  int    `json:"failures,omitempty"`
	Again     int64  `json:"again,omitempty"`
	LastError string `json:"last_error,omitempty"`
}

// RunningJob is a job with what it has done so far.
type RunningJob struct {
	JobStatus

	Began    int64          `json:"began"`
	Progress merge.Snapshot `json:"progress"`
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
		return cmp.Or(cmp.Compare(b.lag(now), a.lag(now)), cmp.Compare(len(b.running), len(a.running)), cmp.Compare(a.id, b.id))
	})
	for _, t := range all[:min(limit, len(all))] {
		s.Tenants = append(s.Tenants, t.status(now))
	}
	return s
}

// TenantStatus describes one tenant of this process.
func (c *Compactor) TenantStatus(tenantID string) (TenantStatus, bool) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.tenants[tenantID]
	if t == nil {
		return TenantStatus{}, false
	}
	return t.status(now), true
}

// status is what is known of a tenant. The caller holds Compactor.mu.
func (t *tenantState) status(now time.Time) TenantStatus {
	s := TenantStatus{
		Tenant: t.id, Version: t.sum.version, Blocks: t.sum.blocks, Bytes: t.sum.bytes, Deleting: t.sum.doomed,
		UncompactedSlots: t.sum.uncompacted, OldestUncompactedSlotAge: t.lag(now).Seconds(),
		PendingDeletions: t.sum.deletions, Jobs: []JobStatus{}, JobsTotal: len(t.jobs), Running: []RunningJob{},
		Skips: append([]plan.Skip{}, t.sum.skips...), LastLook: milli(t.lastLook), LastRun: milli(t.lastRun),
		LastError: cmp.Or(t.lookErr, t.jobErr),
	}
	for i := range t.jobs[:min(mostJobs, len(t.jobs))] {
		s.Jobs = append(s.Jobs, t.jobStatus(&t.jobs[i]))
	}
	for _, a := range t.running {
		s.Running = append(s.Running, RunningJob{
			JobStatus: t.jobStatus(&a.job), Began: milli(a.began), Progress: a.progress.Snapshot(),
		})
	}
	slices.SortFunc(s.Running, func(a, b RunningJob) int { return cmp.Compare(a.Began, b.Began) })
	return s
}

func (t *tenantState) jobStatus(j *plan.Job) JobStatus {
	s := JobStatus{
		ID: j.ID, Kind: j.Kind, Reason: j.Reason, MinTime: j.MinTime, MaxTime: j.MaxTime,
		Blocks: j.Blocks[:min(mostNamed, len(j.Blocks))], Inputs: len(j.Blocks), Bytes: j.InputBytes,
	}
	if tried := t.trials[j.ID]; tried != nil {
		s.Failures, s.Again, s.LastError = tried.failures, milli(tried.again), tried.err
	}
	return s
}

func milli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
