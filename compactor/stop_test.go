package compactor

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/compactor/merge"
)

// endless is a salvage that takes until it is ended.
type endless struct{}

func (endless) Salvage(ctx context.Context, _ *manifest.Manifest, _ manifest.Block, _ error) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestJobsOfADoomedTenantEnd at once, whatever they do, and those of others go on.
func TestJobsOfADoomedTenantEnd(t *testing.T) {
	for name, fault := range map[string]func(ctx context.Context, job merge.Job) error{
		"merge": func(ctx context.Context, _ merge.Job) error {
			<-ctx.Done()
			return ctx.Err()
		},
		"salvage": func(_ context.Context, job merge.Job) error {
			return &merge.Damaged{ULID: job.Inputs[0].Block.ULID, File: "index", Err: context.DeadlineExceeded}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, bucket.NewInMemory())
				w.Compactor.salvager = endless{}
				w.merger.setFault(func(ctx context.Context, tenantID string, job merge.Job) error {
					if tenantID == "other" {
						return nil
					}
					return fault(ctx, job)
				})
				w.add("acme", 3, midnight(), midnight().Add(2*time.Hour))
				require.True(t, w.Stop("acme"), "nothing runs")
				w.start()
				time.Sleep(time.Minute)
				require.Len(t, w.status("acme").Running, 1)
				_, err := w.owner.Doom(t.Context(), "acme", time.Hour)
				require.NoError(t, err)
				time.Sleep(5 * time.Second)
				require.Empty(t, w.status("acme").Running)
				require.True(t, w.Stop("acme"))
				require.EqualValues(t, 1, testutil.ToFloat64(w.metrics.jobs.WithLabelValues("slot", string(outcomeStale))))

				w.add("other", 3, midnight(), midnight().Add(2*time.Hour))
				require.NoError(t, w.owner.Reprieve(t.Context(), "acme"))
				time.Sleep(time.Minute)
				require.Len(t, w.status("acme").Running, 1, "it was taken back, and the work begins anew")
				require.False(t, w.Stop("acme"))
				time.Sleep(time.Second)
				require.True(t, w.Stop("acme"))
				require.Len(t, w.manifest("other").Blocks, 1)
			})
		})
	}
}
