package querier

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/prometheus/promql"

	"github.com/duramendb/duramen/internal/tracing"
)

// slots is the engine's tracker of active queries: it bounds how many run and writes nothing to disk.
type slots struct {
	free    chan struct{}
	metrics *metrics
}

func newSlots(n int, m *metrics) *slots { return &slots{free: make(chan struct{}, n), metrics: m} }

// GetMaxConcurrent returns the number of slots.
func (s *slots) GetMaxConcurrent() int { return cap(s.free) }

// Insert waits for a slot until ctx ends.
func (s *slots) Insert(ctx context.Context, _ string) (int, error) {
	select {
	case s.free <- struct{}{}: // at once; a query that is late already learns so from the engine
		s.metrics.waitSeconds.Observe(0)
		s.metrics.running.Inc()
		return 0, nil
	default:
	}
	_, span := tracing.Start(ctx, "querier.wait_for_slot")
	defer span.End()
	start := time.Now()
	select {
	case s.free <- struct{}{}:
		s.metrics.waitSeconds.Observe(time.Since(start).Seconds())
		s.metrics.running.Inc()
		return 0, nil
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return 0, promql.ErrQueryTimeout("waiting for other queries to end")
		}
		return 0, promql.ErrQueryCanceled("waiting for other queries to end")
	}
}

// Delete gives a slot back.
func (s *slots) Delete(int) {
	s.metrics.running.Dec()
	<-s.free
}

// Close does nothing.
func (*slots) Close() error { return nil }
