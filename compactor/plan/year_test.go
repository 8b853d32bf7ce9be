package plan

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/manifest"
)

var streamDays = flag.Int("plan.days", 40, "how many days TestStreamOfBlocks goes on for")

// stream is a tenant of three replicas in fake time: each ships each slot an hour after it ended, some samples come out of
// order, a bucket is away at times, and somebody brings old data now and then.
type stream struct {
	*simulation
	usual  bool // nothing comes late
	limits Limits
	// content is what a source holds: parts with equal names are equal samples.
	content map[ulid.ULID]part
	// later is what is to be shipped when its time has come.
	later []shipment
	// stored counts each sample once.
	stored, compacted uint64
	jobs              map[Kind]int
	most              int           // blocks at any time
	wait              time.Duration // the longest that work was due and not planned
}

type part struct {
	name    string
	samples uint64
}

type shipment struct {
	at    int64
	block manifest.Block
	part  part
}

const perSlot = 1_000_000 // samples

// slot has everything shipped that belongs to a slot.
func (s *stream) slot(slot span) {
	at := slot.maxt + int64(time.Hour/time.Millisecond) + s.rng.Int64N(600_000)
	if day := slot.mint / dayLength; !s.usual && day%20 == 7 && slot.mint%dayLength/slotLength < 3 {
		at = (day*dayLength + dayLength/3) + s.rng.Int64N(600_000) // the bucket was away
	}
	s.bring(3, at, "", slot, perSlot)
	if s.rng.IntN(3) == 0 {
		before := span{slot.mint - slotLength, slot.mint}
		s.bring(3, at, fmt.Sprint("out of order at ", at), before, perSlot/500)
	}
	if !s.usual && s.rng.IntN(120) == 0 { // somebody brings old data: a thousandth to a half of what the day has
		old := span{slot.mint - 3*dayLength, slot.maxt - 3*dayLength}
		s.bring(1, at, fmt.Sprint("late at ", at), old, 12*perSlot/(2+s.rng.Uint64N(1000)))
	}
}

// bring has n copies of equal samples shipped.
func (s *stream) bring(n int, at int64, name string, in span, samples uint64) {
	s.stored += samples
	for range n {
		s.later = append(s.later, shipment{at, manifest.Block{
			MinTime: in.mint, MaxTime: in.maxt, Level: 1, Samples: samples, Series: 50_000, Chunks: samples / 120,
			Writer: "ingester/a", OutOfOrder: name != "", AddedAt: at,
		}, part{fmt.Sprint(in.mint, name), samples}})
	}
}

// step is what the compactor does at one time.
func (s *stream) step() {
	shipped := s.now
	s.later = slices.DeleteFunc(s.later, func(x shipment) bool {
		if x.at > s.now {
			if x.block.MinTime < x.at-dayLength { // a backfill is no ingester's
				return false
			}
			shipped = min(shipped, x.block.MinTime)
			return false
		}
		x.block.ULID = s.id()
		s.content[x.block.ULID] = x.part
		s.ship(x.block)
		return true
	})
	s.m.Blocks = slices.DeleteFunc(slices.Clone(s.m.Blocks), func(b manifest.Block) bool {
		return s.limits.Retention > 0 && b.MaxTime <= s.now-s.limits.Retention.Milliseconds()
	})
	s.limits.ShippedUpTo = shipped
	s.most = max(s.most, len(s.m.Blocks))
	for {
		p := Make(s.m, time.UnixMilli(s.now), s.limits)
		if len(p.Jobs) == 0 {
			s.must(p.OldestUncompacted == 0, "something waits and there is no job")
			return
		}
		s.wait = max(s.wait, p.Age())
		s.check(p)
		for i := range p.Jobs {
			j := &p.Jobs[i]
			samples, seen := uint64(0), map[string]struct{}{}
			for k := range j.Inputs {
				for _, source := range j.Inputs[k].Sources {
					if part := s.content[source]; part.samples > 0 {
						if _, twice := seen[part.name]; !twice {
							samples += part.samples
						}
						seen[part.name] = struct{}{}
					}
				}
			}
			s.compacted += samples
			s.jobs[j.Kind]++
			s.apply(j, samples)
		}
	}
}

// TestStreamOfBlocks: the usual stream of blocks becomes one block a day, at the cost of writing each sample about twice.
func TestStreamOfBlocks(t *testing.T) {
	for _, tt := range []struct {
		usual         bool
		retention     int // in days
		amplification float64
	}{
		{true, 0, 3},
		{false, 0, 3.3},
		{false, 30, 3.3},
	} {
		s := &stream{
			simulation: &simulation{
				t: t, m: &manifest.Manifest{Tenant: "t"}, now: t0.UnixMilli(), rng: rand.New(rand.NewPCG(7, 6)),
			},
			limits: Limits{
				OutOfOrderWindow: 3 * time.Hour, Replicas: 3, Retention: time.Duration(tt.retention) * 24 * time.Hour,
			},
			usual: tt.usual, content: map[ulid.ULID]part{}, jobs: map[Kind]int{},
		}
		for hour := range *streamDays * 24 {
			if hour%2 == 0 {
				s.slot(span{s.now, s.now + slotLength})
			}
			s.now += time.Hour.Milliseconds()
			s.step()
		}
		days := float64(*streamDays)
		amplification := 1 + float64(s.compacted)/float64(s.stored)
		t.Logf("%d days, nothing late: %v, retention %d days: %d blocks shipped, at most %d listed, %d at the end; a sample is written %.2f times; "+
			"jobs a day: %.1f slots, %.2f days, %.2f late; the longest wait behind the end of a slot %v",
			*streamDays, tt.usual, tt.retention, len(s.content), s.most, len(s.m.Blocks), amplification,
			float64(s.jobs[KindSlot])/days, float64(s.jobs[KindDay])/days, float64(s.jobs[KindLate])/days, s.wait)
		require.LessOrEqual(t, amplification, tt.amplification)
		kept := *streamDays
		if tt.retention > 0 {
			kept = min(kept, tt.retention)
		}
		require.LessOrEqual(t, len(s.m.Blocks), kept+50)
		require.LessOrEqual(t, s.most, kept+80)
	}
}
