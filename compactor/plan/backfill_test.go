package plan

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/manifest"
)

// backfill sends a day of ten days ago slot by slot, one each gap, in so many copies, into a day that has nothing or is one
// block already. It returns how often a sample is written, and the most blocks that queries met at one time.
func backfill(t *testing.T, gap time.Duration, copies int, there, settled bool) (written float64, overlap int) {
	t.Helper()
	s := &stream{
		simulation: &simulation{
			t: t, m: &manifest.Manifest{Tenant: "t"}, now: t0.UnixMilli() + 10*dayLength, rng: rand.New(rand.NewPCG(7, 6)),
		},
		limits:  Limits{OutOfOrderWindow: 3 * time.Hour, Replicas: copies, Settled: settled},
		content: map[ulid.ULID]part{}, jobs: map[Kind]int{},
	}
	day := t0.UnixMilli()
	if there {
		s.stored += 12 * perSlot
		s.ship(manifest.Block{
			MinTime: day, MaxTime: day + dayLength, Level: 3, Samples: 12 * perSlot, Writer: "compactor/x", AddedAt: day + dayLength,
		})
		s.content[s.m.Blocks[0].ULID] = part{"before", 12 * perSlot}
	}
	for slot := range int64(12) {
		in := span{day + slot*slotLength, day + (slot+1)*slotLength}
		s.bring(copies, s.now+slot*gap.Milliseconds(), "", in, perSlot)
	}
	for minute := 0; minute < 10*24*60; {
		step := 1
		if minute >= 40*60 {
			step = 60
		}
		minute += step
		s.now += int64(step) * time.Minute.Milliseconds()
		s.step()
		var blocks []*manifest.Block
		for i := range s.m.Blocks {
			blocks = append(blocks, &s.m.Blocks[i])
		}
		slices.SortFunc(blocks, compareBlocks)
		overlap = max(overlap, overlapping(blocks))
	}
	require.Len(t, s.m.Blocks, 1)
	return 1 + float64(s.compacted)/float64(s.stored), overlap
}

// TestBackfillIsWrittenOnce: a day that is sent slot by slot, as fast as it once came or faster, is merged once, and
// queries meet as few blocks at one time as in the usual course.
func TestBackfillIsWrittenOnce(t *testing.T) {
	for _, gap := range []time.Duration{time.Minute, 10 * time.Minute, 45 * time.Minute, 110 * time.Minute, 3 * time.Hour} {
		for _, copies := range []int{1, 3} {
			for _, there := range []bool{false, true} {
				before, _ := backfill(t, gap, copies, there, true)
				after, overlap := backfill(t, gap, copies, there, false)
				t.Logf("a slot each %v, %d copies, data there before: %-5v written %.2f times, %.2f without waiting, at most %d blocks at a time",
					gap, copies, there, after, before, overlap)
				require.LessOrEqual(t, overlap, lateOverlaps)
				require.LessOrEqual(t, after, before)
				if gap < time.Hour {
					require.LessOrEqual(t, after, 2.2)
				}
			}
		}
	}
}
