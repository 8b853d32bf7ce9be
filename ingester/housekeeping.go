package ingester

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/duramendb/duramen/internal/errkind"
)

const (
	// tidyInterval is how often tenants are looked at for cuts and idleness. Pushes that fill a head poke before.
	tidyInterval = time.Minute
	// cutRetry is the pause after a cut that failed: a full disk or a slow query is not over in a second.
	cutRetry = time.Minute
	// shipConcurrency is how many tenants ship at a time; an upload is mostly waiting.
	shipConcurrency = 4
	// firstVisit is when after a start a tenant that was closed before is opened to look for old blocks.
	firstVisit = time.Hour
)

// cutLoop cuts heads that are due, one tenant after the other so that a thousand tenants do not take all cores and disks
// at the same full hour, and closes tenants that idle.
func (i *Ingester) cutLoop(ctx context.Context) error {
	tick := time.NewTicker(tidyInterval)
	defer tick.Stop()
	i.held.lookAtLogs()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-i.cutPoke:
			i.cutWanted(ctx)
		case <-tick.C:
			i.tidy(ctx)
			i.held.lookAtLogs()
		}
	}
}

// cutWanted cuts the heads whose pushes asked for it.
func (i *Ingester) cutWanted(ctx context.Context) {
	for _, t := range i.tenants.all() {
		l := t.tryAcquire()
		if l == nil {
			continue
		}
		if l.cutWanted.Load() && l.mayCut(i.now()) {
			i.cutRegularly(ctx, l)
			l.cutWanted.Store(false)
		}
		l.release()
	}
}

func (i *Ingester) cutRegularly(ctx context.Context, l *life) {
	if err := l.cutRegularly(ctx); err != nil {
		i.cutFailed(ctx, l, err)
		return
	}
	i.poke(i.shipPoke)
}

func (i *Ingester) cutFailed(ctx context.Context, l *life, err error) {
	l.cutRetryAt.Store(i.now().Add(cutRetry).UnixMilli())
	if ctx.Err() == nil {
		i.log.Error("blocks not cut", "tenant", l.tenant.id, "err", err)
	}
}

// mayCut reports whether the pause after a failed cut is over.
func (l *life) mayCut(now time.Time) bool { return now.UnixMilli() >= l.cutRetryAt.Load() }

// tidy looks at every tenant once.
func (i *Ingester) tidy(ctx context.Context) {
	for _, t := range i.tenants.all() {
		if ctx.Err() != nil {
			return
		}
		i.visit(ctx, t)
		l := t.tryAcquire()
		if l == nil {
			continue
		}
		i.tidyTenant(ctx, l)
		l.release()
		if err := t.closeIdle(l, func() bool { return i.closable(l) }); err != nil {
			i.log.Error("idle tenant not closed", "tenant", t.id, "err", err)
		}
	}
}

// tidyTenant cuts what is due: the regular ranges, or everything when the tenant idles.
func (i *Ingester) tidyTenant(ctx context.Context, l *life) {
	now := i.now()
	if !l.mayCut(now) {
		return
	}
	if l.wantsCut() {
		i.cutRegularly(ctx, l)
		l.cutWanted.Store(false)
	}
	if !i.idle(l, now) || l.nothingToCut() {
		return
	}
	if _, err := l.cut(ctx, min(now.UnixMilli(), l.highest.Load())); err != nil {
		i.cutFailed(ctx, l, err)
		return
	}
	i.poke(i.shipPoke)
}

// idle reports whether nothing was pushed for the idle timeout. A tenant that was opened for a query counts as pushed to
// at that time, so that a dashboard does not open and close it all the time.
func (i *Ingester) idle(l *life, now time.Time) bool {
	return now.UnixMilli()-l.lastAppend.Load() >= i.cfg.IdleTimeout.Milliseconds()
}

// nothingToCut reports whether all that is held is in blocks.
func (l *life) nothingToCut() bool {
	return l.highest.Load() < l.db.Head().MinTime() && !l.oooPending.Load()
}

// closable reports whether nothing needs the open TSDB: all is in blocks, all blocks are in the bucket and none is about
// to be deleted. It is asked when no handle is out, so no push is under way. It notes when to open the tenant again, to
// delete the oldest block.
func (i *Ingester) closable(l *life) bool {
	blocks := l.db.Blocks()
	now := i.now()
	if !i.idle(l, now) || !l.nothingToCut() || len(l.blocks.unshipped(blocks)) > 0 {
		return false
	}
	visit := int64(0)
	for _, b := range blocks {
		due := b.MaxTime() + i.cfg.BlockRetention.Milliseconds()
		if due <= now.UnixMilli() {
			return false // it goes as soon as it is listed for an hour
		}
		if visit == 0 || due < visit {
			visit = due
		}
	}
	l.tenant.visitAt.Store(visit)
	return true
}

// visit opens a closed tenant whose oldest local block has become old enough to go. Stock deletes at its next reload;
// then the tenant idles and is closed again.
func (i *Ingester) visit(ctx context.Context, t *tenantDB) {
	at := t.visitAt.Load()
	if at == 0 || i.now().UnixMilli() < at {
		return
	}
	l, err := t.acquire(ctx)
	if err != nil {
		return // tried again at the next tick
	}
	t.visitAt.Store(0)
	l.release()
}

// shipLoop uploads local blocks for ever: every interval, and soon after a cut.
func (i *Ingester) shipLoop(ctx context.Context) error {
	tick := time.NewTicker(i.cfg.ShipInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-i.shipPoke:
		case <-tick.C:
		}
		i.shipAll(ctx)
	}
}

// shipAll ships the tenants that are open and not in the pause after a failure. The shipper asks the manifest about every
// local block, which also tells which of them may be deleted; stock deletes them at its next reload, within a minute.
func (i *Ingester) shipAll(ctx context.Context) {
	var g errgroup.Group
	g.SetLimit(shipConcurrency)
	for _, t := range i.tenants.all() {
		if ctx.Err() != nil {
			break
		}
		if i.now().Before(i.shipper.nextAttempt(t.id)) {
			continue
		}
		g.Go(func() error {
			l := t.tryAcquire()
			if l == nil {
				return nil
			}
			defer l.release()
			if err := i.ship(ctx, l); err != nil && ctx.Err() == nil {
				i.log.Warn("blocks not shipped", "tenant", t.id, "err", err, "kind", errkind.Of(err).String())
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		i.log.Error("blocks not shipped", "err", err)
	}
}
