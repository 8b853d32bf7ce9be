package querier

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/prometheus/promql"

	"github.com/duramendb/duramen/internal/tracing"
)

// slots is the engine's tracker of active queries: it bounds how many run and writes nothing to disk. Queries that need
// the store get three of four slots at most, so that a store that hangs does not stop those over recent samples.
type slots struct {
	taken   chan struct{} // one value for each query that runs
	stored  chan struct{} // the same for those that need the store
	metrics *metrics
}

// The numbers that Insert gives to queries, for Delete.
const (
	recentSlot = iota
	storeSlot
)

func newSlots(n int, m *metrics) *slots {
	return &slots{taken: make(chan struct{}, n), stored: make(chan struct{}, n-n/4), metrics: m}
}

// GetMaxConcurrent returns the number of slots.
func (s *slots) GetMaxConcurrent() int { return cap(s.taken) }

// Insert waits for a slot until ctx ends.
func (s *slots) Insert(ctx context.Context, _ string) (int, error) {
	kind := recentSlot
	if needsStore(ctx) {
		kind = storeSlot
	}
	if s.takeFree(kind) { // at once; a query that is late already learns so from the engine
		s.metrics.waitSeconds.Observe(0)
		s.metrics.running.Inc()
		return kind, nil
	}
	_, span := tracing.Start(ctx, "querier.wait_for_slot")
	defer span.End()
	start := time.Now()
	if s.take(ctx, kind) {
		s.metrics.waitSeconds.Observe(time.Since(start).Seconds())
		s.metrics.running.Inc()
		return kind, nil
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return kind, promql.ErrQueryTimeout("waiting for other queries to end")
	}
	return kind, promql.ErrQueryCanceled("waiting for other queries to end")
}

// takeFree takes a slot if there is one.
func (s *slots) takeFree(kind int) bool {
	if kind == storeSlot {
		select {
		case s.stored <- struct{}{}:
		default:
			return false
		}
	}
	select {
	case s.taken <- struct{}{}:
		return true
	default:
		s.giveBackShare(kind)
		return false
	}
}

// take waits for a slot until ctx ends.
func (s *slots) take(ctx context.Context, kind int) bool {
	if kind == storeSlot {
		select {
		case s.stored <- struct{}{}:
		case <-ctx.Done():
			return false
		}
	}
	select {
	case s.taken <- struct{}{}:
		return true
	case <-ctx.Done():
		s.giveBackShare(kind)
		return false
	}
}

func (s *slots) giveBackShare(kind int) {
	if kind == storeSlot {
		<-s.stored
	}
}

// Delete gives a slot back.
func (s *slots) Delete(kind int) {
	s.metrics.running.Dec()
	<-s.taken
	s.giveBackShare(kind)
}

// Close does nothing.
func (*slots) Close() error { return nil }
