package manifest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
)

func TestDoomedTenant(t *testing.T) {
	o, clock := ownerWith(t, testBlock(1), testBlock(2))
	ctx := t.Context()
	require.ErrorIs(t, o.Raze(ctx, "acme"), ErrConflict, "nobody has asked for it")
	require.ErrorIs(t, o.FinishDoom(ctx, "acme"), ErrConflict)
	require.NoError(t, o.Reprieve(ctx, "acme"), "it is not to be deleted, as wished")

	first, err := o.Doom(ctx, "acme", time.Hour)
	require.NoError(t, err)
	require.Equal(t, TenantDeletion{RequestedAt: clock.t.UnixMilli(), GraceUntil: clock.t.Add(time.Hour).UnixMilli()}, first)
	require.True(t, current(t, o).Deleting())
	version := current(t, o).Version
	clock.t = clock.t.Add(time.Minute)
	again, err := o.Doom(ctx, "acme", time.Hour)
	require.NoError(t, err)
	require.Equal(t, first, again, "asking twice buys no time")
	require.Equal(t, version, current(t, o).Version)
	require.ErrorIs(t, o.Raze(ctx, "acme"), ErrConflict, "grace")

	_, err = o.Add(ctx, "acme", testBlock(3))
	require.NoError(t, err, "what ingesters still hold is taken")
	require.NoError(t, o.Reprieve(ctx, "acme"))
	require.Nil(t, current(t, o).Doomed)
	require.Len(t, current(t, o).Blocks, 3, "and nothing was lost")

	_, err = o.Doom(ctx, "acme", time.Hour)
	require.NoError(t, err)
	clock.t = clock.t.Add(time.Hour)
	require.ErrorIs(t, o.FinishDoom(ctx, "acme"), ErrConflict, "blocks are listed")
	require.NoError(t, o.Raze(ctx, "acme"))
	m := current(t, o)
	require.Empty(t, m.Blocks)
	require.Equal(t, 3, m.Doomed.Blocks)
	require.Positive(t, m.Doomed.Bytes)
	require.ErrorIs(t, o.Reprieve(ctx, "acme"), ErrConflict, "it is too late")
	added, err := o.Add(ctx, "acme", testBlock(3))
	require.NoError(t, err)
	require.True(t, added.Covered)
	require.NoError(t, o.FinishDoom(ctx, "acme"))
	require.NoError(t, o.FinishDoom(ctx, "acme"))
	require.NoError(t, o.Raze(ctx, "acme"))
	require.ErrorIs(t, o.Reprieve(ctx, "acme"), ErrConflict)
	m = current(t, o)
	require.False(t, m.Deleting())
	require.Equal(t, clock.t.UnixMilli(), m.Doomed.FinishedAt)
	require.Nil(t, m.Removed)
}

// TestATenantBeginsAnew: nothing of the old life comes back, neither by a late announcement nor by an owner that knows
// nothing of the deletion; the new life has its own blocks, and can be deleted again.
func TestATenantBeginsAnew(t *testing.T) {
	clock := &testClock{time.UnixMilli(1_700_000_000_000)}
	bkt := bucket.NewInMemoryWithClock(clock.now)
	o, stale := newTestOwner(bkt, clock.now), newTestOwner(bkt, clock.now)
	ctx := t.Context()
	old, late := testBlock(1), testBlock(2)
	_, err := stale.Add(ctx, "acme", old)
	require.NoError(t, err)
	_, err = o.Doom(ctx, "acme", time.Minute)
	require.NoError(t, err)
	clock.t = clock.t.Add(time.Minute)
	require.NoError(t, o.Raze(ctx, "acme"))
	require.NoError(t, o.FinishDoom(ctx, "acme"))
	last := current(t, o).Version
	for v := uint64(1); v < last; v++ {
		require.NoError(t, bkt.Delete(ctx, Key("acme", v))) // as a purge does
	}

	require.EqualValues(t, 1, stale.Known("acme").Version, "it counts up from what is gone")
	added, err := stale.Add(ctx, "acme", late)
	require.NoError(t, err)
	require.True(t, added.Covered, "made before the end, of samples that were deleted")
	require.Equal(t, []uint64{last}, versions(t, bkt), "and what it wrote meanwhile is undone")
	require.Empty(t, stale.Known("acme").Blocks)

	young := testBlock(3)
	require.NoError(t, young.ULID.SetTime(uint64(clock.t.Add(time.Hour).UnixMilli())))
	young.Sources = nil
	added, err = stale.Add(ctx, "acme", young)
	require.NoError(t, err)
	require.False(t, added.Covered)
	require.Equal(t, last+1, added.Version, "the numbers go on")
	ahead := testBlock(4) // by a clock that is behind
	ahead.MaxTime = clock.t.Add(time.Hour).UnixMilli()
	added, err = stale.Add(ctx, "acme", ahead)
	require.NoError(t, err)
	require.False(t, added.Covered, "it has samples that are younger than the old life")

	again, err := o.Doom(ctx, "acme", time.Minute)
	require.NoError(t, err)
	require.Equal(t, clock.t.UnixMilli(), again.RequestedAt)
	require.Zero(t, again.FinishedAt)
}
