package reconcile

import (
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

// TestKeptBlockStaysAsLongAsItIsKept: the objects of a damaged block that was replaced stay, without a mark that makes a
// peer delete them, and go the usual way when the time is over.
func TestKeptBlockStaysAsLongAsItIsKept(t *testing.T) {
	f := newFixture(t)
	f.add(spec{n: 1}, spec{n: 2})
	put(t, f.bkt, globalMarkKey(testTenant, id(1), noCompactMarkName), `{}`)
	keep := map[ulid.ULID]int64{id(1): f.now().Add(45 * 24 * time.Hour).UnixMilli()}
	_, err := f.o.Swap(t.Context(), testTenant, manifest.Change{Drop: ids(1), Keep: keep})
	require.NoError(t, err)
	before := there(t, f.bkt, block.Prefix(testTenant, id(1)))
	for range 44 {
		f.advance(24 * time.Hour)
		m := f.pass()
		require.Len(t, m.Removed, 1)
	}
	require.Equal(t, 1, f.left(leftKept))
	require.Equal(t, before, there(t, f.bkt, block.Prefix(testTenant, id(1))))
	require.Empty(t, there(t, f.bkt, globalMarkKey(testTenant, id(1), deletionMarkName)))

	for range 6 {
		f.advance(24 * time.Hour)
		f.pass()
	}
	require.Empty(t, there(t, f.bkt, block.Prefix(testTenant, id(1))))
	require.Empty(t, there(t, f.bkt, testTenant+"/markers/"), "marks of a block that is forgotten go, too")
	require.Empty(t, f.pass().Removed)
	require.Zero(t, f.left(leftKept))
}

// TestKeptBlockWithoutObjects: a block of which nothing was left is no reason for a pass to fail.
func TestKeptBlockWithoutObjects(t *testing.T) {
	f := newFixture(t)
	f.add(spec{n: 1}, spec{n: 2})
	keep := map[ulid.ULID]int64{id(1): f.now().Add(45 * 24 * time.Hour).UnixMilli()}
	_, err := f.o.Swap(t.Context(), testTenant, manifest.Change{Drop: ids(1), Keep: keep})
	require.NoError(t, err)
	require.NoError(t, block.Delete(t.Context(), f.bkt, testTenant, id(1)))
	for range 4 {
		f.advance(24 * time.Hour)
		require.Len(t, f.pass().Removed, 1)
	}
	f.advance(42 * 24 * time.Hour)
	require.Empty(t, f.pass().Removed)
}

func TestDamagedAreNamed(t *testing.T) {
	f := newFixture(t)
	f.add(spec{n: 1}, spec{n: 2})
	f.pass()
	require.Empty(t, f.r.Damaged(testTenant))
	require.NoError(t, f.bkt.Delete(t.Context(), block.Key(testTenant, id(2), block.MetaName)))
	f.advance(time.Hour)
	f.pass()
	damaged := f.r.Damaged(testTenant)
	require.Len(t, damaged, 1)
	require.Contains(t, damaged, id(2))
	require.Empty(t, f.r.Damaged("nobody"))
}

// TestSourcesStayWhileTheirOutputIsDamaged: what was merged is deleted when the block made of it is whole, and not before.
func TestSourcesStayWhileTheirOutputIsDamaged(t *testing.T) {
	f := newFixture(t)
	f.add(spec{n: 0, writer: ingester}, spec{n: 1, writer: ingester}, spec{n: 2})
	merged := f.put(spec{n: 10, sources: []int{0, 1}, writer: compactor})
	change := manifest.Change{Add: []manifest.Block{merged}, Replace: ids(0, 1)}
	_, err := f.o.Swap(t.Context(), testTenant, change)
	require.NoError(t, err)
	_, err = f.o.Swap(t.Context(), testTenant, manifest.Change{Drop: ids(2)})
	require.NoError(t, err)
	f.pass()
	index := block.Key(testTenant, id(10), block.IndexName)
	content := mustGet(t, f.bkt, index)
	require.NoError(t, f.bkt.Delete(t.Context(), index))
	for range 3 {
		f.advance(24 * time.Hour)
		f.pass()
	}
	require.NotEmpty(t, f.objects(0))
	require.NotEmpty(t, f.objects(1))
	require.Empty(t, f.objects(2), "it has nothing to do with the damage")
	require.Equal(t, 2, f.left(leftKept))

	put(t, f.bkt, index, content)
	f.advance(24 * time.Hour)
	f.pass()
	require.Empty(t, f.objects(0))
	require.Empty(t, f.objects(1))
	require.Zero(t, f.left(leftKept))
}

// TestMarkedBlockIsAdoptedWithItsMark: a compactor must not see it without.
func TestMarkedBlockIsAdoptedWithItsMark(t *testing.T) {
	f := newFixture(t)
	f.put(spec{n: 0})
	put(t, f.bkt, globalMarkKey(testTenant, id(0), noCompactMarkName), `{"reason":"large"}`)
	f.advance(settleTime)
	f.requireListed(0)
	m := f.pass()
	require.Equal(t, "marked by a peer: large", m.Blocks[0].NoCompact)
	require.Equal(t, m.Version, m.Blocks[0].AddedVersion, "no version lists it without")
}

// TestMarkThatComesWhileABlockSettles: what an earlier pass made of the block does not stand in the mark's way.
func TestMarkThatComesWhileABlockSettles(t *testing.T) {
	f := newFixture(t)
	f.put(spec{n: 0, noList: true})
	f.requireListed()
	require.Equal(t, 1, f.left(leftSettling))
	put(t, f.bkt, block.Key(testTenant, id(0), noCompactMarkName), `{"reason":"manual"}`)
	f.advance(settleTime)
	m := f.pass()
	require.Equal(t, "marked by a peer: manual", m.Blocks[0].NoCompact)
	require.Equal(t, m.Version, m.Blocks[0].AddedVersion, "no version lists it without")
}
