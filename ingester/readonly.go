package ingester

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"
)

// SetReadOnly makes every later push fail with Unavailable, or ends that. Queries, cuts and shipping go on. A push that
// is under way may still succeed; Unshipped counts it.
func (i *Ingester) SetReadOnly(readOnly bool) { i.readOnly.Store(readOnly) }

// beginPush counts a push that is under way, unless the ingester takes none. The count comes first: who sets readOnly
// and then finds no push under way knows that there will be none. endPush has to follow a nil.
func (i *Ingester) beginPush() error {
	i.pushing.Add(1)
	if i.readOnly.Load() {
		i.endPush()
		return unavailable(errReadOnly, time.Second)
	}
	return nil
}

func (i *Ingester) endPush() { i.pushing.Add(-1) }

// Unshipped names the tenants of which the bucket is not known to have everything, in order. While pushes are under way
// it may miss what they store; pushes is their number.
func (i *Ingester) Unshipped() (tenants []string, pushes int) {
	pushes = int(i.pushing.Load()) // before the tenants: a push that is over by then is seen in its tenant
	for _, t := range i.tenants.all() {
		if t.lookAtShipped() != nothingUnshipped {
			tenants = append(tenants, t.id)
		}
	}
	slices.Sort(tenants)
	return tenants, pushes
}

// Empty cuts and ships once everything that the bucket has not, up to the present. What is ahead of the clock stays for
// later; Unshipped says whether something is left. The error joins those of single tenants, which do not stop the others.
func (i *Ingester) Empty(ctx context.Context) error {
	var errs []error
	tenants, _ := i.Unshipped()
	for _, id := range tenants {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		if _, err := i.Flush(ctx, id, true); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// End returns a time in milliseconds that is above the timestamp of every sample that this ingester holds, and not before
// the present: it is the floor of one that leaves. Tenants that were closed because they idled are older than that.
func (i *Ingester) End() int64 {
	end := i.now().UnixMilli()
	for _, t := range i.tenants.all() {
		l := t.tryAcquire()
		if l == nil {
			continue
		}
		if highest := l.highest.Load(); highest != math.MinInt64 {
			end = max(end, highest+1)
		}
		if ooo := l.db.Head().MaxOOOTime(); ooo != math.MinInt64 {
			end = max(end, ooo+1)
		}
		for _, b := range l.db.Blocks() {
			end = max(end, b.MaxTime())
		}
		l.release()
	}
	return end
}
