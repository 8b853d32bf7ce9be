package reconcile

import (
	"context"
	"time"

	"github.com/duramendb/duramen/chunkstore/manifest"
)

// rest is what decides when a tenant's folder is worth a listing again. The zero value is one that was never listed.
type rest struct {
	// listed is when that happened last, grown when the youngest object came.
	listed, grown time.Time
	// next is when something that was too young then is old enough to be acted on, the zero time when nothing waits.
	next time.Time
	// again is set when the next pass has to look, whenever it comes.
	again bool
}

// restAfter returns what a pass leaves. One that failed is repeated.
func restAfter(listed time.Time, s *situation, wanted *plan, err error) rest {
	if s == nil || wanted == nil || err != nil {
		return rest{again: true}
	}
	next := rest{listed: listed, next: s.next, again: wanted.pending()}
	for _, f := range s.listing.folders {
		if f.newest.After(next.grown) {
			next.grown = f.newest
		}
	}
	return next
}

// due reports whether the folder is worth a listing. m is nil when nothing newer is known of it.
func (p *rest) due(m *manifest.Manifest, now time.Time, busy, idle time.Duration) bool {
	grown := p.grown
	if m != nil && time.UnixMilli(m.LastGrowth()).After(grown) {
		grown = time.UnixMilli(m.LastGrowth())
	}
	pause := manifest.Rest(now.Sub(grown), busy, idle)
	if pause > busy {
		pause -= busy / 2 // passes come at about that distance
	} else {
		pause = 0
	}
	return p.again || p.listed.IsZero() || now.Sub(p.listed) >= pause || !p.next.IsZero() && !now.Before(p.next)
}

// listDue reports whether a tenant's folder is to be listed now. It looks for a newer version of its manifest when that is
// worth a request. The caller holds t.mu.
func (r *Reconciler) listDue(ctx context.Context, tenantID string, t *tenantState) bool {
	m, err := r.owner.Observe(ctx, tenantID)
	return err != nil || t.rest.due(m, r.now(), r.cfg.ReconcileInterval, r.cfg.IdleReconcileInterval)
}

// refreshIndex writes the peers' index of a tenant that is not listed now, when that is behind. The caller holds t.mu.
func (r *Reconciler) refreshIndex(ctx context.Context, tenantID string, t *tenantState) {
	m := r.owner.Known(tenantID)
	if !r.cfg.PeerFiles || m == nil {
		return
	}
	if err := r.writeIndex(ctx, t.index, m); err != nil && ctx.Err() == nil {
		r.log.Warn("index of blocks for peers was not written", "tenant", tenantID, "err", err)
	}
}
