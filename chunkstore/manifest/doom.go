package manifest

import (
	"context"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"
)

// Deleting reports whether the tenant is to be deleted and something may be left of it.
func (m *Manifest) Deleting() bool { return m.Doomed != nil && m.Doomed.FinishedAt == 0 }

// finished reports whether a tenant of that name was deleted and nothing was left of it.
func (m *Manifest) finished() bool { return m.Doomed != nil && m.Doomed.FinishedAt != 0 }

// Bygone reports whether a block is of the tenant that was deleted before this one began anew: it was made before nothing
// was left, and all of its samples are as old as that tenant.
func (m *Manifest) Bygone(b *Block) bool {
	return m.finished() &&
		ulid.Time(b.ULID.Time()).UnixMilli() < m.Doomed.FinishedAt && b.MaxTime <= m.Doomed.GraceUntil
}

// Doom notes that a tenant is to be deleted: nobody may read it from now on, and until grace is over Reprieve takes that
// back. It returns what the manifest says then: a tenant that is being deleted already keeps its times. Errors are as for
// Add.
func (o *Owner) Doom(ctx context.Context, tenantID string, grace time.Duration) (TenantDeletion, error) {
	if err := o.edit(ctx, tenantID, "note deletion", doom{grace}); err != nil {
		return TenantDeletion{}, err
	}
	m, err := o.Current(ctx, tenantID)
	if err != nil || m.Doomed == nil {
		return TenantDeletion{}, err
	}
	return *m.Doomed, nil
}

// Reprieve takes Doom back. It is ErrConflict when blocks were taken out of the manifest already, or nothing is left of the
// tenant; of one that is not to be deleted it is a success.
func (o *Owner) Reprieve(ctx context.Context, tenantID string) error {
	return o.edit(ctx, tenantID, "take deletion back", reprieve{})
}

// Raze takes all blocks of a tenant out of its manifest for good, with their samples. It is ErrConflict unless the tenant
// is to be deleted and the time of grace is over by this owner's clock.
func (o *Owner) Raze(ctx context.Context, tenantID string) error {
	return o.edit(ctx, tenantID, "take out all blocks", raze{})
}

// FinishDoom notes that nothing is left of a tenant: it may begin anew. What the manifest remembers of the old one but its
// deletion is forgotten. It is ErrConflict unless the tenant is to be deleted and lists no block.
func (o *Owner) FinishDoom(ctx context.Context, tenantID string) error {
	return o.edit(ctx, tenantID, "note that all is deleted", finishDoom{})
}

func (o *Owner) edit(ctx context.Context, tenantID, what string, e edit) error {
	if _, err := o.submit(ctx, tenantID, e); err != nil {
		return fmt.Errorf("%s in manifest of tenant %s: %w", what, tenantID, err)
	}
	return nil
}

type doom struct{ grace time.Duration }

func (e doom) apply(d *draft) (Added, error) {
	if d.next.Deleting() {
		return Added{Version: d.version()}, nil
	}
	d.next.Doomed = &TenantDeletion{RequestedAt: d.at, GraceUntil: d.at + e.grace.Milliseconds()}
	d.changed = true
	return Added{Version: d.next.Version}, nil
}

type reprieve struct{}

func (reprieve) apply(d *draft) (Added, error) {
	t := d.next.Doomed
	switch {
	case t == nil:
		return Added{Version: d.version()}, nil
	case t.FinishedAt != 0:
		return Added{}, conflict("nothing is left of the tenant since %s", instant(t.FinishedAt))
	case t.Blocks > 0:
		return Added{}, conflict("the time of grace ended at %s and its blocks are being deleted", instant(t.GraceUntil))
	}
	d.next.Doomed = nil
	d.changed = true
	return Added{Version: d.next.Version}, nil
}

type raze struct{}

func (raze) apply(d *draft) (Added, error) {
	t := d.next.Doomed
	switch {
	case t != nil && t.FinishedAt != 0, t != nil && t.Blocks > 0 && len(d.next.Blocks) == 0:
		return Added{Version: d.version()}, nil
	case t == nil:
		return Added{}, conflict("the tenant is not to be deleted")
	case d.at != 0 && d.at < t.GraceUntil:
		return Added{}, conflict("the time of grace ends at %s", instant(t.GraceUntil))
	case len(d.next.Blocks) == 0:
		return Added{Version: d.version()}, nil
	}
	razed, remembered := *t, d.next.known().removed
	for i := range d.next.Blocks {
		b := &d.next.Blocks[i]
		razed.Blocks++
		razed.Bytes += b.SizeBytes + b.SidecarBytes
		if _, ok := remembered[b.ULID]; !ok {
			d.next.Removed = append(d.next.Removed, RemovedBlock{ULID: b.ULID, RemovedAt: d.at, Dropped: true})
		}
	}
	d.dropped += len(d.next.Blocks)
	d.next.Blocks, d.next.Doomed, d.changed = nil, &razed, true
	return Added{Version: d.next.Version}, nil
}

type finishDoom struct{}

func (finishDoom) apply(d *draft) (Added, error) {
	t := d.next.Doomed
	switch {
	case t != nil && t.FinishedAt != 0:
		return Added{Version: d.version()}, nil
	case t == nil:
		return Added{}, conflict("the tenant is not to be deleted")
	case len(d.next.Blocks) > 0:
		return Added{}, conflict("%d blocks are listed", len(d.next.Blocks))
	}
	finished := *t
	finished.FinishedAt = max(d.at, t.GraceUntil, 1)
	d.next.Doomed, d.next.Removed, d.next.Lost, d.next.Deletions = &finished, nil, nil, nil
	d.changed = true
	return Added{Version: d.next.Version}, nil
}

func instant(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }
