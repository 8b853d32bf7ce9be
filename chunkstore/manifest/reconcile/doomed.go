package reconcile

import (
	"context"
	"time"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/tenantmark"
)

// passDoomed does what a pass has to do for a tenant that is to be deleted, and reports whether it is one: its folder is
// not compared then, because nothing may be lost by it in the time of grace, and nothing is left afterwards. It brings mark
// and manifest in step. The caller holds t.mu.
func (r *Reconciler) passDoomed(
	ctx context.Context, tenantID string, t *tenantState, now time.Time, marks map[string]tenantmark.Mark,
) (bool, error) {
	m, err := r.owner.Observe(ctx, tenantID)
	if err != nil {
		return false, nil //nolint:nilerr // the comparison meets it again, and says so
	}
	mark, marked := marks[tenantID]
	pending := marked && !mark.Finished() // a peer's that is finished is about what is gone
	if pending && (m == nil || !m.Deleting()) {
		// The manifest is asked after the mark was seen, so that it has what whoever put the mark wrote before.
		if m, err = r.owner.Refresh(ctx, tenantID); err == nil && !m.Deleting() {
			m, err = r.followMark(ctx, tenantID, m, mark)
		}
		if err != nil {
			return false, err
		}
	}
	if !pending && m != nil && m.Deleting() {
		// Perhaps another process has taken it back.
		if m, err = r.owner.Refresh(ctx, tenantID); err != nil {
			return false, err
		}
	}
	switch {
	case m == nil || m.Doomed == nil:
		t.receipted = false
		return false, nil
	case m.Deleting():
		t.receipted = false
		return true, r.advance(ctx, tenantID, t, m, pending, now)
	case !t.receipted:
		_, err := tenantmark.Purge(ctx, r.bkt, r.owner, tenantID, now, r.log)
		t.receipted = err == nil
		return false, err
	default:
		return false, nil
	}
}

// followMark has the manifest of a tenant that is not being deleted follow an unfinished mark. One of ours is what a
// withdrawal has left, or what is to be finished; one of a peer is a request.
func (r *Reconciler) followMark(
	ctx context.Context, tenantID string, m *manifest.Manifest, mark tenantmark.Mark,
) (*manifest.Manifest, error) {
	switch {
	case m.Doomed != nil && m.Doomed.FinishedAt >= mark.DeletionTime*1000:
		return m, nil // the receipt is written anew
	case mark.Duramen != nil:
		return m, tenantmark.Remove(ctx, r.bkt, tenantID)
	}
	d, err := r.owner.Doom(ctx, tenantID, r.cfg.TenantDeletionGrace)
	if err != nil {
		return nil, err
	}
	r.log.Warn("tenant is to be deleted by a peer's mark", "tenant", tenantID, "grace_until", time.UnixMilli(d.GraceUntil).UTC())
	return r.owner.Current(ctx, tenantID)
}

// advance brings a tenant that is to be deleted one step further.
func (r *Reconciler) advance(
	ctx context.Context, tenantID string, t *tenantState, m *manifest.Manifest, marked bool, now time.Time,
) error {
	r.owner.Compared(tenantID) // what lies there is left out on purpose
	t.rest = rest{}
	if !marked && t.unmarked {
		// Not before the second time: whoever takes the request back removes the mark after the manifest has it.
		if err := tenantmark.Write(ctx, r.bkt, tenantID, tenantmark.Of(*m.Doomed)); err != nil {
			return err
		}
	}
	t.unmarked = !marked
	if now.UnixMilli() < m.Doomed.GraceUntil {
		return nil
	}
	if r.cfg.Stop != nil && !r.cfg.Stop(tenantID) {
		r.log.Info("tenant is purged when nothing is written for it any more", "tenant", tenantID)
		return nil
	}
	finished, err := tenantmark.Purge(ctx, r.bkt, r.owner, tenantID, now, r.log)
	if finished {
		t.receipted = true
		r.metrics.purged.Inc()
	}
	return err
}
