package oracle

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/blockgen"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/tombstone"
)

// without is the ledger without the samples for which fn says so.
func (l ledger) without(fn func(series string, at int64) bool) ledger {
	left := ledger{}
	for series, samples := range l {
		kept := maps.Clone(samples)
		maps.DeleteFunc(kept, func(at int64, _ []string) bool { return fn(series, at) })
		if len(kept) > 0 {
			left[series] = kept
		}
	}
	return left
}

// deleteSome deletes what one label of a random series means, in a random range, and returns whether a sample is meant.
func (w *world) deleteSome(t testing.TB, r *rand.Rand) func(series string, at int64) bool {
	t.Helper()
	names := slices.Sorted(maps.Keys(w.sent))
	var pairs []labels.Label
	w.lsets[names[r.IntN(len(names))]].Range(func(l labels.Label) { pairs = append(pairs, l) })
	pair := pairs[r.IntN(len(pairs))]
	now := w.clock.now().UnixMilli()
	mint := firstDay + r.Int64N(2*day)
	maxt := min(now, mint+r.Int64N(day))
	_, err := w.owner.Delete(t.Context(), tenantID, manifest.Deletion{
		Selectors: []string{fmt.Sprintf("{%q=%q}", pair.Name, pair.Value)}, MinTime: mint, MaxTime: maxt, CreatedAt: now,
	})
	require.NoError(t, err)
	return func(series string, at int64) bool {
		return mint <= at && at <= maxt && w.lsets[series].Get(pair.Name) == pair.Value
	}
}

// TestDeletedSamplesAreGone and no other: at once for queries, and after compaction for whoever reads the blocks as they are.
func TestDeletedSamplesAreGone(t *testing.T) {
	eachSeed(t, 0.1, func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 5))
		w := newWorld(t, 3)
		defer w.close()
		p := w.start(t, w.bkt, "a")
		defer p.stop(t)
		blocks := blockgen.SlotOptions{Start: firstDay, Replicas: 1 + r.IntN(3), Series: 2 + r.IntN(6), Universe: r.Uint64()}
		var meant []func(series string, at int64) bool
		for _, wait := range []time.Duration{0, 30 * time.Hour, 9 * 24 * time.Hour} {
			w.clock.advance(wait)
			blocks.Count = 2 + r.IntN(6)
			w.putSlots(t, r, blocks)
			if len(w.sent) == 0 {
				return // no series made it into a block
			}
			for range 1 + r.IntN(3) {
				meant = append(meant, w.deleteSome(t, r))
			}
			// As long as a deletion is remembered it means what is shipped later as well: ingesters keep deleted samples.
			due := w.sent.without(func(series string, at int64) bool {
				return slices.ContainsFunc(meant, func(fn func(string, int64) bool) bool { return fn(series, at) })
			})
			m := w.newest(t)
			hidden, err := tombstone.New(m.Deletions)
			require.NoError(t, err)
			w.requireSamples(t, m, hidden, math.MinInt64, due, seed)

			status, err := p.Run(t.Context(), tenantID, true)
			require.NoError(t, err, "seed %d", seed)
			require.Empty(t, status.LastError, "seed %d", seed)
			require.Empty(t, w.jobs(t), "seed %d: work was left", seed)
			w.requireSamples(t, w.newest(t), nil, math.MinInt64, due, seed)
		}
		require.NotEmpty(t, w.newest(t).Deletions)
	})
}

// requireSamples reads all listed blocks from mint on.
func (w *world) requireSamples(
	t testing.TB, m *manifest.Manifest, hidden *tombstone.Set, mint int64, want ledger, seed uint64,
) {
	t.Helper()
	q, err := w.reads.Querier(tenantID, m.Blocks, hidden, mint, math.MaxInt64)
	require.NoError(t, err)
	require.NoError(t, want.compareTo(t, q, hidden != nil), "seed %d", seed)
	require.NoError(t, q.Close())
}

// TestRetentionTakesNothingElse: what is younger than the retention stays, whatever becomes of the blocks around it, and
// nothing stays listed of which all is older.
func TestRetentionTakesNothingElse(t *testing.T) {
	eachSeed(t, 0.07, func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 6))
		w := newWorld(t, 2)
		defer w.close()
		p := w.start(t, w.bkt, "a")
		defer p.stop(t)
		w.putSlots(t, r, blockgen.SlotOptions{
			Start: firstDay, Count: 24, Replicas: 1 + r.IntN(2), Series: 1 + r.IntN(4), Universe: r.Uint64(),
		})
		if len(w.sent) == 0 {
			return
		}
		w.retention = time.Duration(12+r.IntN(40)) * time.Hour
		for range 6 {
			w.clock.advance(time.Duration(r.IntN(12*60)) * time.Minute)
			_, err := p.Run(t.Context(), tenantID, true)
			require.NoError(t, err, "seed %d", seed)
			require.NoError(t, p.reconciler.Pass(t.Context(), 0))
			oldest := w.clock.now().Add(-w.retention).UnixMilli()
			m := w.newest(t)
			for i := range m.Blocks {
				require.Greater(t, m.Blocks[i].MaxTime, oldest, "seed %d", seed)
			}
			w.requireSamples(t, m, nil, oldest, w.sent.without(func(_ string, at int64) bool { return at < oldest }), seed)
		}
	})
}
