package reader

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
)

// session is a Session of a Local.
type session struct {
	l          *Local
	tenant     string
	blocks     []manifest.Block
	mint, maxt int64

	mem        reservation
	selections []*selection
	wg         sync.WaitGroup // of reads of chunks
	closed     bool

	// chunkBytes is what the query has found so far, against the tenant's limit.
	chunkBytes atomic.Int64
}

// Close implements Session.
func (s *session) Close() error {
	if s.closed {
		return ErrClosed
	}
	s.closed = true
	for _, sel := range s.selections {
		sel.cancel()
	}
	s.wg.Wait()
	for _, sel := range s.selections {
		sel.drop()
	}
	s.mem.close()
	return nil
}

// eachBlock calls fn for the number of each block, several at a time, until one fails.
func (s *session) eachBlock(ctx context.Context, fn func(ctx context.Context, i int) error) error {
	if len(s.blocks) == 1 {
		return fn(ctx, 0)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(s.l.cfg.ParallelBlocks)
	for i := range s.blocks {
		g.Go(func() error { return fn(ctx, i) })
	}
	return g.Wait()
}

// share is a part of a session's reservation: what one use wants and what it may have.
type share struct{ want, got int64 }

// reservation is what a session holds of the pool and how its uses share it. It never waits for memory while it holds
// some, because two such sessions could wait for each other.
type reservation struct {
	release []func()
	held    int64
	shares  []*share
}

// reserve makes room for one more use. When the pool does not give more at once, all memory is given back, after shed has
// emptied it, and asked for anew.
func (s *session) reserve(ctx context.Context, sh *share) error {
	m := &s.mem
	m.shares = append(m.shares, sh)
	more := m.wanted() - m.held
	if m.held > 0 && m.held+more <= s.l.pool.QueryBytes() {
		if release, ok := s.l.pool.TryAcquire(more); ok {
			m.hold(release, more)
			sh.got = sh.want
			return nil
		}
	}
	if m.held > 0 {
		s.Yield()
	}
	err := s.resume(ctx)
	if err != nil {
		s.giveBack(sh)
	}
	return err
}

// Yield gives all memory back to the pool, and what it held with it, for who cannot go on for a while. What is asked for
// later waits for memory and is read again. It is for the session's goroutine.
func (s *session) Yield() {
	for _, sel := range s.selections {
		sel.drop()
	}
	s.mem.free()
}

// resume waits for memory when the session has uses and holds none.
func (s *session) resume(ctx context.Context) error {
	m := &s.mem
	if m.held > 0 || len(m.shares) == 0 {
		return nil
	}
	wanted := m.wanted()
	n := min(wanted, s.l.pool.QueryBytes())
	release, err := s.l.pool.Acquire(ctx, s.tenant, n)
	if errors.Is(err, context.DeadlineExceeded) {
		return errkind.New(errkind.Limited, "query blocks of tenant %s: %w", s.tenant, err)
	}
	if err != nil {
		return err
	}
	m.hold(release, n)
	for _, sh := range m.shares {
		if sh.got = sh.want; n < wanted {
			sh.got = int64(float64(n) * (float64(sh.want) / float64(wanted)))
		}
	}
	for _, sel := range s.selections {
		sel.split()
	}
	return nil
}

// grow gives a use more if the pool has it at once.
func (s *session) grow(sh *share, want int64) {
	more := want - sh.got
	if more <= 0 || s.mem.held+more > s.l.pool.QueryBytes() {
		return
	}
	if release, ok := s.l.pool.TryAcquire(more); ok {
		s.mem.hold(release, more)
		sh.want, sh.got = want, want
	}
}

// giveBack ends a use. The memory goes back with the last one.
func (s *session) giveBack(sh *share) {
	s.mem.shares = slices.DeleteFunc(s.mem.shares, func(each *share) bool { return each == sh })
	if len(s.mem.shares) == 0 {
		s.mem.free()
	}
}

// wanted is what all uses want together.
func (m *reservation) wanted() (n int64) {
	for _, sh := range m.shares {
		n += sh.want
	}
	return n
}

func (m *reservation) hold(release func(), n int64) {
	m.release, m.held = append(m.release, release), m.held+n
}

func (m *reservation) free() {
	for _, release := range m.release {
		release()
	}
	m.release, m.held = nil, 0
	for _, sh := range m.shares {
		sh.got = 0
	}
}

func (m *reservation) close() {
	m.shares = nil
	m.free()
}
