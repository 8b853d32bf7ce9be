package cli

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// How often progress is written: as a rewritten line a person watches, or as lines of a log.
const (
	everyOnTerminal = 200 * time.Millisecond
	everyInLog      = 10 * time.Second
)

// Progress tells on Stderr how far long work is. It starts no goroutine: it writes when it is told of progress. It is
// safe for concurrent use.
type Progress struct {
	env   Env
	what  string
	unit  string
	total int64
	now   func() time.Time

	mu             sync.Mutex
	done           int64
	started, wrote time.Time
	ended, shown   bool
}

// NewProgress begins to tell of work. what names it ("copy"), total is its size, or 0 when unknown, in unit: "bytes"
// are written in their multiples, any other unit by its name.
func NewProgress(env Env, what string, total int64, unit string) *Progress {
	return newProgress(env, what, total, unit, time.Now)
}

func newProgress(env Env, what string, total int64, unit string, now func() time.Time) *Progress {
	start := now()
	return &Progress{env: env, what: what, unit: unit, total: total, now: now, started: start, wrote: start}
}

// Add tells that n more are done.
func (p *Progress) Add(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += n
	p.write(false)
}

// Set tells that n are done altogether.
func (p *Progress) Set(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = n
	p.write(false)
}

// Clear makes room for another line on a terminal. The next Add or Set that is due writes the progress again.
func (p *Progress) Clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.env.Terminal && p.shown && !p.ended {
		fmt.Fprint(p.env.Stderr, "\r\x1b[K")
		p.shown = false
	}
}

// Done writes the last line. Calls after the first, and those of Add and Set after it, write nothing.
func (p *Progress) Done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.write(true)
	p.ended = true
}

// write writes a line when one is due. The caller holds mu.
func (p *Progress) write(last bool) {
	now := p.now()
	every := everyInLog
	if p.env.Terminal {
		every = everyOnTerminal
	}
	if p.ended || !last && now.Sub(p.wrote) < every {
		return
	}
	p.wrote = now
	line := p.line(now.Sub(p.started), last)
	switch {
	case !p.env.Terminal:
		fmt.Fprintln(p.env.Stderr, line)
	case last:
		fmt.Fprintf(p.env.Stderr, "\r%s\x1b[K\n", line)
	default:
		fmt.Fprintf(p.env.Stderr, "\r%s\x1b[K", line)
		p.shown = true
	}
}

// line is what is known: done of total, the mean rate since the start, and the time left at that rate.
func (p *Progress) line(elapsed time.Duration, last bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", p.what, quantity(p.done, p.unit))
	if p.total > 0 {
		fmt.Fprintf(&b, "/%s", quantity(p.total, p.unit))
	}
	if p.unit != "bytes" {
		fmt.Fprintf(&b, " %s", p.unit)
	}
	if p.total > 0 {
		fmt.Fprintf(&b, " (%d%%)", int(100*float64(p.done)/float64(p.total)))
	}
	rate := 0.0
	if elapsed > 0 {
		rate = float64(p.done) / elapsed.Seconds()
	}
	fmt.Fprintf(&b, ", %s/s", quantity(int64(rate), p.unit))
	switch {
	case last:
		fmt.Fprintf(&b, ", took %s", short(elapsed))
	case p.total > p.done && rate > 0:
		left := time.Duration(float64(p.total-p.done) / rate * float64(time.Second))
		fmt.Fprintf(&b, ", %s left", short(left))
	}
	return b.String()
}
