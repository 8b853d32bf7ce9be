package oracle

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/blockgen"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

// TestTwoOwners lets two processes believe that a tenant is theirs, on a bucket that fails now and then, while blocks arrive
// and somebody reads all the while.
func TestTwoOwners(t *testing.T) {
	eachSeed(t, 0.1, func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 2))
		w := newWorld(t, 2)
		defer w.close()
		w.putSlots(t, r, blockgen.SlotOptions{Start: firstDay, Count: 1 + r.IntN(4), Replicas: 3, Series: 1 + r.IntN(4)})
		if len(w.newest(t).Blocks) == 0 {
			return // no series made it into a block
		}

		var mu sync.Mutex
		chance, failing := r.IntN(30), true
		fb := faultbucket.New(w.bkt, func(faultbucket.Op) faultbucket.Fault {
			mu.Lock()
			defer mu.Unlock()
			if !failing || r.IntN(1000) >= chance {
				return faultbucket.None
			}
			return []faultbucket.Fault{faultbucket.Before, faultbucket.After}[r.IntN(2)]
		})
		a, b := w.start(t, fb, "a"), w.start(t, fb, "b")
		defer a.stop(t)
		defer b.stop(t)

		ctx, cancel := context.WithCancel(t.Context())
		var work sync.WaitGroup
		for _, p := range []*process{a, b} {
			work.Go(func() {
				for range 3 {
					_, _ = p.Run(ctx, tenantID, true)
					_ = p.reconciler.Pass(ctx, 0)
				}
			})
		}
		reading := make(chan error, 1)
		go func() { reading <- w.readOn(ctx, t) }()
		work.Wait()
		cancel()
		require.NoError(t, <-reading, "seed %d", seed)

		mu.Lock()
		failing = false
		mu.Unlock()
		for range 3 {
			w.clock.advance(30 * time.Hour)
			require.NoError(t, w.compactAll(t.Context(), a), "seed %d", seed)
			require.NoError(t, w.compactAll(t.Context(), b), "seed %d", seed)
		}
		w.checkNow(t)
		m := w.newest(t)
		require.LessOrEqual(t, len(m.Blocks), 1, "seed %d", seed)
		w.noRemains(t, m, "at the end")
	})
}

// readOn reads everything again and again until ctx ends, at the newest manifest and at the one before that.
func (w *world) readOn(ctx context.Context, t testing.TB) error {
	owner := manifest.NewOwner(w.bkt, w.clock.now, nopLog, nil)
	var before *manifest.Manifest
	for ctx.Err() == nil {
		m, err := owner.Refresh(t.Context(), tenantID)
		if err != nil {
			return err
		}
		if before == nil {
			before = m
		}
		for _, m := range []*manifest.Manifest{m, before} {
			if err := w.check(t, m); err != nil {
				return err
			}
		}
		before = m
	}
	return nil
}
