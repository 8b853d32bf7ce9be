package tenantmark

import (
	"context"
	"time"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
)

// Requests takes requests to delete tenants, in any process. Safe for concurrent use.
type Requests struct {
	bkt   bucket.Bucket
	owner Owner
	grace time.Duration
	// told is called after marks have changed, for those in this process who follow them.
	told func()
}

// NewRequests returns what takes requests. told is called after marks have changed; it must not block, and may be nil.
func NewRequests(bkt bucket.Bucket, owner Owner, grace time.Duration, told func()) *Requests {
	if told == nil {
		told = func() {}
	}
	return &Requests{bkt: bkt, owner: owner, grace: grace, told: told}
}

// Status is what is known of a tenant's deletion, as peers answer it and beyond. Times are in milliseconds since the Unix
// epoch, 0 where there is none.
type Status struct {
	TenantID string `json:"tenant_id"`
	// BlocksDeleted is the peers' field: the tenant has no block in the bucket, and none is on its way.
	BlocksDeleted bool   `json:"blocks_deleted"`
	State         string `json:"state"`
	RequestedAt   int64  `json:"requested_at,omitempty"`
	GraceUntil    int64  `json:"grace_until,omitempty"`
	FinishedAt    int64  `json:"finished_at,omitempty"`
	DeletedBlocks int    `json:"deleted_blocks,omitempty"`
	DeletedBytes  int64  `json:"deleted_bytes,omitempty"`
	Blocks        int    `json:"blocks"`
}

// The states of a deletion.
const (
	StateNone     = "none"     // nobody has asked for it
	StateGrace    = "grace"    // it can be taken back
	StateDeleting = "deleting" // it cannot
	StateDeleted  = "deleted"  // nothing was left; what is there now is new
)

// Delete asks for a tenant to be deleted. It may be repeated, and has to be after an error, when it may or may not be noted.
// Errors are those of the bucket and of the manifest.
func (r *Requests) Delete(ctx context.Context, tenantID string) (Status, error) {
	// The manifest first: a mark of ours without it is what a withdrawal left.
	if _, err := r.owner.Refresh(ctx, tenantID); err != nil {
		return Status{}, err
	}
	d, err := r.owner.Doom(ctx, tenantID, r.grace)
	if err == nil {
		err = Write(ctx, r.bkt, tenantID, Of(d))
	}
	r.told()
	if err != nil {
		return Status{}, err
	}
	return r.Status(ctx, tenantID)
}

// Undelete takes a request back. It is an error of kind Gone when blocks are being deleted, or were. It may be repeated, and
// has to be after another error.
func (r *Requests) Undelete(ctx context.Context, tenantID string) (Status, error) {
	m, err := r.owner.Refresh(ctx, tenantID)
	if err != nil {
		return Status{}, err
	}
	if m.Doomed == nil || m.Doomed.FinishedAt == 0 {
		if err := r.owner.Reprieve(ctx, tenantID); err != nil {
			if errkind.Of(err) == errkind.Unprocessable {
				err = errkind.Wrap(errkind.Gone, err)
			}
			return Status{}, err
		}
		if err := Remove(ctx, r.bkt, tenantID); err != nil {
			return Status{}, err
		}
		r.told()
		return r.Status(ctx, tenantID)
	}
	return Status{}, errkind.New(errkind.Gone, "tenant %s was deleted at %s: nothing is left to bring back", tenantID,
		time.UnixMilli(m.Doomed.FinishedAt).UTC().Format(time.RFC3339))
}

// Status says how far the deletion of a tenant is.
func (r *Requests) Status(ctx context.Context, tenantID string) (Status, error) {
	m, err := r.owner.Refresh(ctx, tenantID)
	if err != nil {
		return Status{}, err
	}
	return statusOf(m), nil
}

func statusOf(m *manifest.Manifest) Status {
	s := Status{TenantID: m.Tenant, State: StateNone, Blocks: len(m.Blocks)}
	d := m.Doomed
	if d == nil {
		s.BlocksDeleted = len(m.Blocks) == 0
		return s
	}
	s.RequestedAt, s.GraceUntil, s.FinishedAt = d.RequestedAt, d.GraceUntil, d.FinishedAt
	s.DeletedBlocks, s.DeletedBytes = d.Blocks, d.Bytes
	switch {
	case d.FinishedAt != 0:
		s.State, s.BlocksDeleted = StateDeleted, len(m.Blocks) == 0
	case d.Blocks > 0:
		s.State = StateDeleting
	default:
		s.State = StateGrace
	}
	return s
}
