package manifest

import (
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
	"github.com/duramendb/duramen/internal/errkind"
)

// deletionOf is of the n-th test block's times.
func deletionOf(n int, selectors ...string) Deletion {
	b := testBlock(n)
	return Deletion{Selectors: selectors, MinTime: b.MinTime, MaxTime: b.MaxTime - 1}
}

func TestDelete(t *testing.T) {
	o, clock := ownerWith(t, testBlock(0), testBlock(1))
	now := clock.t.UnixMilli()
	wanted := deletionOf(1, "up", `{job="a"}`)
	first, err := o.Delete(t.Context(), "acme", wanted)
	require.NoError(t, err)
	wanted.ID, wanted.CreatedAt = 1, now
	require.Equal(t, wanted, first)
	again, err := o.Delete(t.Context(), "acme", first)
	require.NoError(t, err)
	require.Equal(t, first, again, "the same at the same time is the same")

	future, err := o.Delete(t.Context(), "acme", Deletion{Selectors: []string{"up"}, MinTime: -10, MaxTime: 1 << 60})
	require.NoError(t, err)
	require.Equal(t, Deletion{ID: 2, Selectors: []string{"up"}, MinTime: -10, MaxTime: now, CreatedAt: now}, future)
	m := current(t, newTestOwner(o.bkt, clock.now))
	require.EqualValues(t, 4, m.Version)
	require.Equal(t, []Deletion{first, future}, m.Deletions)
	require.EqualValues(t, 3, m.NextDeletion)

	for name, d := range map[string]Deletion{
		"no selector":     {MaxTime: 1},
		"empty selector":  {Selectors: []string{""}, MaxTime: 1},
		"empty range":     {Selectors: []string{"up"}, MinTime: 2, MaxTime: 1},
		"only the future": {Selectors: []string{"up"}, MinTime: now + 1, MaxTime: now + 2},
	} {
		_, err := o.Delete(t.Context(), "acme", d)
		require.Equal(t, errkind.Invalid, errkind.Of(err), name)
	}
}

func TestCancelDeletion(t *testing.T) {
	o, _ := ownerWith(t, testBlock(0), testBlock(1))
	for range 3 {
		_, err := o.Delete(t.Context(), "acme", deletionOf(1, "up"))
		require.NoError(t, err)
		require.NoError(t, o.CancelDeletion(t.Context(), "acme", current(t, o).Deletions[0].ID))
		require.Empty(t, current(t, o).Deletions)
	}
	version := current(t, o).Version
	require.NoError(t, o.CancelDeletion(t.Context(), "acme", 2), "once more")
	require.Equal(t, version, current(t, o).Version)
	for _, id := range []uint64{0, 4} {
		require.Equal(t, errkind.NotFound, errkind.Of(o.CancelDeletion(t.Context(), "acme", id)))
	}
	d, err := o.Delete(t.Context(), "acme", deletionOf(1, "up"))
	require.NoError(t, err)
	require.EqualValues(t, 4, d.ID, "an ID is given out once")
}

func TestHastenDeletions(t *testing.T) {
	o, _ := ownerWith(t, testBlock(0), testBlock(1))
	for _, n := range []int{0, 1, 7} {
		_, err := o.Delete(t.Context(), "acme", deletionOf(n, "up"))
		require.NoError(t, err)
	}
	urgent := func() (ids []uint64) {
		for _, d := range current(t, o).Deletions {
			if d.Urgent {
				ids = append(ids, d.ID)
			}
		}
		return ids
	}
	before := current(t, o)
	require.NoError(t, o.HastenDeletions(t.Context(), "acme", 2))
	require.Equal(t, []uint64{2}, urgent())
	require.False(t, before.Deletions[1].Urgent, "a version does not change")
	require.NoError(t, o.HastenDeletions(t.Context(), "acme"))
	require.Equal(t, []uint64{1, 2}, urgent(), "the third concerns nothing")
	version := current(t, o).Version
	require.NoError(t, o.HastenDeletions(t.Context(), "acme"))
	require.Equal(t, version, current(t, o).Version)
}

func TestForgetDeletions(t *testing.T) {
	o, clock := ownerWith(t, testBlock(0), testBlock(1))
	for _, n := range []int{1, 7} {
		_, err := o.Delete(t.Context(), "acme", deletionOf(n, "up"))
		require.NoError(t, err)
	}
	clock.t = clock.t.Add(RememberDeletions - time.Millisecond)
	require.ErrorIs(t, o.ForgetDeletions(t.Context(), "acme", 2), ErrConflict, "too young")
	require.Empty(t, current(t, o).Forgettable(clock.t.UnixMilli()))
	clock.t = clock.t.Add(time.Millisecond)
	err := o.ForgetDeletions(t.Context(), "acme", 1, 2)
	require.ErrorIs(t, err, ErrConflict)
	require.ErrorContains(t, err, "deletion 1, which it forgets, concerns block "+testBlock(1).ULID.String())
	require.Len(t, current(t, o).Deletions, 2, "all or nothing")
	require.Equal(t, []uint64{2}, current(t, o).Forgettable(clock.t.UnixMilli()))
	require.NoError(t, o.ForgetDeletions(t.Context(), "acme", 2, 9))
	require.Len(t, current(t, o).Deletions, 1)
	version := current(t, o).Version
	require.NoError(t, o.ForgetDeletions(t.Context(), "acme", 2))
	require.NoError(t, o.ForgetDeletions(t.Context(), "acme"))
	require.Equal(t, version, current(t, o).Version)
}

// TestSwapThatAppliesDeletions: what a deletion hides before a swap is hidden or gone after it, and nothing else is.
func TestSwapThatAppliesDeletions(t *testing.T) {
	// Blocks 0 and 1 are ours; 2 is somebody's that is younger than the deletions, in the times of block 1.
	ours := func(n int) Block {
		b := testBlock(n)
		b.Writer = IngesterWriter + "0"
		return b
	}
	backfilled := testBlock(2)
	backfilled.MinTime, backfilled.MaxTime, backfilled.Writer = testBlock(1).MinTime, testBlock(1).MaxTime, ""
	if err := backfilled.ULID.SetTime(1_800_000_000_000); err != nil {
		t.Fatal(err)
	}
	backfilled.Sources = nil
	output := func(deleted uint64, inputs ...Block) Block {
		b := testOutput(9, 0)
		b.Sources, b.MinTime, b.MaxTime, b.Deleted = nil, inputs[0].MinTime, inputs[0].MaxTime, deleted
		for _, in := range inputs {
			b.Sources = append(b.Sources, in.ULID)
			b.MinTime, b.MaxTime = min(b.MinTime, in.MinTime), max(b.MaxTime, in.MaxTime)
		}
		return b
	}
	swapOf := func(deleted uint64, applied []uint64, inputs ...Block) Change {
		c := Change{Add: []Block{output(deleted, inputs...)}, Applied: applied}
		for _, in := range inputs {
			c.Replace = append(c.Replace, in.ULID)
		}
		return c
	}
	for name, c := range map[string]struct {
		change Change
		want   string // of the conflict; empty for none
		after  uint64 // Deleted of the output
	}{
		"all applied":           {swapOf(3, []uint64{1, 3}, ours(0), ours(1)), "", 3},
		"none applied":          {swapOf(0, nil, ours(0), ours(1)), "", 0},
		"the first one":         {swapOf(1, []uint64{1}, ours(0), ours(1)), "", 2},
		"of what concerns it":   {swapOf(0, nil, ours(0)), "", 2},
		"claims too much":       {swapOf(3, []uint64{1}, ours(0), ours(1)), "deletion 3, which concerns block", 0},
		"cancelled":             {swapOf(3, []uint64{1, 2, 3}, ours(0), ours(1)), "deletion 2, which it has worked in, is not", 0},
		"never there":           {swapOf(4, []uint64{1, 3}, ours(0), ours(1)), "deletion 4, which block", 0},
		"backfilled":            {swapOf(0, nil, backfilled), "", 3},
		"backfilled, with ours": {swapOf(0, nil, ours(1), backfilled), "deletion 1, which does not concern block", 0},
		"and all applied":       {swapOf(3, []uint64{1, 3}, ours(1), backfilled), "", 3},
		"nothing left":          {Change{Drop: ids(1), Applied: []uint64{1, 3}}, "", 0},
		"nothing, but wrongly":  {Change{Drop: ids(1), Applied: []uint64{1, 2}}, "deletion 2, which it has worked in, is not", 0},
	} {
		t.Run(name, func(t *testing.T) {
			o, _ := ownerWith(t, ours(0), ours(1), backfilled)
			for _, d := range []Deletion{deletionOf(1, "up"), deletionOf(1, "down"), {Selectors: []string{"x"}, MaxTime: 1 << 60}} {
				_, err := o.Delete(t.Context(), "acme", d)
				require.NoError(t, err)
			}
			require.NoError(t, o.CancelDeletion(t.Context(), "acme", 2))
			before := current(t, o)
			_, err := o.Swap(t.Context(), "acme", c.change)
			if c.want != "" {
				require.ErrorIs(t, err, ErrConflict)
				require.ErrorContains(t, err, c.want)
				require.Equal(t, before, current(t, o))
				return
			}
			require.NoError(t, err)
			for _, add := range c.change.Add {
				b, ok := current(t, o).Find(add.ULID)
				require.True(t, ok)
				require.Equal(t, c.after, b.Deleted)
			}
		})
	}
}

// TestCancelAndSwapRace: of a cancellation and a swap that has the deletion worked in, by two owners, the later one gives
// way: no samples go whose deletion was cancelled before.
func TestCancelAndSwapRace(t *testing.T) {
	bkt := bucket.NewInMemory()
	for n := range 30 {
		a, b := newTestOwner(bkt, time.Now), newTestOwner(bkt, time.Now)
		one := testBlock(2 * n)
		one.Writer = IngesterWriter + "0"
		_, err := a.Add(t.Context(), "acme", one)
		require.NoError(t, err)
		d, err := a.Delete(t.Context(), "acme", deletionOf(2*n, "up"))
		require.NoError(t, err)
		current(t, b)
		out := testOutput(2*n+1, 2*n)
		out.Deleted = d.ID
		var done sync.WaitGroup
		var cancelled, swapped error
		done.Go(func() { cancelled = a.CancelDeletion(t.Context(), "acme", d.ID) })
		done.Go(func() {
			_, swapped = b.Swap(t.Context(), "acme", Change{Add: []Block{out}, Replace: ids(2 * n), Applied: []uint64{d.ID}})
		})
		done.Wait()
		require.NoError(t, cancelled)
		m := current(t, b)
		require.Empty(t, m.Deletions)
		if swapped != nil {
			require.ErrorIs(t, swapped, ErrConflict)
			_, there := m.Find(one.ULID)
			require.True(t, there)
		}
	}
}

// TestTwoOwnersDelete: each deletion has an ID of its own, also when answers are lost.
func TestTwoOwnersDelete(t *testing.T) {
	inner := bucket.NewInMemory()
	bkt := faultbucket.New(inner, faultbucket.Seeded(faultbucket.Seed(t), 0.2, faultbucket.After, faultbucket.Before))
	var done sync.WaitGroup
	var mu sync.Mutex
	given := map[uint64]int64{}
	for owner := range 2 {
		o := newTestOwner(bkt, time.Now)
		for worker := range 2 {
			done.Go(func() {
				for n := range 10 {
					d := deletionOf(1, "up")
					d.CreatedAt = 1<<40 + int64(100*owner+20*worker+n)
					for {
						recorded, err := o.Delete(t.Context(), "acme", d)
						if err == nil {
							mu.Lock()
							given[recorded.ID] = recorded.CreatedAt
							mu.Unlock()
							break
						}
					}
				}
			})
		}
	}
	done.Wait()
	require.Len(t, given, 40)
	m := current(t, newTestOwner(inner, time.Now))
	require.Len(t, m.Deletions, 40, "repeated calls record nothing twice")
	for _, d := range m.Deletions {
		require.Equal(t, given[d.ID], d.CreatedAt)
	}
	require.EqualValues(t, 41, m.NextDeletion)
}

// TestKeptBlocks: a removed block may be remembered with a time until which its objects stay.
func TestKeptBlocks(t *testing.T) {
	o, clock := ownerWith(t, testBlock(0), testBlock(1))
	until := clock.t.Add(30 * 24 * time.Hour).UnixMilli()
	keep := func(n int) map[ulid.ULID]int64 { return map[ulid.ULID]int64{ids(n)[0]: until} }
	_, err := o.Swap(t.Context(), "acme", Change{Drop: ids(0), Keep: keep(1)})
	require.Equal(t, errkind.Invalid, errkind.Of(err))
	_, err = o.Swap(t.Context(), "acme", Change{Add: []Block{testOutput(9, 0)}, Replace: ids(0), Keep: keep(0)})
	require.NoError(t, err)
	require.Equal(t, until, current(t, o).Removed[0].KeepUntil)
	_, err = o.Swap(t.Context(), "acme", Change{Drop: ids(9)})
	require.NoError(t, err)
	require.Equal(t, until, current(t, o).Removed[0].KeepUntil, "also when its samples are dropped later")
	require.True(t, current(t, o).Removed[0].Dropped)
	clock.t = time.UnixMilli(until - 1)
	_, err = o.Swap(t.Context(), "acme", Change{Forget: ids(0)})
	require.ErrorContains(t, err, "is kept until")
	clock.t = time.UnixMilli(until)
	_, err = o.Swap(t.Context(), "acme", Change{Forget: ids(0)})
	require.NoError(t, err)
}
