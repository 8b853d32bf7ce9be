package ingester

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/duramendb/duramen/internal/errkind"
)

// FlushResult says what a flush of one tenant did.
type FlushResult struct {
	Tenant string `json:"tenant"`
	// FlushedUpToMs: everything accepted before the flush with a timestamp up to this, in milliseconds since the Unix
	// epoch, is in blocks. What is newer, that is ahead of the clock, stays in memory. 0 when there was never a sample.
	FlushedUpToMs int64 `json:"flushed_up_to_ms"`
	// Blocks were cut by this flush.
	Blocks []ulid.ULID `json:"blocks"`
}

// Flush cuts all that a tenant has in memory into blocks, up to now. With wait it returns when every local block is in
// the bucket and listed in the manifest; without, shipping follows soon. It may be repeated.
//
// Errors are NotFound for a tenant that this ingester does not know, Unavailable when the bucket cannot be reached.
func (i *Ingester) Flush(ctx context.Context, tenantID string, wait bool) (FlushResult, error) {
	res := FlushResult{Tenant: tenantID, Blocks: []ulid.ULID{}}
	if err := i.serving(); err != nil {
		return res, err
	}
	t, err := i.tenants.get(tenantID, false)
	if err != nil {
		return res, err
	}
	if t == nil {
		return res, errkind.New(errkind.NotFound, "tenant %q has no data here", tenantID)
	}
	l, err := t.acquire(ctx)
	if err != nil {
		return res, err
	}
	defer l.release()
	upTo := min(i.now().UnixMilli(), l.highest.Load())
	cut, err := l.cut(ctx, upTo)
	res.Blocks = append(res.Blocks, cut...) // none is [] in JSON
	if err != nil {
		return res, fmt.Errorf("flush tenant %s: %w", tenantID, err)
	}
	if upTo != math.MinInt64 {
		res.FlushedUpToMs = upTo
	}
	if !wait {
		i.poke(i.shipPoke)
		return res, nil
	}
	if err := i.ship(ctx, l); err != nil { // who waits ships, and not the loop: the request's trace shows it
		i.poke(i.shipPoke)
		return res, errkind.Wrap(errkind.Unavailable, fmt.Errorf("flush tenant %s: %w", tenantID, err))
	}
	if n := len(l.blocks.unshipped(l.db.Blocks())); n > 0 {
		return res, errkind.New(errkind.Unavailable, "flush tenant %s: %d blocks are not in the bucket yet", tenantID, n)
	}
	return res, nil
}

// ship uploads and lists all local blocks of the tenant, one call at a time. It ends with the tenant's life.
func (i *Ingester) ship(ctx context.Context, l *life) error {
	if err := i.mayShip(ctx, l.tenant); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.ending, cancel)()
	select {
	case l.shipTurn <- struct{}{}:
		defer func() { <-l.shipTurn }()
	case <-ctx.Done():
		return fmt.Errorf("wait for an earlier ship: %w", ctx.Err())
	}
	if len(l.report.Quarantined) > 0 {
		m, err := i.catalog.Current(ctx, l.tenant.id)
		if err != nil {
			return err
		}
		l.quarantine.learn(l.report.Quarantined, m)
	}
	head := l.db.Head()
	return errors.Join(
		i.shipper.ship(ctx, l.tenant.id, l.blocks, l.db.Blocks()),
		recordLoss(ctx, i.catalog, l.tenant.id, l.report.LostWAL, i.limits.OutOfOrderWindow(l.tenant.id),
			head.MinTime(), head.MaxTime()),
	)
}

// wantsCut reports whether the head spans three hours: the oldest two are then cut. The hour between is for samples that
// come late, which would otherwise all go the slower way of out-of-order ones.
func (l *life) wantsCut() bool {
	h := l.db.Head()
	mint, maxt := h.MinTime(), h.MaxTime()
	return mint != math.MaxInt64 && maxt-mint > blockRange.Milliseconds()*3/2
}

// cutRegularly cuts all whole block ranges that lie an hour behind the newest sample, and what is out of order.
func (l *life) cutRegularly(ctx context.Context) error {
	for l.wantsCut() {
		if _, err := l.cut(ctx, rangeEnd(l.db.Head().MinTime())); err != nil {
			return err
		}
	}
	return nil
}

// cut turns everything in order with t ≤ upTo and everything out of order into blocks. A block never crosses a border
// between block ranges. It returns the new blocks. Pushes go on meanwhile; queries that began before
// and touch the span are waited for.
func (l *life) cut(ctx context.Context, upTo int64) (cut []ulid.ULID, err error) {
	ctx, span := l.tenant.set.cfg.Tracing.Task(ctx, "ingester.cut")
	defer func() { endCutSpan(span, l.tenant.id, upTo, cut, err) }()
	l.cutMu.Lock()
	defer l.cutMu.Unlock()
	l.cutting.Store(true)
	defer l.cutting.Store(false)
	m, begin := l.tenant.set.metrics, time.Now()
	before := l.blockSet()
	defer func() {
		for _, b := range l.db.Blocks() {
			if id := b.Meta().ULID; !before[id] {
				cut = append(cut, id)
			}
		}
		m.cutSeconds.Observe(time.Since(begin).Seconds())
		if err != nil {
			m.cuts.WithLabelValues("failed").Inc()
			return
		}
		m.cuts.WithLabelValues("ok").Inc()
		l.lastFlush.Store(l.tenant.set.now().UnixMilli())
	}()

	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return cut, err
		}
		if more, err = l.cutSlice(upTo); err != nil {
			return cut, err
		}
	}
	if l.takeOOOPending() {
		if err := l.db.CompactOOOHead(ctx); err != nil {
			l.oooPending.Store(true)
			return cut, err
		}
	}
	return cut, nil
}

// cutSlice turns what is in order up to the end of the head's first block range, but not beyond upTo, into one block. It
// reports whether there may be more.
//
// No sample may enter that span in order once the block is read from it. So under appendMu, when no appender is open, the
// span is chosen and the head is told that nothing in it or before is valid any more. Every later appender sees that, and
// what arrives for the span goes out of order, into its own log and a block of its own: within the out-of-order window
// nothing is refused. Stock's way, SetMinValidTime and then a wait for older appenders, sleeps half a second at a time and
// has a gap between the moment an appender reads the bound and the moment it is counted. The lower end is read under the
// lock, too: a push that is under way lowers it when it commits. The read needs no isolation, for all that is in the span
// is committed.
func (l *life) cutSlice(upTo int64) (more bool, err error) {
	head := l.db.Head()
	l.appendMu.Lock()
	mint := head.MinTime()
	maxt := min(upTo, rangeEnd(mint))
	if l.broken != nil || mint > min(upTo, l.highest.Load()) {
		defer l.appendMu.Unlock()
		return false, l.broken
	}
	l.setValidFrom(maxt + 1)
	l.lowest = math.MaxInt64
	l.appendMu.Unlock()

	if err := l.db.CompactHead(tsdb.NewRangeHeadWithIsolationDisabled(head, mint, maxt)); err != nil {
		return false, err
	}

	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	l.setValidFrom(maxt + 1) // truncation sets the bound, too, and may have set it lower
	if head.MinTime() <= mint {
		return false, fmt.Errorf("cut of [%d, %d] moved nothing", mint, maxt)
	}
	return true, l.checkHidden()
}

// setValidFrom raises the time below which nothing enters in order. The caller holds appendMu.
func (l *life) setValidFrom(t int64) {
	l.validFrom = max(l.validFrom, t)
	l.db.Head().SetMinValidTime(l.validFrom)
}

// checkHidden looks for a race in stock's truncation: it raises the head's lower bound to the oldest chunk that its sweep
// saw, but a sample may have been appended behind the sweep and below that. It would be in memory and in the log, and no
// query or cut would see it. A replay brings it back. The race takes a jump of the newest timestamp by an hour during
// one sweep, so this costs nothing in practice.
//
// The caller holds appendMu.
func (l *life) checkHidden() error {
	if l.lowest >= l.db.Head().MinTime() {
		return nil
	}
	l.tenant.set.metrics.hidden.Inc()
	l.broken = errHidden
	l.tenant.fail(l, errHidden, false)
	return unavailable(errHidden, time.Second)
}

func (l *life) blockSet() map[ulid.ULID]bool {
	set := map[ulid.ULID]bool{}
	for _, b := range l.db.Blocks() {
		set[b.Meta().ULID] = true
	}
	return set
}

// rangeEnd returns the last millisecond of the block range that t lies in.
func rangeEnd(t int64) int64 {
	width := blockRange.Milliseconds()
	begin := t / width * width
	if begin > t { // division rounds towards zero, a range begins at or before t
		begin -= width
	}
	return begin + width - 1
}

// takeOOOPending reports whether something is stored out of order, and clears the mark. Under appendMu, because a push sets
// the mark before its Commit: cleared in between, it would hide what is then committed.
func (l *life) takeOOOPending() bool {
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	return l.oooPending.Swap(false)
}
