package plan

import (
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/manifest"
)

// kinds are those of a plan's jobs.
func kinds(p *Plan) []Kind {
	var all []Kind
	for i := range p.Jobs {
		all = append(all, p.Jobs[i].Kind)
	}
	return all
}

// reasons are those of a plan's skips.
func reasons(p *Plan) []Reason {
	var all []Reason
	for i := range p.Skips {
		all = append(all, p.Skips[i].Reason)
	}
	return all
}

func TestDayWaitsForTheOutOfOrderWindow(t *testing.T) {
	w := new(world)
	w.add(20, 22, merged)
	w.add(22, 24, merged)
	require.Empty(t, w.at(26.9, 26.9).Jobs)
	require.Equal(t, []Kind{KindDay}, kinds(w.at(27, 26)))
	require.Empty(t, w.at(28.9, 23.9).Jobs, "somebody has not shipped what may belong to the day")
	p := w.at(29, 23.9)
	require.Equal(t, []Kind{KindDay}, kinds(p))
	require.Equal(t, 3, p.Jobs[0].Level)
	require.Equal(t, 4*time.Hour, p.Age(), "since the second block came")
	require.Equal(t, []Kind{KindDay}, kinds(w.at(24.5, 24.5, func(l *Limits) { l.OutOfOrderWindow = 0 })))
}

func TestSlotTakesMuchLateDataAtOnce(t *testing.T) {
	w := new(world)
	w.add(0, 2, merged)
	w.add(0, 2, samples(120_000))
	require.Empty(t, w.at(6, 6).Jobs, "a quarter waits for the day")
	w.add(0, 2, samples(1))
	p := w.at(6, 6)
	require.Equal(t, []Kind{KindLate}, kinds(p))
	require.Len(t, p.Jobs[0].Blocks, 3)

	w = new(world)
	base := w.add(0, 2, merged)
	for range 5 {
		require.Empty(t, w.at(6, 6).Jobs)
		w.add(0, 2, samples(10))
	}
	p = w.at(6, 6)
	require.Equal(t, []Kind{KindLate}, kinds(p))
	require.NotContains(t, p.Jobs[0].Blocks, base, "the large block is not written again for a few samples")
	require.Len(t, p.Jobs[0].Blocks, 5)
}

func TestBlocksThatOneJobMayTake(t *testing.T) {
	w := new(world)
	for slot := range 12 {
		w.replicas(float64(2 * slot))
	}
	few := func(l *Limits) { l.MaxInputs = 20 }
	p := w.at(40, 40, few)
	require.Len(t, p.Jobs, 12)
	for _, k := range kinds(p) {
		require.Equal(t, KindSlot, k)
	}
	s := &simulation{t: t, m: &w.m, now: p.Now}
	for i := range p.Jobs {
		s.apply(&p.Jobs[i], 480_000)
	}
	require.Equal(t, []Kind{KindDay}, kinds(w.at(40, 40, few)))
	p = w.at(40, 40, func(l *Limits) { l.MaxInputs = 10 })
	require.Equal(t, []Kind{KindDay}, kinds(p))
	require.Len(t, p.Jobs[0].Blocks, 10, "nothing else is left to make them fewer")
}

// TestDayThatCannotBeStaysAsSlots: one that is too large, and one that was refused.
func TestDayThatCannotBeStaysAsSlots(t *testing.T) {
	w := new(world)
	w.replicas(0, func(b *manifest.Block) { b.IndexBytes = 8 << 20 })
	w.replicas(2, func(b *manifest.Block) { b.IndexBytes = 8 << 20 })
	whole := w.at(40, 40).Jobs[0]
	require.Equal(t, KindDay, whole.Kind)
	require.InDelta(t, 10<<20, whole.EstimatedIndexBytes, 1<<18, "a slot, and a quarter of the other")
	for reason, change := range map[Reason]func(*Limits){
		SkipOversized: func(l *Limits) { l.MaxIndexBytes = 9 << 20 },
		SkipRefused:   func(l *Limits) { l.Refused = map[string]string{whole.ID: "it was too large"} },
	} {
		p := w.at(40, 40, change)
		require.Equal(t, []Kind{KindSlot, KindSlot}, kinds(p))
		require.Equal(t, []Reason{reason}, reasons(p))
		require.True(t, p.Skips[0].Blocking)
		require.Len(t, p.Skips[0].Blocks, 6)
		require.Equal(t, t0.Add(3*time.Hour).UnixMilli(), p.OldestUncompacted, "the first slot waits")
	}
	p := w.at(40, 40, func(l *Limits) { l.MaxIndexBytes = 1 << 20 })
	require.Empty(t, p.Jobs)
	require.Equal(t, []Reason{SkipOversized, SkipOversized}, reasons(p), "both slots, and the day")
	require.NotEqual(t, whole.ID, w.at(6, 6).Jobs[0].ID)
}

// TestForeignCompactor: there are no jobs while a peer's compactor works on our blocks, and only then.
func TestForeignCompactor(t *testing.T) {
	foreign := func(b *manifest.Block) { b.Level, b.Writer = 2, "" }
	from := func(ids ...ulid.ULID) func(*manifest.Block) {
		return func(b *manifest.Block) { b.Sources = ids }
	}
	for name, tt := range map[string]struct {
		build func(w *world)
		stops bool
	}{
		"brought along": {func(w *world) { w.add(0, 2, foreign) }, false},
		"by our tool": {func(w *world) {
			w.add(0, 2, merged)
			w.add(2, 4, func(b *manifest.Block) { b.Level, b.Writer = 3, "duramenctl" })
		}, false},
		"not compacted": {func(w *world) { w.add(0, 2, merged); w.add(2, 4, func(b *manifest.Block) { b.Writer = "" }) }, false},
		"after ours":    {func(w *world) { w.add(0, 2, merged); w.add(2, 4, foreign) }, true},
		"before ours":   {func(w *world) { w.add(0, 2, foreign); w.add(2, 4, merged) }, false},
		"a day ago":     {func(w *world) { w.add(-30, -28, merged); w.add(-26, -24, foreign) }, false},
		"of what was removed": {func(w *world) {
			id := ulid.MustNew(1, nil)
			w.m.Removed = append(w.m.Removed, manifest.RemovedBlock{ULID: id})
			w.add(0, 2, foreign, from(id))
		}, true},
		"of what is listed": {func(w *world) { w.add(0, 2, foreign, from(w.add(0, 2))) }, true},
		"in a far future": {func(w *world) {
			w.add(0, 2, merged)
			w.add(2, 4, foreign, func(b *manifest.Block) { b.AddedAt = 1 << 46 })
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := new(world)
			tt.build(w)
			w.replicas(4)
			p := w.at(8, 8)
			if !tt.stops {
				require.NotEmpty(t, p.Jobs)
				require.Empty(t, p.Skips)
				return
			}
			require.Empty(t, p.Jobs)
			require.Equal(t, SkipForeignCompactor, p.Skips[0].Reason)
			require.NotZero(t, p.OldestUncompacted)
			require.NotEmpty(t, w.at(8+26, 8+26).Jobs, "it ends by itself")
		})
	}
}

// TestForeignDeletion: there are no jobs while somebody else deletes a listed block, and the alert fires also when there
// would have been none.
func TestForeignDeletion(t *testing.T) {
	for name, replicas := range map[string]bool{"with work": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			w := new(world)
			gone := w.add(0, 2, merged)
			if replicas {
				w.replicas(4)
			}
			elsewhere := ulid.MustNew(1, nil)
			limits := func(id ulid.ULID) func(*Limits) {
				return func(l *Limits) { l.Foreign = map[ulid.ULID]string{id: "it bears a mark"} }
			}
			p := w.at(8, 8, limits(gone))
			require.Empty(t, p.Jobs)
			require.Equal(t, SkipForeignCompactor, p.Skips[0].Reason)
			require.Equal(t, []ulid.ULID{gone}, p.Skips[0].Blocks)
			require.True(t, p.Skips[0].Blocking)
			require.NotZero(t, p.OldestUncompacted)
			p = w.at(8, 8, limits(elsewhere))
			require.Empty(t, p.Skips, "it is not listed any more")
			require.Equal(t, replicas, len(p.Jobs) > 0)
		})
	}
}

func TestWhatExpiresSoonIsLeftAlone(t *testing.T) {
	w := new(world)
	w.replicas(0)
	days := func(n int) func(*Limits) {
		return func(l *Limits) { l.Retention = time.Duration(n) * 24 * time.Hour }
	}
	require.Equal(t, []Kind{KindDay}, kinds(w.at(24*9, 24*9, days(10))))
	p := w.at(24*10, 24*10, days(10))
	require.Empty(t, p.Jobs)
	require.Equal(t, []Reason{SkipExpiring}, reasons(p))
	require.Zero(t, p.OldestUncompacted)
	require.Equal(t, []Kind{KindSlot}, kinds(w.at(10, 10, days(1))), "a short retention still merges replicas")

	(&simulation{m: &w.m, now: p.Now - dayLength}).delete(0, p.Now)
	require.Empty(t, w.at(24*10, 24*10, days(10)).Jobs, "nor is it rewritten")
}

// TestExcludedBlockHoldsUpNoOther: what a damaged block is beside is merged, and the block is not forgotten.
func TestExcludedBlockHoldsUpNoOther(t *testing.T) {
	w := new(world)
	damaged := w.add(0, 2)
	except := func(l *Limits) { l.Excluded = map[ulid.ULID]string{damaged: "its index is damaged"} }
	(&simulation{m: &w.m, now: t0.UnixMilli()}).delete(0, t0.UnixMilli())
	require.Equal(t, []Kind{KindRewrite}, kinds(w.at(8, 8)))
	p := w.at(8, 8, except)
	require.Empty(t, p.Jobs, "nor rewritten")
	require.Equal(t, 5*time.Hour, p.Age(), "a block that cannot be read is no healthy tenant's")
	w.add(0, 2)
	w.add(0, 2)
	p = w.at(8, 8, except)
	require.Equal(t, []Kind{KindSlot}, kinds(p))
	require.NotContains(t, p.Jobs[0].Blocks, damaged)
	require.Equal(t, []Reason{SkipExcluded}, reasons(p))
	require.Equal(t, "its index is damaged", p.Skips[0].Detail)
	require.True(t, p.Skips[0].Blocking)
}

// TestDeletionsAreWorkedIn with the merge that comes, after the delay otherwise, and at once when that is wanted.
func TestDeletionsAreWorkedIn(t *testing.T) {
	w := new(world)
	alone := w.add(0, 2)
	w.replicas(2)
	open := w.add(6, 8)
	s := &simulation{m: &w.m, now: t0.Add(7 * time.Hour).UnixMilli()}
	s.delete(t0.UnixMilli(), s.now)
	p := w.at(7.9, 6)
	require.Equal(t, []Kind{KindSlot}, kinds(p))
	require.Equal(t, w.m.Deletions, p.Jobs[0].Deletions)
	require.Equal(t, uint64(1), p.Jobs[0].DeletedThrough)
	p = w.at(8, 6)
	require.Equal(t, []Kind{KindSlot, KindRewrite}, kinds(p))
	require.Equal(t, []ulid.ULID{alone}, p.Jobs[1].Blocks)
	require.Equal(t, 2, p.Jobs[1].Level)
	p = w.at(7, 6, func(l *Limits) { l.DeletionDelay = 0 })
	require.Equal(t, []Kind{KindSlot, KindRewrite, KindRewrite}, kinds(p))
	require.Equal(t, []ulid.ULID{open}, p.Jobs[2].Blocks)

	w.m.Deletions[0].Urgent = true
	require.Equal(t, []Kind{KindSlot, KindRewrite, KindRewrite}, kinds(w.at(7, 6)), "somebody asked for it")
	w.m.Deletions[0].Urgent = false

	before := p.Jobs[0].ID
	s.delete(t0.UnixMilli(), s.now)
	require.NotEqual(t, before, w.at(8, 6).Jobs[0].ID, "another deletion is other work")
}
