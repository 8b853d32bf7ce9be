package reconcile

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
)

func (f *fixture) requireForeign(ns ...int) {
	f.t.Helper()
	var found []int
	for id := range f.r.Foreign(testTenant) {
		found = append(found, int(id[15]))
	}
	require.ElementsMatch(f.t, ns, found)
}

// TestSomebodyElseMarksOurs: a block of ours stays listed whatever a peer's mark says, unless its samples are elsewhere, and
// the compactor is told for a day.
func TestSomebodyElseMarksOurs(t *testing.T) {
	f := newFixture(t)
	f.add(spec{n: 0, writer: ingester}, spec{n: 1, sources: []int{1, 2}, writer: compactor}, spec{n: 3})
	f.requireListed(0, 1, 3)
	f.requireForeign()
	mark(t, f.bkt, 0)
	markGlobally(t, f.bkt, 1)
	mark(t, f.bkt, 3) // its own
	f.requireListed(0, 1, 3)
	f.requireForeign() // it may be about to list what it has made
	f.advance(settleTime)
	f.requireListed(0, 1, 3)
	f.requireForeign(0, 1)
	require.EqualValues(t, 2, testutil.ToFloat64(f.r.metrics.foreign))
	f.advance(unreplacedWait)
	f.requireListed(0, 1)

	require.NoError(t, f.bkt.Delete(t.Context(), block.Key(testTenant, id(0), deletionMarkName)))
	f.requireListed(0, 1)
	f.requireForeign(1)
	f.advance(foreignQuiet)
	f.requireForeign()
	f.requireListed(0, 1)
	require.EqualValues(t, 1, testutil.ToFloat64(f.r.metrics.foreign), "somebody still has to look")

	f.put(spec{n: 10, sources: []int{1, 2}}) // what the peer has made of it
	f.requireListed(0, 10)
	require.Zero(t, testutil.ToFloat64(f.r.metrics.foreign))
}

// TestSomebodyElseDeletesOurs: so it is when meta.json is gone, whether the rest is there or not.
func TestSomebodyElseDeletesOurs(t *testing.T) {
	f := newFixture(t)
	f.add(spec{n: 0, writer: ingester}, spec{n: 1, writer: ingester}, spec{n: 2, writer: ingester}, spec{n: 3, writer: ingester})
	require.NoError(t, block.Delete(t.Context(), f.bkt, testTenant, id(3))) // before anybody looked: damage, and no deletion
	f.requireListed(0, 1, 2, 3)
	f.requireForeign()
	require.EqualValues(t, 1, testutil.ToFloat64(f.r.metrics.damaged))
	meta := block.Key(testTenant, id(0), block.MetaName)
	content := mustGet(t, f.bkt, meta)
	require.NoError(t, f.bkt.Delete(t.Context(), meta))
	require.NoError(t, f.bkt.Delete(t.Context(), block.Key(testTenant, id(2), block.IndexName))) // damage, and no deletion
	f.requireListed(0, 1, 2, 3)
	f.requireForeign(0)
	require.EqualValues(t, 3, testutil.ToFloat64(f.r.metrics.damaged))
	f.advance(20 * time.Hour)
	require.NoError(t, block.Delete(t.Context(), f.bkt, testTenant, id(1)))
	f.requireListed(0, 1, 2, 3)
	f.requireForeign(0, 1)
	f.advance(5 * time.Hour)
	f.requireListed(0, 1, 2, 3)
	f.requireForeign(1)
	put(t, f.bkt, meta, content)
	f.requireListed(0, 1, 2, 3)
	f.advance(20 * time.Hour)
	f.requireListed(0, 1, 2, 3)
	f.requireForeign()
	require.EqualValues(t, 1, testutil.ToFloat64(f.r.metrics.foreign))
}
