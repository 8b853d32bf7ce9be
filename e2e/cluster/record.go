package cluster

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Attempt is one request and what it was answered.
type Attempt struct {
	Begin  time.Time
	Took   time.Duration
	Target string
	// OK is an answer that settles the request as one wants it: a 2xx, or a right result.
	OK bool
	// Status is 0 when no answer came. Text says what was wrong.
	Status int
	Text   string
}

// End is when the answer came.
func (a Attempt) End() time.Time { return a.Begin.Add(a.Took) }

// String returns the attempt in one line.
func (a Attempt) String() string {
	return fmt.Sprintf("%s %s after %s: %d %s", a.Begin.Format("15:04:05.000"), a.Target, a.Took.Round(time.Millisecond), a.Status, a.Text)
}

// Record holds attempts. It is safe for concurrent use.
type Record struct {
	mu       sync.Mutex
	attempts []Attempt
}

func (r *Record) add(a Attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.attempts = append(r.attempts, a)
}

// Summary is what happened in a span of time.
type Summary struct {
	OK     int
	Failed []Attempt
	// Gap is the longest time in which no attempt succeeded; Slowest is the longest that a success took.
	Gap, Slowest time.Duration
}

// String returns the figures.
func (s Summary) String() string {
	return fmt.Sprintf("%d succeeded, %d failed, largest gap %s, slowest %s",
		s.OK, len(s.Failed), s.Gap.Round(time.Millisecond), s.Slowest.Round(time.Millisecond))
}

// First returns the first failures in lines.
func (s Summary) First() string {
	var text strings.Builder
	for _, a := range s.Failed[:min(3, len(s.Failed))] {
		text.WriteString("\n" + a.String())
	}
	return text.String()
}

// Between sums up the attempts that ended in [from, to]. The borders count as successes for the gap.
func (r *Record) Between(from, to time.Time) Summary {
	r.mu.Lock()
	attempts := slices.Clone(r.attempts)
	r.mu.Unlock()
	slices.SortFunc(attempts, func(a, b Attempt) int { return a.End().Compare(b.End()) })
	var s Summary
	last := from
	for _, a := range attempts {
		end := a.End()
		if end.Before(from) || end.After(to) {
			continue
		}
		if !a.OK {
			s.Failed = append(s.Failed, a)
			continue
		}
		s.OK++
		s.Slowest = max(s.Slowest, a.Took)
		s.Gap = max(s.Gap, end.Sub(last))
		last = end
	}
	s.Gap = max(s.Gap, to.Sub(last))
	slices.SortStableFunc(s.Failed, func(a, b Attempt) int { return cmp.Compare(a.Begin.UnixNano(), b.Begin.UnixNano()) })
	return s
}

// Of returns a record of what was asked of one target so far.
func (r *Record) Of(target string) *Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &Record{attempts: slices.DeleteFunc(slices.Clone(r.attempts), func(a Attempt) bool { return a.Target != target })}
}

// Since is Between from a time to now.
func (r *Record) Since(from time.Time) Summary { return r.Between(from, time.Now()) }

// succeeded returns how many attempts succeeded so far.
func (r *Record) succeeded() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, a := range r.attempts {
		if a.OK {
			n++
		}
	}
	return n
}
