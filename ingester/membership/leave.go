package membership

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/duramendb/duramen/ring"
)

// stopping leaves the ring after a prepared shutdown. Any other stop is half of a restart: the samples stay on the disk,
// and the entry in the ring says so.
func (m *Membership) stopping(error) error {
	m.mtx.Lock()
	prepared := m.prepared != 0
	m.leaving = prepared
	m.mtx.Unlock()
	if !prepared {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	if err := m.leave(ctx); err != nil {
		m.log.Error("left with samples that are not in the bucket; they are on this disk, and a start goes on with them",
			"err", err)
		return err
	}
	return nil
}

// leave brings all that is held to the bucket and says then that nothing is left. Queries are answered until it returns.
func (m *Membership) leave(ctx context.Context) error {
	m.member.Update(func(self *ring.Member) { self.State = ring.Leaving })
	m.log.Info("leaving the ring")
	for !m.emptied() {
		m.empty(ctx)
		if m.emptied() {
			break
		}
		if err := m.wait(ctx, leaveInterval); err != nil {
			tenants, _ := m.ingester.Unshipped()
			return fmt.Errorf("leave the ring: %d tenants have samples that are not in the bucket: %s: %w", len(tenants),
				m.lastError(), err)
		}
	}
	// Below the floor readers ask the bucket alone. One in the future would be above the present of all queries.
	floor := m.ingester.End()
	for now := m.now().UnixMilli(); now < floor; now = m.now().UnixMilli() {
		if err := m.wait(ctx, time.Duration(floor-now)*time.Millisecond); err != nil {
			return fmt.Errorf("leave the ring: samples up to %s are ahead of the clock: %w",
				time.UnixMilli(floor).UTC().Format(time.RFC3339), err)
		}
	}
	// First the note: without it a crash at this point makes the next start an ACTIVE one, which is how it may begin, too.
	if err := errors.Join(m.removeNote(), m.onLeft()); err != nil {
		return fmt.Errorf("leave the ring: %w", err)
	}
	m.member.Update(func(self *ring.Member) {
		self.State, self.Floor, self.ShippedUpTo = ring.Left, floor, floor
	})
	m.log.Info("left the ring with everything in the bucket", "floor", time.UnixMilli(floor).UTC())
	return nil
}

// emptied reports whether the bucket has everything and nothing more can come.
func (m *Membership) emptied() bool {
	tenants, pushes := m.ingester.Unshipped()
	return len(tenants) == 0 && pushes == 0
}

func (m *Membership) lastError() string {
	m.mtx.Lock()
	defer m.mtx.Unlock()
	return m.lastErr
}

func (m *Membership) wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
