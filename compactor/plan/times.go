package plan

import (
	"math"
	"time"
)

const (
	slotLength = int64(2 * time.Hour / time.Millisecond)
	dayLength  = int64(24 * time.Hour / time.Millisecond)

	// shipGrace is when a slot counts as complete although ingesters have not said so, after its end: the head cuts a slot
	// about an hour after it ended, and a member that does not ship must not hold up all tenants.
	shipGrace = 2 * time.Hour
)

// span is a range of time, half-open, in milliseconds since the Unix epoch.
type span struct{ mint, maxt int64 }

// aligned returns the span of the given length, on the grid of the Unix epoch, that t lies in. Ends that no int64 can hold
// become the largest there is.
func aligned(t, length int64) span {
	offset := t % length
	if offset < 0 {
		offset += length
	}
	if t < math.MinInt64+offset {
		return span{math.MinInt64, math.MinInt64 + length}
	}
	return span{t - offset, plus(t-offset, length)}
}

// plus is a + b without wrapping round.
func plus(a, b int64) int64 {
	switch {
	case b > 0 && a > math.MaxInt64-b:
		return math.MaxInt64
	case b < 0 && a < math.MinInt64-b:
		return math.MinInt64
	}
	return a + b
}

// holds reports whether a block with these times lies in the span.
func (s span) holds(mint, maxt int64) bool { return s.mint <= mint && maxt <= s.maxt }

// complete reports whether the bucket has all of the span that ingesters will bring in the usual course: they say so, or
// it is over for long enough. Nothing is before the out-of-order window of its end is over, when that is asked for.
func (p *planner) complete(s span, window time.Duration) bool {
	over := plus(s.maxt, window.Milliseconds())
	return p.now >= over && (p.limits.ShippedUpTo >= s.maxt || p.now >= plus(over, shipGrace.Milliseconds()))
}
