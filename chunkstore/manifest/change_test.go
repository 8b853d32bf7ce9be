package manifest

import (
	"context"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
	"github.com/duramendb/duramen/internal/errkind"
)

func ids(ns ...int) []ulid.ULID {
	var out []ulid.ULID
	for _, n := range ns {
		out = append(out, testBlock(n).ULID)
	}
	return out
}

// testOutput is the n-th block, made by a compactor of the given ones.
func testOutput(n int, inputs ...int) Block {
	b := testBlock(n)
	b.Writer, b.Level, b.Sources = CompactorWriter+"0", 2, ids(inputs...)
	b.MinTime, b.MaxTime = testBlock(inputs[0]).MinTime, testBlock(inputs[len(inputs)-1]).MaxTime
	return b
}

// ownerWith returns an owner of a tenant with the blocks, and its clock.
func ownerWith(t *testing.T, blocks ...Block) (*Owner, *testClock) {
	t.Helper()
	clock := &testClock{time.UnixMilli(1_700_000_000_000)}
	o := newTestOwner(bucket.NewInMemoryWithClock(clock.now), clock.now)
	for _, b := range blocks {
		_, err := o.Add(t.Context(), "acme", b)
		require.NoError(t, err)
	}
	return o, clock
}

func listed(m *Manifest) []ulid.ULID {
	var out []ulid.ULID
	for i := range m.Blocks {
		out = append(out, m.Blocks[i].ULID)
	}
	return out
}

func current(t *testing.T, o *Owner) *Manifest {
	t.Helper()
	m, err := o.Refresh(t.Context(), "acme")
	require.NoError(t, err)
	require.NoError(t, m.validate())
	return m
}

func TestSwapIsOneVersion(t *testing.T) {
	o, clock := ownerWith(t, testBlock(0), testBlock(1), testBlock(2), testBlock(3))
	change := Change{Add: []Block{testOutput(9, 0, 1)}, Replace: ids(0, 1), Drop: ids(2)}
	version, err := o.Swap(t.Context(), "acme", change)
	require.NoError(t, err)
	require.EqualValues(t, 5, version)
	m := current(t, o)
	require.EqualValues(t, 5, m.Version)
	require.Equal(t, ids(9, 3), listed(m))
	require.EqualValues(t, 5, m.Blocks[0].AddedVersion)
	at := clock.t.UnixMilli()
	require.Equal(t, []RemovedBlock{
		{ULID: ids(0)[0], RemovedAt: at}, {ULID: ids(1)[0], RemovedAt: at}, {ULID: ids(2)[0], RemovedAt: at, Dropped: true},
	}, m.Removed)

	// Nothing comes back.
	for n := range 3 {
		added, err := o.Add(t.Context(), "acme", testBlock(n))
		require.NoError(t, err)
		require.True(t, added.Covered)
	}
	// Once more is no other version.
	version, err = o.Swap(t.Context(), "acme", change)
	require.NoError(t, err)
	require.EqualValues(t, 5, version)
	// Also when the output has been replaced since.
	_, err = o.Swap(t.Context(), "acme", Change{Add: []Block{testOutput(10, 0, 1)}, Replace: ids(9)})
	require.NoError(t, err)
	version, err = o.Swap(t.Context(), "acme", change)
	require.NoError(t, err)
	require.EqualValues(t, 6, version)
	require.Equal(t, ids(10, 3), listed(current(t, o)))
}

func TestSwapThatDoesNotFit(t *testing.T) {
	wide := testOutput(9, 0, 1)
	wide.MaxTime++
	for name, c := range map[string]struct {
		change Change
		want   string
	}{
		"removed block is unknown":  {Change{Drop: ids(7)}, "which it takes out, is not listed"},
		"one of two is unknown":     {Change{Unlist: ids(0, 7)}, "which it takes out, is not listed"},
		"added block is listed":     {Change{Add: []Block{testBlock(0)}, Drop: ids(1)}, "which it adds, is known already"},
		"a source is lost":          {Change{Add: []Block{testOutput(9, 0)}, Replace: ids(0, 1)}, "would be in no block"},
		"nothing in its place":      {Change{Replace: ids(0)}, "would be in no block"},
		"a source is invented":      {Change{Add: []Block{testOutput(9, 0, 1)}, Replace: ids(0)}, "in no block that it takes out"},
		"reaches further":           {Change{Add: []Block{wide}, Replace: ids(0, 1)}, "reaches from"},
		"output of nothing":         {Change{Add: []Block{testOutput(9, 5)}}, "in no block that it takes out"},
		"forgets too early":         {Change{Forget: ids(6)}, "was removed less than 48h0m0s ago"},
		"forgets and drops at once": {Change{Drop: ids(0), Forget: ids(6)}, "was removed less than 48h0m0s ago"},
		"a shard is not the others": {Change{Add: []Block{inShard(testOutput(9, 4), "2_of_2")}, Replace: ids(4)}, "would be in no block"},
	} {
		t.Run(name, func(t *testing.T) {
			o, _ := ownerWith(t, testBlock(0), testBlock(1), testBlock(2), testBlock(3),
				inShard(testBlock(4), "1_of_2"), testBlock(6))
			_, err := o.Swap(t.Context(), "acme", Change{Drop: ids(6)})
			require.NoError(t, err)
			before := current(t, o)
			_, err = o.Swap(t.Context(), "acme", c.change)
			require.ErrorIs(t, err, ErrConflict)
			require.ErrorContains(t, err, c.want)
			require.Equal(t, errkind.Unprocessable, errkind.Of(err))
			require.Equal(t, before, current(t, o), "all or nothing")
		})
	}
}

func inShard(b Block, shard string) Block {
	b.Shard = shard
	return b
}

func TestSwapThatCannotBeRight(t *testing.T) {
	o, _ := ownerWith(t, testBlock(0))
	for name, change := range map[string]Change{
		"added twice":        {Add: []Block{testBlock(1), testBlock(1)}},
		"removed twice":      {Replace: ids(0, 0)},
		"replaced, dropped":  {Replace: ids(0), Drop: ids(0)},
		"added and unlisted": {Add: []Block{testBlock(0)}, Unlist: ids(0)},
		"invalid":            {Add: []Block{{}}},
	} {
		_, err := o.Swap(t.Context(), "acme", change)
		require.Equal(t, errkind.Invalid, errkind.Of(err), name)
	}
	require.EqualValues(t, 1, current(t, o).Version)
}

// TestShards: a peer splits a block into shards and merges each with others.
func TestShards(t *testing.T) {
	o, _ := ownerWith(t, testBlock(0), testBlock(1))
	first, second := inShard(testBlock(10), "1_of_2"), inShard(testBlock(11), "2_of_2")
	first.Sources, second.Sources = ids(0), ids(0)
	added, err := o.Add(t.Context(), "acme", first)
	require.NoError(t, err)
	require.False(t, added.Covered)
	added, err = o.Add(t.Context(), "acme", second)
	require.NoError(t, err)
	require.False(t, added.Covered, "another shard holds none of its series")
	_, err = o.Swap(t.Context(), "acme", Change{Replace: ids(0)})
	require.NoError(t, err)
	merged := inShard(testBlock(12), "1_of_2")
	merged.Sources = ids(0, 1)
	_, err = o.Swap(t.Context(), "acme", Change{Add: []Block{merged}, Replace: ids(10)})
	require.NoError(t, err)
	require.Equal(t, ids(1, 11, 12), listed(current(t, o)))

	unsplit, _ := ownerWith(t, first)
	added, err = unsplit.Add(t.Context(), "acme", testBlock(0))
	require.NoError(t, err)
	require.False(t, added.Covered, "a shard is not all of the block")
}

func TestWhatIsDroppedTakesItsSourcesAlong(t *testing.T) {
	o, clock := ownerWith(t, testBlock(0), testBlock(1), testBlock(2))
	_, err := o.Swap(t.Context(), "acme", Change{Add: []Block{testOutput(9, 0, 1)}, Replace: ids(0, 1)})
	require.NoError(t, err)
	clock.t = clock.t.Add(RememberRemoved)
	_, err = o.Swap(t.Context(), "acme", Change{Forget: ids(0)})
	require.NoError(t, err)
	_, err = o.Swap(t.Context(), "acme", Change{Drop: ids(9), Unlist: ids(2)})
	require.NoError(t, err)
	m, at := current(t, o), clock.t.UnixMilli()
	require.Empty(t, m.Blocks)
	require.ElementsMatch(t, []RemovedBlock{
		{ULID: ids(9)[0], RemovedAt: at, Dropped: true},
		{ULID: ids(0)[0], RemovedAt: at, Dropped: true},
		{ULID: ids(1)[0], RemovedAt: at, Dropped: true}, // was remembered as replaced, and begins anew
		{ULID: ids(2)[0], RemovedAt: at},
	}, m.Removed)
	added, err := o.Add(t.Context(), "acme", testBlock(0))
	require.NoError(t, err)
	require.True(t, added.Covered)
}

func TestForgetting(t *testing.T) {
	o, clock := ownerWith(t, testBlock(0), testBlock(1))
	_, err := o.Swap(t.Context(), "acme", Change{Drop: ids(0)})
	require.NoError(t, err)
	clock.t = clock.t.Add(RememberRemoved)
	_, err = o.Swap(t.Context(), "acme", Change{Forget: ids(0, 5)})
	require.NoError(t, err)
	m := current(t, o)
	require.Empty(t, m.Removed)
	_, err = o.Swap(t.Context(), "acme", Change{Forget: ids(0, 5)})
	require.NoError(t, err)
	require.Equal(t, m.Version, current(t, o).Version)
}

// TestRivalsSwapTheSameInputs: of two compactors one wins, and the other is told by name.
func TestRivalsSwapTheSameInputs(t *testing.T) {
	a, _ := ownerWith(t, testBlock(0), testBlock(1))
	b := newTestOwner(a.bkt, a.now)
	_, err := b.Current(t.Context(), "acme")
	require.NoError(t, err)
	_, err = a.Swap(t.Context(), "acme", Change{Add: []Block{testOutput(8, 0, 1)}, Replace: ids(0, 1)})
	require.NoError(t, err)
	_, err = b.Swap(t.Context(), "acme", Change{Add: []Block{testOutput(9, 0, 1)}, Replace: ids(0, 1)})
	require.ErrorIs(t, err, ErrConflict)
	require.Equal(t, ids(8), listed(current(t, b)))
}

// TestConflictsAreJudgedByTheNewestVersion: the owner does not know yet what another one has added.
func TestConflictsAreJudgedByTheNewestVersion(t *testing.T) {
	a, _ := ownerWith(t, testBlock(0))
	b := newTestOwner(a.bkt, a.now)
	_, err := b.Current(t.Context(), "acme")
	require.NoError(t, err)
	for n := 1; n < 3; n++ {
		_, err = a.Add(t.Context(), "acme", testBlock(n))
		require.NoError(t, err)
	}
	_, err = b.Swap(t.Context(), "acme", Change{Drop: ids(1)})
	require.NoError(t, err)
	c := newTestOwner(a.bkt, func() time.Time { return a.now().Add(-time.Minute) })
	require.NoError(t, c.Annotate(t.Context(), "acme", Annotation{ULID: ids(2)[0], SidecarBytes: 5, DirectoryBytes: 2}))
	m := current(t, b)
	require.Equal(t, ids(0, 2), listed(m))
	require.EqualValues(t, 5, m.Blocks[1].SidecarBytes)
}

func TestAnnotate(t *testing.T) {
	o, _ := ownerWith(t, testBlock(0), testBlock(1))
	reason, none := "index is too large", ""
	note := func(n Annotation) Block {
		t.Helper()
		for range 2 {
			require.NoError(t, o.Annotate(t.Context(), "acme", n))
		}
		b, ok := current(t, o).Find(n.ULID)
		require.True(t, ok)
		return *b
	}
	id := ids(1)[0]
	want := testBlock(1)
	want.AddedAt, want.AddedVersion = o.now().UnixMilli(), 2
	want.SidecarBytes, want.DirectoryBytes = 100, 10
	require.Equal(t, want, note(Annotation{ULID: id, SidecarBytes: 100, DirectoryBytes: 10}))
	want.NoCompact = reason
	require.Equal(t, want, note(Annotation{ULID: id, NoCompact: &reason}))
	want.SidecarBytes, want.DirectoryBytes = 90, 9
	require.Equal(t, want, note(Annotation{ULID: id, SidecarBytes: 90, DirectoryBytes: 9}))
	want.NoCompact = ""
	require.Equal(t, want, note(Annotation{ULID: id, NoCompact: &none}))
	require.EqualValues(t, 6, current(t, o).Version, "four changes, four versions")

	require.NoError(t, o.Annotate(t.Context(), "acme"))
	require.NoError(t, o.Annotate(t.Context(), "acme", Annotation{ULID: ids(7)[0], SidecarBytes: 1, DirectoryBytes: 1}))
	require.NoError(t, o.Annotate(t.Context(), "nobody", Annotation{ULID: ids(7)[0], SidecarBytes: 1, DirectoryBytes: 1}))
	err := o.Annotate(t.Context(), "acme", Annotation{ULID: id, SidecarBytes: 1, DirectoryBytes: 2})
	require.Equal(t, errkind.Invalid, errkind.Of(err))
	require.EqualValues(t, 6, current(t, o).Version)
}

func TestLost(t *testing.T) {
	o, _ := ownerWith(t, testBlock(0))
	for _, l := range []LostRange{
		{10, 20, "a"}, {30, 40, "a"}, {10, 20, "a"}, {12, 15, "a"}, {12, 15, "b"}, {40, 50, "a"}, {60, 70, "a"}, {15, 35, "a"},
	} {
		for range 2 {
			require.NoError(t, o.Lost(t.Context(), "acme", l))
		}
	}
	m := current(t, o)
	require.Equal(t, []LostRange{{10, 50, "a"}, {12, 15, "b"}, {60, 70, "a"}}, m.Lost)
	require.EqualValues(t, 7, m.Version, "what is known makes no version")
	require.Len(t, m.Blocks, 1)
	require.Equal(t, []LostRange{{10, 50, "a"}}, m.LostIn(49, 59))
	require.Empty(t, m.LostIn(50, 59))
	require.Len(t, m.LostIn(0, 60), 3)
	require.Equal(t, errkind.Invalid, errkind.Of(o.Lost(t.Context(), "acme", LostRange{5, 5, "x"})))
	require.NoError(t, o.Lost(t.Context(), "new-tenant", LostRange{5, 6, "x"}), "a tenant may have lost all it ever had")
}

// TestChangesFailAtAnyOperationAndAreRepeated is as for Add.
func TestChangesFailAtAnyOperationAndAreRepeated(t *testing.T) {
	reason := "because"
	for name, change := range map[string]func(ctx context.Context, o *Owner) error{
		"swap": func(ctx context.Context, o *Owner) error {
			_, err := o.Swap(ctx, "acme", Change{Add: []Block{testOutput(9, 0, 1)}, Replace: ids(0, 1), Drop: ids(2)})
			return err
		},
		"annotate": func(ctx context.Context, o *Owner) error {
			return o.Annotate(ctx, "acme", Annotation{ULID: ids(0)[0], SidecarBytes: 9, DirectoryBytes: 3, NoCompact: &reason})
		},
		"lost": func(ctx context.Context, o *Owner) error {
			return o.Lost(ctx, "acme", LostRange{MinTime: 1, MaxTime: 2, Reason: reason})
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, fault := range []faultbucket.Fault{
				faultbucket.Before, faultbucket.After, faultbucket.Stall, faultbucket.StallAfter, faultbucket.Truncate,
			} {
				for k := range 6 {
					failAndRepeat(t, change, fault, k)
				}
			}
		})
	}
}

func failAndRepeat(t *testing.T, change func(context.Context, *Owner) error, fault faultbucket.Fault, k int) {
	t.Helper()
	o, _ := ownerWith(t, testBlock(0), testBlock(1), testBlock(2))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	bkt := faultbucket.New(o.bkt, func(op faultbucket.Op) faultbucket.Fault {
		if op.N != k {
			return faultbucket.None
		}
		if fault == faultbucket.Stall || fault == faultbucket.StallAfter {
			cancel()
		}
		return fault
	})
	faulty := newTestOwner(bkt, o.now)
	if err := change(ctx, faulty); err != nil {
		require.Contains(t, []errkind.Kind{errkind.Unavailable, errkind.Canceled}, errkind.Of(err), "%v", err)
	}
	require.NoError(t, change(t.Context(), faulty), "%s at operation %d", fault, k)
	m := current(t, o)
	require.EqualValues(t, 4, m.Version, "%s at operation %d", fault, k)
	require.NoError(t, change(t.Context(), o))
	require.EqualValues(t, 4, current(t, o).Version)
}

// TestAPausedOwnerSwaps is as for Add: the next number has been used and deleted, and the put succeeds.
func TestAPausedOwnerSwaps(t *testing.T) {
	o, clock := ownerWith(t, testBlock(0), testBlock(1))
	stopped := &testClock{clock.t}
	paused := newTestOwner(o.bkt, stopped.now)
	_, err := paused.Current(t.Context(), "acme")
	require.NoError(t, err)
	addVersions(t, o, clock, 2, 9, time.Hour)
	_, err = o.Swap(t.Context(), "acme", Change{Drop: ids(1)})
	require.NoError(t, err)
	require.NotContains(t, versions(t, o.bkt), uint64(3))

	_, err = paused.Swap(t.Context(), "acme", Change{Drop: ids(0, 1)})
	require.ErrorIs(t, err, ErrConflict, "on its own history it would have fitted")
	require.Equal(t, 1, swaps(paused, swapForked))
	require.NotContains(t, versions(t, o.bkt), uint64(3))
	m := current(t, o)
	require.Equal(t, m, current(t, paused))
	require.Equal(t, ids(0, 2), listed(m)[:2])

	stopped.t = clock.t
	_, err = paused.Swap(t.Context(), "acme", Change{Drop: ids(0)})
	require.NoError(t, err)
}
