package plan

import (
	"encoding/json"
	"flag"
	"maps"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/manifest"
)

var (
	firstSeed = flag.Uint64("plan.from", 0, "the first seed of TestPlanningEnds")
	seeds     = flag.Uint64("plan.seeds", 0, "how many seeds TestPlanningEnds runs; 0 for 2000, and 200 with the race detector")
)

// randomBlock makes a block of some ten days before now, of any origin.
func (s *simulation) randomBlock() manifest.Block {
	r := s.rng
	slot := aligned(s.now-r.Int64N(10*dayLength), slotLength)
	b := manifest.Block{
		MinTime: slot.mint, MaxTime: slot.maxt, Level: 1, Samples: r.Uint64N(1e6), Series: r.Uint64N(1e4), Writer: "ingester/a",
		AddedAt: slot.maxt + r.Int64N(dayLength),
	}
	b.Chunks = b.Samples / 120
	foreign := func(length int64, level int) {
		s := aligned(slot.mint, length)
		b.MinTime, b.MaxTime, b.Level, b.Writer = s.mint, s.maxt, level, ""
	}
	switch r.IntN(16) {
	case 0: // part of a slot, as a flush leaves it
		b.MinTime += r.Int64N(slotLength / 2)
		b.MaxTime -= r.Int64N(slotLength / 2)
	case 1:
		b.OutOfOrder, b.Samples = true, r.Uint64N(1000)
	case 2:
		b.Level, b.Writer = 2, "compactor/x"
	case 3:
		day := aligned(slot.mint, dayLength)
		b.MinTime, b.MaxTime, b.Level, b.Writer, b.Samples = day.mint, day.maxt, 3, "compactor/x", r.Uint64N(1e8)
	case 4:
		foreign(dayLength/2, 2)
	case 5:
		foreign(14*dayLength, 4)
	case 6:
		foreign(9*slotLength, 3) // of a Prometheus
	case 7: // of anywhere
		b.MinTime += r.Int64N(2*dayLength) - dayLength
		b.MaxTime = b.MinTime + r.Int64N(2*dayLength)
		b.Writer = ""
	case 8:
		b.NoCompact = "index-size-exceeding"
	case 9:
		b.Shard = []string{"1_of_2", "2_of_2"}[r.IntN(2)]
	}
	if r.IntN(4) == 0 {
		b.Labels = map[string]string{"cluster": []string{"a", "b"}[r.IntN(2)], "zone": "z"}
	}
	if r.IntN(200) == 0 {
		extreme := []int64{math.MinInt64, math.MinInt64 + 1, -1, 0, 1, math.MaxInt64 - 1, math.MaxInt64}
		b.MinTime, b.MaxTime = extreme[r.IntN(len(extreme))], extreme[r.IntN(len(extreme))]
		b.MinTime, b.MaxTime = min(b.MinTime, b.MaxTime), max(b.MinTime, b.MaxTime)
	}
	b.ULID = ulid.MustNew(uint64(max(0, s.now-dayLength-r.Int64N(9*dayLength))), nil)
	if r.IntN(100) == 0 {
		b.ULID = s.id()
	}
	b.ULID[8], b.ULID[9] = byte(r.Uint32()), byte(r.Uint32())
	return b
}

func (s *simulation) randomLimits() Limits {
	r := s.rng
	l := Limits{
		ShippedUpTo: s.now - r.Int64N(dayLength), OutOfOrderWindow: time.Duration(r.IntN(4)) * time.Hour,
		Replicas: r.IntN(4), DeletionDelay: time.Duration(r.IntN(2)) * time.Hour, MaxInputs: r.IntN(12),
		Excluded: map[ulid.ULID]string{},
	}
	switch r.IntN(4) {
	case 0:
		l.Retention = time.Duration(1+r.IntN(200)) * time.Hour
	case 1:
		l.MaxIndexBytes = 1 + r.Int64N(20<<20)
	case 2:
		l.ShippedUpTo = ShippedUnknown
	}
	for i := range s.m.Blocks {
		if r.IntN(30) == 0 {
			l.Excluded[s.m.Blocks[i].ULID] = "it is damaged"
		}
	}
	return l
}

// sources are what the blocks of a manifest are made of, by labels and shard.
func (s *simulation) sources() map[string]map[ulid.ULID]struct{} {
	all := map[string]map[ulid.ULID]struct{}{}
	for i := range s.m.Blocks {
		b := &s.m.Blocks[i]
		key := labelsKey(b.Labels) + "/" + b.Shard
		if all[key] == nil {
			all[key] = map[ulid.ULID]struct{}{}
		}
		for _, source := range b.Sources {
			all[key][source] = struct{}{}
		}
	}
	return all
}

type dayGroup struct {
	day int64
	key groupKey
}

// TestPlanningEnds: whatever blocks there are, in whatever order jobs are carried out, there comes a manifest without
// jobs, all sources are in it, and no plan on the way has one that cannot be carried out. The order of the blocks in the
// manifest does not matter.
func TestPlanningEnds(t *testing.T) {
	n := *seeds
	if n == 0 && raceDetector {
		n = 200
	} else if n == 0 {
		n = 2000
	}
	for seed := *firstSeed; seed < *firstSeed+n; seed++ {
		s := &simulation{t: t, m: &manifest.Manifest{Tenant: "t"}, now: t0.UnixMilli(), rng: rand.New(rand.NewPCG(seed, 6))}
		for range 1 + s.rng.IntN(60) {
			s.ship(s.randomBlock())
		}
		for range s.rng.IntN(4) * s.rng.IntN(2) {
			mint := s.now - s.rng.Int64N(10*dayLength)
			s.delete(mint, mint+s.rng.Int64N(3*dayLength))
		}
		before, limits := s.sources(), s.randomLimits()
		plan := func() *Plan {
			p := Make(s.m, time.UnixMilli(s.now), limits)
			if seed%16 == 0 {
				want, err := json.Marshal(p)
				require.NoError(t, err)
				s.rng.Shuffle(len(s.m.Blocks), func(i, k int) { s.m.Blocks[i], s.m.Blocks[k] = s.m.Blocks[k], s.m.Blocks[i] })
				got, err := json.Marshal(Make(s.m, time.UnixMilli(s.now), limits))
				require.NoError(t, err)
				s.must(string(want) == string(got), "seed %d: the order of blocks makes another plan", seed)
			}
			return p
		}
		any := func(j *Job) uint64 { return j.InputSamples - s.rng.Uint64N(j.InputSamples/2+1) }
		for range 3 {
			s.settle(plan, any)
			s.must(maps.EqualFunc(before, s.sources(), maps.Equal), "seed %d: sources came or went", seed)
			s.now += s.rng.Int64N(8 * dayLength)
		}
		// With time all that may be in one block is.
		limits = Limits{DeletionDelay: time.Hour}
		s.now += 40 * dayLength
		s.settle(plan, any)
		for _, d := range s.m.Deletions {
			for _, id := range s.m.Pending(d.ID) {
				b, _ := s.m.Find(id)
				s.must(b.NoCompact != "", "seed %d: deletion %d was never worked into block %s", seed, d.ID, id)
			}
		}
		days := map[dayGroup]ulid.ULID{}
		for i := range s.m.Blocks {
			b := &s.m.Blocks[i]
			day := aligned(b.MinTime, dayLength)
			if key := (dayGroup{day.mint, groupKey{labelsKey(b.Labels), b.Shard}}); b.NoCompact == "" && day.holds(b.MinTime, b.MaxTime) &&
				plus(day.maxt, lateForGood) < s.now {
				s.must(days[key] == ulid.ULID{}, "seed %d: two blocks of a day", seed)
				days[key] = b.ULID
			}
		}
		p := plan()
		s.must(p.OldestUncompacted == 0, "seed %d: something waits for ever", seed)
	}
}
