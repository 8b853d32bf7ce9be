package distributor

import (
	"sync"
	"time"
)

// rateBucket is a token bucket of samples for one tenant, asked once per request. Rate and burst are arguments, since
// limits are asked for and never copied.
//
// It goes into debt: a request passes while anything is left, whatever its size, and those after it wait. So no
// request is too large to pass at all, and one that has to wait is told before its body is read.
type rateBucket struct {
	mu     sync.Mutex
	tokens float64
	at     time.Time // when tokens was right; zero before the first request
}

// take takes n samples and returns zero, or takes nothing and returns how long to wait. n may be 0, to ask.
func (b *rateBucket) take(now time.Time, rate, burst float64, n int) (wait time.Duration) {
	if rate <= 0 {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	burst = max(burst, 1)
	if b.at.IsZero() {
		b.tokens, b.at = burst, now
	}
	if d := now.Sub(b.at); d > 0 {
		b.tokens, b.at = b.tokens+d.Seconds()*rate, now
	}
	b.tokens = min(b.tokens, burst)
	if b.tokens <= 0 {
		return max(time.Millisecond, time.Duration(-b.tokens/rate*float64(time.Second)))
	}
	b.tokens -= float64(n)
	return 0
}

// giveBack returns the samples of a request that was not stored: its retry must not meet a 429, which senders drop.
func (b *rateBucket) giveBack(n int) {
	b.mu.Lock()
	b.tokens += float64(n)
	b.mu.Unlock()
}
