package oracle

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/blockgen"
)

// TestNothingChangesForReaders brings blocks in rounds: a day and a part of the next, late ones of the first day, and what
// comes a week after that. Each time all is compacted as far as it goes, and read back.
func TestNothingChangesForReaders(t *testing.T) {
	eachSeed(t, 1, func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		days := 1 + r.IntN(2)
		w := newWorld(t, days+1)
		defer w.close()
		p := w.start(t, w.bkt, "a")
		defer p.stop(t)
		blocks := blockgen.SlotOptions{
			Start: firstDay + int64(r.IntN(9))*blockgen.SlotLength, Replicas: 1 + r.IntN(3), Series: 1 + r.IntN(6),
			Conflicts: r.IntN(3) == 0, Universe: r.Uint64(),
		}
		for _, wait := range []time.Duration{0, 30 * time.Hour, 9 * 24 * time.Hour} {
			w.clock.advance(wait)
			blocks.Count = 1 + r.IntN(3*days)
			w.putSlots(t, r, blocks)
			before := len(w.newest(t).Blocks)
			if before == 0 {
				continue // no series made it into a block
			}
			status, err := p.Run(t.Context(), tenantID, true)
			require.NoError(t, err, "seed %d", seed)
			require.Empty(t, status.LastError, "seed %d", seed)
			require.LessOrEqual(t, status.Blocks, before)
			require.Empty(t, w.jobs(t), "seed %d: work was left", seed)
			require.NoError(t, w.check(t, w.newest(t)), "seed %d, after %v", seed, wait)
		}
		m := w.newest(t)
		require.LessOrEqual(t, len(m.Blocks), days+1, "seed %d: a block for each day", seed)
		if seed%8 == 0 {
			w.checkPrometheus(t, m)
		}
	})
}
