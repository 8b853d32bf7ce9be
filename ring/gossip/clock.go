package gossip

import (
	"time"

	"github.com/duramendb/duramen/ring"
)

const (
	// maxSkew is how far a member's clock may be from this one's before it is flagged. Gossip takes a second or two.
	maxSkew = 10 * time.Second
	// clockSamples is how many heartbeats are looked at: the quickest of them tells the clock from the way.
	clockSamples = 3
)

// clock is what is known of another member's clock: how far the last heartbeats were ahead of this clock as they came.
type clock struct {
	ahead [clockSamples]time.Duration
	count int
}

// noteClock takes a heartbeat that has just come, before it is merged. The caller holds the mutex.
func (n *Node) noteClock(e *ring.Entry, now time.Time) {
	if e.Forgotten != nil {
		delete(n.clocks, e.ID())
		return
	}
	old, known := n.table.Get(e.ID())
	if e.ID() == n.self.ID || known && old.Forgotten == nil && (old.Member.Epoch > e.Member.Epoch ||
		old.Member.Epoch == e.Member.Epoch && old.Member.Counter >= e.Member.Counter) {
		return
	}
	c := n.clocks[e.ID()]
	if c == nil {
		c = &clock{}
		n.clocks[e.ID()] = c
	}
	c.ahead[c.count%clockSamples] = time.UnixMilli(e.Member.Heartbeat).Sub(now)
	c.count++
}

// skew is how far the clock is ahead, behind when negative; 0 while too little is known, and below maxSkew.
func (c *clock) skew() time.Duration {
	if c == nil || c.count == 0 {
		return 0
	}
	best := c.ahead[0]
	for _, ahead := range c.ahead[:min(c.count, clockSamples)] {
		best = max(best, ahead)
	}
	if best > maxSkew || best < -maxSkew && c.count >= clockSamples {
		return best
	}
	return 0
}
