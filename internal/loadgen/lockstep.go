package loadgen

import (
	"context"
	"math"
	"slices"
	"sync"
)

// lockstep keeps connections from running away from one another: none begins a step more than ahead steps before the
// slowest has finished.
type lockstep struct {
	ahead int

	mu    sync.Mutex
	moved *sync.Cond
	at    []int // the step that each member is at
}

func newLockstep(members, ahead int) *lockstep {
	l := &lockstep{ahead: ahead, at: make([]int, members)}
	l.moved = sync.NewCond(&l.mu)
	return l
}

// enter waits until a member may be at a step. Whoever cancels ctx calls wake.
func (l *lockstep) enter(ctx context.Context, member, step int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at[member] = step
	l.moved.Broadcast()
	for ctx.Err() == nil && step > slices.Min(l.at)+l.ahead {
		l.moved.Wait()
	}
	return ctx.Err()
}

// leave says that a member has no further steps.
func (l *lockstep) leave(member int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at[member] = math.MaxInt - l.ahead
	l.moved.Broadcast()
}

// wake lets all members look at their contexts.
func (l *lockstep) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.moved.Broadcast()
}
