package reconcile

import (
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
)

const compactor = manifest.CompactorWriter + "0"

// ruin makes the newest version unreadable.
func ruin(t *testing.T, bkt bucket.Bucket, version uint64) {
	t.Helper()
	put(t, bkt, manifest.Key(testTenant, version), "ruined")
}

func accepted() RebuildOptions { return RebuildOptions{AcceptLostTombstones: true} }

func reasons(r *Rebuilt) map[ulid.ULID]string {
	out := map[ulid.ULID]string{}
	for _, l := range r.Left {
		out[l.ULID] = l.Reason
	}
	return out
}

func TestRebuildFromNothing(t *testing.T) {
	c := &clock{start}
	bkt := bucket.NewInMemoryWithClock(c.now)
	for _, s := range []spec{
		{n: 0},
		{n: 1},
		{n: 2, writer: "ingester/x"},
		{n: 3},
		{n: 4},
		{n: 5},
		{n: 6},
		{n: 10, sources: []int{0, 1}, writer: compactor},
		{n: 11, sources: []int{0, 1}, writer: compactor}, // of two rivals the older
		{n: 12, sources: []int{0, 1, 2}, change: func(m *block.Meta) { m.Thanos.Downsample.Resolution = 300_000 }},
		{n: 13, sources: []int{4}, labels: map[string]string{"__compactor_shard_id__": "1_of_2"}},
		{n: 14, sources: []int{4}, labels: map[string]string{"__compactor_shard_id__": "2_of_2"}},
		{n: 15, sources: []int{5, 6}, change: func(m *block.Meta) { m.Thanos.Files[0].SizeBytes++ }},
		{n: 16, writer: "ingester/x", change: func(m *block.Meta) { m.MaxTime *= 1000 }},
	} {
		putBlock(t, bkt, s)
	}
	mark(t, bkt, 3)
	markGlobally(t, bkt, 4)
	require.NoError(t, bkt.Delete(t.Context(), block.Key(testTenant, id(6), block.MetaName)))
	put(t, bkt, testTenant+"/something/else", "x")

	r, err := Rebuild(t.Context(), bkt, newOwner(bkt, c), testTenant, accepted())
	require.NoError(t, err)
	require.ElementsMatch(t, ids(2, 11, 13, 14, 5), listed(r.Manifest))
	require.EqualValues(t, 1, r.Manifest.Version)
	require.Equal(t, r.Manifest, newest(t, bkt, c))
	left := reasons(r)
	for n, want := range map[int]string{
		0: "in other blocks", 1: "in other blocks", 10: "in other blocks", 3: "marked for deletion", 4: "marked for deletion",
		12: "downsampled", 15: "incomplete: chunks/000001 has 11 bytes instead of 12", 6: "no meta.json", 16: "doubtful: it reaches",
	} {
		require.Contains(t, left[id(n)], want, "block %d", n)
	}
	require.Len(t, left, 9)
}

func TestRebuildTakesOverWhatCanBeRead(t *testing.T) {
	c := &clock{start}
	bkt := bucket.NewInMemoryWithClock(c.now)
	o := newOwner(bkt, c)
	for n := range 5 {
		_, err := o.Add(t.Context(), testTenant, putBlock(t, bkt, spec{n: n, writer: "ingester/x"}))
		require.NoError(t, err)
	}
	require.NoError(t, o.Annotate(t.Context(), testTenant, manifest.Annotation{ULID: id(0), SidecarBytes: 5, DirectoryBytes: 1}))
	require.NoError(t, o.Lost(t.Context(), testTenant, manifest.LostRange{MinTime: 1, MaxTime: 2, Reason: "x"}))
	_, err := o.Swap(t.Context(), testTenant, manifest.Change{Drop: ids(1)})
	require.NoError(t, err)
	before := newest(t, bkt, c)
	require.NoError(t, block.Delete(t.Context(), bkt, testTenant, id(4)))
	// Versions 9 and 10 were written and are ruined: block 5 was added.
	putBlock(t, bkt, spec{n: 5, writer: "ingester/x"})
	ruin(t, bkt, 9)
	ruin(t, bkt, 10)

	_, err = Rebuild(t.Context(), bkt, newOwner(bkt, c), testTenant, RebuildOptions{})
	require.ErrorIs(t, err, ErrTombstones)
	require.Equal(t, errkind.Invalid, errkind.Of(err))
	dry, err := Rebuild(t.Context(), bkt, newOwner(bkt, c), testTenant, RebuildOptions{DryRun: true})
	require.NoError(t, err)
	require.Zero(t, dry.Manifest.Version)

	r, err := Rebuild(t.Context(), bkt, newOwner(bkt, c), testTenant, accepted())
	require.NoError(t, err)
	require.ElementsMatch(t, listed(r.Manifest), listed(dry.Manifest))
	require.Equal(t, dry.Left, r.Left)
	require.EqualValues(t, 8, r.Readable)
	require.EqualValues(t, 10, r.Newest)
	require.EqualValues(t, 11, r.Manifest.Version)
	require.Equal(t, ids(0, 2, 3, 5), listed(r.Manifest))
	require.Equal(t, before.Removed, r.Manifest.Removed)
	require.Equal(t, before.Lost, r.Manifest.Lost)
	for _, b := range r.Manifest.Blocks[:3] {
		was, ok := before.Find(b.ULID)
		require.True(t, ok)
		require.Equal(t, *was, b)
	}
	require.EqualValues(t, 11, r.Manifest.Blocks[3].AddedVersion)
	require.Len(t, r.Left, 2)
	require.Contains(t, reasons(r)[id(1)], "remembers its removal")
	require.Contains(t, reasons(r)[id(4)], "not in the bucket")
	require.True(t, r.Left[1].Missing)

	_, err = Rebuild(t.Context(), bkt, newOwner(bkt, c), testTenant, accepted())
	require.ErrorIs(t, err, manifest.ErrReadable, "once is enough")
	again, err := Rebuild(t.Context(), bkt, newOwner(bkt, c), testTenant, RebuildOptions{AcceptLostTombstones: true, Force: true})
	require.NoError(t, err)
	require.Equal(t, listed(r.Manifest), listed(again.Manifest))
}

func TestRebuildGuessesNothing(t *testing.T) {
	c := &clock{start}
	inner := bucket.NewInMemoryWithClock(c.now)
	for n := range 3 {
		putBlock(t, inner, spec{n: n})
	}
	operations := func() int {
		bkt := faultbucket.New(inner, nil)
		_, err := Rebuild(t.Context(), bkt, newOwner(bkt, c), testTenant, RebuildOptions{DryRun: true})
		require.NoError(t, err)
		return len(bkt.Ops())
	}()
	for _, fault := range []faultbucket.Fault{faultbucket.Before, faultbucket.After, faultbucket.Truncate} {
		for k := range operations {
			bkt := faultbucket.New(inner, func(op faultbucket.Op) faultbucket.Fault {
				if op.N == k {
					return fault
				}
				return faultbucket.None
			})
			r, err := Rebuild(t.Context(), bkt, newOwner(bkt, c), testTenant, RebuildOptions{DryRun: true})
			if err != nil {
				require.Equal(t, errkind.Unavailable, errkind.Of(err), "%v", err)
				continue
			}
			require.Len(t, r.Manifest.Blocks, 3, "%s at %d: all or an error", fault, k)
		}
	}
	_, err := Rebuild(t.Context(), inner, newOwner(inner, c), "../x", accepted())
	require.Equal(t, errkind.Invalid, errkind.Of(err))
	require.Empty(t, there(t, inner, manifest.Prefix(testTenant)))
}

// TestRebuildPrefersWhatWasSalvaged: a salvaged block and the damaged one that is kept hold the same samples. One of them is
// listed, and that is the salvaged one, whatever else was made of what.
func TestRebuildPrefersWhatWasSalvaged(t *testing.T) {
	level := func(n int) func(*block.Meta) { return func(m *block.Meta) { m.Compaction.Level = n } }
	for name, tt := range map[string]struct {
		put    []spec
		listed []int
		left   []int
	}{
		"of an ingester": {
			[]spec{{n: 0, writer: ingester}, {n: 20, sources: []int{0}, writer: compactor, change: level(1)}},
			[]int{20},
			[]int{0},
		},
		"merged": {
			[]spec{
				{n: 0, writer: ingester},
				{n: 1, writer: ingester},
				{n: 10, sources: []int{0, 1}, writer: compactor},
				{n: 20, sources: []int{0, 1}, writer: compactor},
			},
			[]int{20},
			[]int{0, 1, 10},
		},
		"of a peer": {
			[]spec{{n: 10, sources: []int{0, 1}}, {n: 20, sources: []int{0, 1}, writer: compactor}},
			[]int{20},
			[]int{10},
		},
		"merged later": {
			[]spec{
				{n: 0, writer: ingester},
				{n: 20, sources: []int{0}, writer: compactor, change: level(1)},
				{n: 1, writer: ingester},
				{n: 30, sources: []int{0, 1}, writer: compactor},
			},
			[]int{30},
			[]int{0, 1, 20},
		},
		"beside another": {
			[]spec{
				{n: 0, writer: ingester},
				{n: 1, writer: ingester},
				{n: 20, sources: []int{0}, writer: compactor, change: level(1)},
			},
			[]int{1, 20},
			[]int{0},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			for _, s := range tt.put {
				f.put(s)
			}
			r, err := Rebuild(t.Context(), f.bkt, f.o, testTenant, RebuildOptions{AcceptLostTombstones: true})
			require.NoError(t, err)
			require.ElementsMatch(t, ids(tt.listed...), listed(r.Manifest))
			var left []ulid.ULID
			for _, l := range r.Left {
				left = append(left, l.ULID)
			}
			require.ElementsMatch(t, ids(tt.left...), left)
		})
	}
}
