package reconcile

import (
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/manifest"
)

func TestCoverage(t *testing.T) {
	made := func(n int, shard string, sources ...int) *manifest.Block {
		return &manifest.Block{ULID: id(n), Shard: shard, Sources: ids(sources...)}
	}
	c := newCoverage([]manifest.RemovedBlock{{ULID: id(7), Dropped: true}, {ULID: id(8)}})
	c.add(made(10, "", 0, 1, 20))
	c.add(made(11, "1_of_2", 2))
	for _, x := range []struct {
		block             *manifest.Block
		covered, replaced bool
	}{
		{made(0, "", 0), true, true},
		{made(30, "", 0, 1), true, true},
		{made(30, "1_of_2", 0, 1), true, true},
		{made(30, "", 0, 3), false, false},
		{made(30, "1_of_2", 2), true, true},
		{made(30, "2_of_2", 2), false, false},
		{made(2, "", 2), false, true}, // one shard proves nothing, but a mark and a shard do
		{made(30, "", 0, 7), true, false},
		{made(30, "", 0, 8), false, false}, // removed, but not to get rid of its samples
		{made(20, "", 3), true, false},     // something was made of it, whatever it says of itself
	} {
		require.Equal(t, x.covered, c.covers(x.block), "covers %v", x.block)
		require.Equal(t, x.replaced, c.replaced(x.block), "replaced %v", x.block)
	}
}

// TestWhatHoldsMostComesFirst, in whatever order a map yields the candidates.
func TestWhatHoldsMostComesFirst(t *testing.T) {
	for range 50 {
		s := &situation{
			manifest: &manifest.Manifest{Tenant: testTenant}, now: start,
			listing: &listing{folders: map[ulid.ULID]*folder{}}, candidates: map[ulid.ULID]*candidate{},
		}
		for n, sources := range map[int][]int{0: {0}, 1: {1}, 2: {0, 1}, 3: {0, 1, 4}, 4: {4}, 5: {5}} {
			s.listing.folder(id(n))
			s.candidates[id(n)] = &candidate{
				verdict: verdictWhole, listed: true, block: manifest.Block{ULID: id(n), Level: 1, Sources: ids(sources...)},
			}
		}
		p := makePlan(s)
		var got []ulid.ULID
		for _, b := range p.change.Add {
			got = append(got, b.ULID)
		}
		require.Equal(t, ids(3, 5), got)
		require.Equal(t, 4, p.left[leftCovered])
	}
}
