package fanout

import (
	"context"
	"errors"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/ring"
)

// errClosed means that a querier was used after its Close.
var errClosed = errors.New("querier is closed")

// session is what an opened querier knows: the view that it answers and the ring by which it was planned. Each call asks a
// quorum of that ring anew, so that an ingester that goes away between two of them costs nothing but its zone. One
// goroutine uses it.
type session struct {
	f          *Fanout
	tenantID   string
	view       duramenpb.View
	mint, maxt int64
	ring       *ring.Ring
	zones      []string // that planned, to be asked first
	every      bool     // zone is asked, not only as many as a quorum takes
	probe      func(context.Context, Member) error

	open   []*selecting
	closed bool
}

// Close ends all Selects, read or not. Their series are not valid any more. Further calls do nothing.
func (s *session) Close() error {
	s.closed = true
	for _, sel := range s.open {
		sel.close()
	}
	s.open = nil
	return nil
}

// listed is a list of one member.
type listed struct {
	values []string
	held   duramenpb.Held
}

// LabelValues implements storage.LabelQuerier.
func (s *session) LabelValues(
	ctx context.Context, name string, hints *storage.LabelHints, matchers ...*labels.Matcher,
) ([]string, annotations.Annotations, error) {
	return s.list(ctx, "label values", func(ctx context.Context, m Member) (l listed, err error) {
		l.values, l.held, err = m.LabelValues(ctx, s.tenantID, s.view, s.mint, s.maxt, name, hints, matchers...)
		return l, err
	})
}

// LabelNames implements storage.LabelQuerier.
func (s *session) LabelNames(
	ctx context.Context, hints *storage.LabelHints, matchers ...*labels.Matcher,
) ([]string, annotations.Annotations, error) {
	return s.list(ctx, "label names", func(ctx context.Context, m Member) (l listed, err error) {
		l.values, l.held, err = m.LabelNames(ctx, s.tenantID, s.view, s.mint, s.maxt, hints, matchers...)
		return l, err
	})
}

// list returns the distinct values of a quorum, in order. When hints limit them, each member gives any so many of its own,
// as a Prometheus does of its head.
func (s *session) list(
	ctx context.Context, what string, ask func(context.Context, Member) (listed, error),
) ([]string, annotations.Annotations, error) {
	got, err := askAgain(ctx, s, question[listed]{what: what, ask: ask})
	if err != nil {
		return nil, nil, err
	}
	var all []string
	for _, r := range got.replies {
		if !r.value.held.Fits(s.view, s.mint) {
			return nil, nil, outgrown(r.member.ID, r.value.held)
		}
		all = append(all, r.value.values...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil, nil
}

// askAgain asks a quorum of the session's ring. Without one the query has to be planned anew: the ring may be another by
// now, and a plan waits for those who are missing.
func askAgain[T any](ctx context.Context, s *session, q question[T]) (got gathered[T], err error) {
	if s.closed {
		return got, errClosed
	}
	q.mint, q.first, q.probe, q.every = s.mint, s.zones, s.probe, s.every
	got, err = gather(ctx, s.f, s.ring, q)
	var few *quorumError
	if errors.As(err, &few) {
		return got, brokenOff(err)
	}
	return got, err
}
