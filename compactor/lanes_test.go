package compactor

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/compactor/merge"
)

// length is what a job covers.
func length(job *merge.Job) time.Duration {
	return time.Duration(job.MaxTime-job.MinTime) * time.Millisecond
}

// labour is a job that takes a while and can rest, as merge.Run can.
func labour(ctx context.Context, job *merge.Job, d time.Duration) error {
	const step = 5 * time.Second
	for ; d > 0; d -= step {
		job.Rest()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(step):
		}
	}
	return nil
}

// TestSlotsDoNotWaitForDays: while the day of one tenant is merged, for five hours, the slots of another are merged within
// minutes, however few workers there are.
func TestSlotsDoNotWaitForDays(t *testing.T) {
	for _, workers := range []int{1, 2, 3} {
		t.Run(fmt.Sprint(workers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, bucket.NewInMemory())
				w.cfg.Concurrency = workers
				var days atomic.Int32
				w.merger.setFault(func(ctx context.Context, _ string, job merge.Job) error {
					if length(&job) <= slotLength {
						return labour(ctx, &job, time.Minute)
					}
					err := labour(ctx, &job, 5*time.Hour)
					days.Add(1)
					return err
				})
				w.add("large", 3, midnight(), midnight().Add(24*time.Hour))
				w.add("large", 3, midnight().Add(-24*time.Hour), midnight())
				time.Sleep(4 * time.Hour) // the days are over, and so is the window behind them
				w.start()
				time.Sleep(10 * time.Minute)
				require.NotEmpty(t, w.status("large").Running)
				for range 5 {
					time.Sleep(2*time.Hour + 5*time.Minute)
					end := time.Now().UTC().Truncate(2 * time.Hour)
					w.addAtOnce("small", 3, end.Add(-2*time.Hour), end)
					w.addAtOnce("large", 3, end.Add(-2*time.Hour), end)
					time.Sleep(5 * time.Minute)
					require.Zero(t, w.status("small").UncompactedSlots)
					for _, b := range w.manifest("small").Blocks {
						require.Equal(t, 2, b.Level, "each slot is one merged block")
					}
				}
				time.Sleep(2 * time.Hour)
				require.EqualValues(t, 2, days.Load(), "nor are days given up")
				require.Empty(t, w.status("large").LastError)
			})
		})
	}
}

// TestDaysDoNotWaitForSlots: more slots than can be merged do not keep a day from being merged.
func TestDaysDoNotWaitForSlots(t *testing.T) {
	for _, workers := range []int{1, 2} {
		t.Run(fmt.Sprint(workers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, bucket.NewInMemory())
				w.cfg.Concurrency = workers
				w.merger.setFault(func(ctx context.Context, _ string, job merge.Job) error {
					if length(&job) <= slotLength {
						return labour(ctx, &job, 30*time.Minute)
					}
					return labour(ctx, &job, time.Hour)
				})
				time.Sleep(12 * time.Hour)
				for i := range 40 {
					today := midnight().Add(24 * time.Hour)
					w.add(fmt.Sprintf("small-%d", i), 3, today, today.Add(10*time.Hour))
				}
				w.add("day", 3, midnight(), midnight().Add(24*time.Hour))
				w.start()
				time.Sleep(6 * time.Hour) // the 40 tenants have 100 hours of work
				require.Len(t, w.manifest("day").Blocks, 1)
			})
		})
	}
}
