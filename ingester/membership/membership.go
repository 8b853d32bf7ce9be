package membership

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/duramendb/duramen/internal/service"
	"github.com/duramendb/duramen/ring"
)

const (
	// tickInterval is how often a draining ingester looks for what is left, and any one how far it has shipped.
	tickInterval = 5 * time.Second
	// tellInterval is how old news of that may be. They matter for hours, and each is gossip to everybody.
	tellInterval = 30 * time.Second
	// leaveTimeout bounds how long a stop waits for the bucket. What is not there by then stays on this disk, and the
	// entry in the ring.
	leaveTimeout = 10 * time.Minute
	// leaveInterval is the pause between attempts to bring the rest to the bucket.
	leaveInterval = time.Second
)

// Ingester is the ingester of this process; see package ingester for what each method promises.
type Ingester interface {
	ShippedUpTo() int64
	SetReadOnly(readOnly bool)
	Unshipped() (tenants []string, pushes int)
	Empty(ctx context.Context) error
	End() int64
	LostBefore() int64
}

// Member is this process in the ring, as gossip.Node has it.
type Member interface {
	Self() ring.Member
	Update(fn func(m *ring.Member))
	LoseBefore(before int64) error
}

// Membership keeps the entry of an ingester true. Its life begins when the member has become ACTIVE and ends before
// anything else of the process does, because a member that leaves still answers queries. Safe for concurrent use.
type Membership struct {
	ingester Ingester
	member   Member
	note     string // the file that says that a shutdown is prepared
	onLeft   func() error
	now      func() time.Time
	log      *slog.Logger

	poke chan struct{} // wakes the tick; one waiting poke is enough

	mtx      sync.Mutex
	prepared int64 // since when, in ms; 0: not
	leaving  bool  // there is no way back
	lastErr  string
	told     time.Time // when ShippedUpTo was last announced
	lost     int64     // the highest LostBefore that was announced
}

// New prepares the membership of an ingester. Nothing is read or said before Restore and Service. dir is for a file that
// survives restarts; onLeft is called when the member has left and the next start is one of a newcomer.
func New(dir string, ingester Ingester, member Member, onLeft func() error, now func() time.Time,
	log *slog.Logger,
) *Membership {
	return &Membership{
		ingester: ingester, member: member, note: filepath.Join(dir, noteName), onLeft: onLeft, now: now, log: log,
		poke: make(chan struct{}, 1),
	}
}

// Service returns the membership's life. Start it when the member is ACTIVE, and stop it before all else.
func (m *Membership) Service() *service.Service {
	return service.NewService("ingester membership", service.Phases{
		Starting: m.starting, Running: m.running, Stopping: m.stopping,
	})
}

func (m *Membership) starting(context.Context) error {
	m.mtx.Lock()
	defer m.mtx.Unlock()
	shipped := m.ingester.ShippedUpTo()
	m.member.Update(func(self *ring.Member) {
		self.ShippedUpTo = shipped
		if m.prepared != 0 {
			self.State = ring.ReadOnly
		}
	})
	m.told = m.now()
	return m.tellLoss()
}

// tellLoss announces once what damage of write logs has cost. The caller holds the mutex.
func (m *Membership) tellLoss() error {
	lost := m.ingester.LostBefore()
	if lost <= m.lost {
		return nil
	}
	if err := m.member.LoseBefore(lost); err != nil {
		return fmt.Errorf("announce lost samples: %w", err)
	}
	m.lost = lost
	m.log.Warn("a damaged write log may have cost samples; queries of that time rely on the other zones until these have "+
		"shipped them", "before", time.UnixMilli(lost).UTC())
	return nil
}

func (m *Membership) running(ctx context.Context) error {
	tick := time.NewTicker(tickInterval)
	defer tick.Stop()
	for {
		m.look(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.poke:
		case <-tick.C:
		}
	}
}

// look brings a draining ingester's samples to the bucket, and says how far any one has shipped.
func (m *Membership) look(ctx context.Context) {
	if m.preparedAt() != 0 {
		m.empty(ctx)
	}
	shipped := m.ingester.ShippedUpTo()
	m.mtx.Lock()
	defer m.mtx.Unlock()
	if err := m.tellLoss(); err != nil {
		m.log.Error("lost samples not announced, trying again", "err", err)
	}
	if now := m.now(); m.prepared != 0 || now.Sub(m.told) >= tellInterval {
		m.told = now
		if m.member.Self().ShippedUpTo != shipped {
			m.member.Update(func(self *ring.Member) { self.ShippedUpTo = shipped })
		}
	}
}

// empty cuts and ships what can be, and remembers what went wrong.
func (m *Membership) empty(ctx context.Context) {
	err := m.ingester.Empty(ctx)
	text := ""
	if err != nil {
		if ctx.Err() != nil {
			return
		}
		text = err.Error()
		m.log.Warn("samples not brought to the bucket, trying again", "err", err)
	}
	m.mtx.Lock()
	defer m.mtx.Unlock()
	m.lastErr = text
}

func (m *Membership) preparedAt() int64 {
	m.mtx.Lock()
	defer m.mtx.Unlock()
	return m.prepared
}
