package replicate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/duramendb/duramen/internal/errkind"
)

const (
	// firstBackoff and maxBackoff are the waits before a failed section is sent again: a member that restarts refuses
	// connections at once, so that a try costs little.
	firstBackoff = 10 * time.Millisecond
	maxBackoff   = 100 * time.Millisecond
	// maxNamed bounds the members that an error names.
	maxNamed = 5
)

// backoff is the wait before the next try, with up to a half taken off by chance.
func backoff(tries int) time.Duration {
	d := maxBackoff
	if tries < 4 {
		d = firstBackoff << tries
	}
	return d - rand.N(d/2)
}

// wait returns when all samples are decided, or cannot be any more. Meanwhile it does what answers ask for: sections whose
// references are stale go again with labels, and those that failed go again while somebody needs their answers.
func (p *push) wait(ctx context.Context) error {
	if p.timer == nil {
		p.timer = time.NewTimer(time.Until(p.deadline))
	} else {
		p.timer.Reset(time.Until(p.deadline))
	}
	defer p.timer.Stop()
	at := p.deadline // what the timer is set to
	for {
		t := p.todo(time.Now())
		switch {
		case t.decided:
			return nil
		case t.over:
			return p.noQuorum()
		}
		for _, s := range t.stale {
			p.resendStale(s)
		}
		for _, s := range t.due {
			p.resend(s)
		}
		if len(t.stale)+len(t.due) > 0 {
			continue
		}
		if !t.next.Equal(at) {
			at = t.next
			p.timer.Reset(time.Until(at))
		}
		select {
		case <-p.signal:
		case <-p.timer.C:
			at = time.Time{}
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return p.noQuorum()
			}
			return ctx.Err()
		}
	}
}

// todo is what the goroutine of Push has to do next.
type todo struct {
	decided, over bool
	stale, due    []*section
	next          time.Time // when to look again at the latest
}

// todo takes what is to be done now.
func (p *push) todo(now time.Time) (t todo) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t.next = p.deadline
	switch {
	case p.ledger.undecided == 0 && p.heard():
		t.decided = true
		return t
	case p.ledger.undecided == 0 || !now.Before(p.deadline):
		t.over = true
		return t
	}
	t.stale, p.stale = p.stale, nil
	kept := p.failed[:0]
	waiting := false
	for _, s := range p.failed {
		switch needed := !final(s.err) && p.ledger.needs(s.items); {
		case needed && !s.next.After(now):
			t.due = append(t.due, s)
			continue
		case needed:
			waiting = true
			if s.next.Before(t.next) {
				t.next = s.next
			}
		}
		kept = append(kept, s)
	}
	clear(p.failed[len(kept):])
	p.failed = kept
	t.over = len(t.stale)+len(t.due)+len(p.flying) == 0 && !waiting
	return t
}

// final reports whether an error says that a section can never be stored as it is: it is not sent again.
func final(err error) bool {
	kind := errkind.Of(err)
	return kind == errkind.Invalid || kind == errkind.TooLarge || kind == errkind.Gone
}

// heard reports whether anybody has answered, for a push that has no samples: metadata and exemplars need no quorum, but
// when nobody has them they ought to come again.
func (p *push) heard() bool {
	bare := true
	for i := range p.ledger.items {
		it := &p.ledger.items[i]
		if it.samples() > 0 || it.answers > 0 {
			return true
		}
		bare = false
	}
	return bare // everything was stale
}

// noQuorum says which samples lack a quorum, and who did not answer.
func (p *push) noQuorum() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.r.metrics.noQuorum.Inc()
	worst, samples := p.ledger.lacking()
	if err := p.impossible(); err != nil {
		return err
	}
	var text strings.Builder
	if worst == nil {
		text.WriteString("no replica answered")
	} else {
		fmt.Fprintf(&text, "no quorum for %d of %d samples: %d of %d replicas answered where %d are needed", samples,
			len(p.b.Floats)+len(p.b.Histograms), worst.answers, worst.replicas, p.ledger.quorum)
	}
	for _, why := range p.whoFailed() {
		text.WriteString("; ")
		text.WriteString(why)
	}
	return errkind.New(errkind.Unavailable, "%s", text.String())
}

// impossible returns the error of a section that can never be stored, if nothing else is to blame.
func (p *push) impossible() (err error) {
	if len(p.flying) > 0 {
		return nil
	}
	for _, s := range p.failed {
		switch {
		case !p.ledger.needs(s.items):
		case !final(s.err):
			return nil
		default:
			err = fmt.Errorf("%s: %w", s.to.id, s.err)
		}
	}
	return err
}

// whoFailed names the members that have not answered for undecided samples, and why.
func (p *push) whoFailed() (out []string) {
	why := map[string]string{}
	for _, s := range slices.Concat(p.failed, p.flying, p.stale) {
		if !p.ledger.needs(s.items) && p.ledger.undecided > 0 {
			continue
		}
		name := s.to.id
		if s.to.zone != "" {
			name += " in zone " + s.to.zone
		}
		switch {
		case s.err != nil:
			why[name] = s.err.Error()
		case why[name] == "":
			why[name] = "no answer within " + p.r.cfg.PushTimeout.String()
		}
	}
	for name, reason := range why {
		if len(reason) > 200 {
			reason = strings.ToValidUTF8(reason[:200], "") + "…"
		}
		out = append(out, name+": "+reason)
	}
	slices.Sort(out)
	if more := len(out) - maxNamed; more > 0 {
		out = append(out[:maxNamed], fmt.Sprintf("%d more", more))
	}
	return out
}
