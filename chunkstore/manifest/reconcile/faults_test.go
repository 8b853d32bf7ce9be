package reconcile

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

// TestReconcilersOnAFaultyBucket is the property that all of this is for. Ingesters lose announcements, our compactor
// loses swaps and drops blocks, a peer's compactor marks and deletes, listings are late, the bucket fails, and two
// reconcilers do what they do for weeks. At no time is an object of a listed block missing that the peer has not deleted,
// no sample comes back that was dropped, and in the end each sample that was uploaded is listed.
func TestReconcilersOnAFaultyBucket(t *testing.T) {
	seed := faultbucket.Seed(t)
	for round := range uint64(3) {
		w := newWorld(t, rand.New(rand.NewPCG(seed, round)))
		for range 60 {
			w.act()
			w.bkt.SetPlan(faultbucket.Seeded(w.rand.Uint64(), 0.05, faultbucket.Before, faultbucket.After, faultbucket.Truncate))
			w.bkt.DelayListings(w.rand.IntN(3))
			for _, r := range w.reconcilers {
				_ = r.Pass(t.Context(), 0)
			}
			w.bkt.SetPlan(nil)
			w.bkt.DelayListings(0)
			w.checkWhole()
			w.advance(time.Duration(w.rand.Int64N(int64(6 * time.Hour))))
		}
		for range 3 {
			w.pass()
			w.advance(49 * time.Hour)
		}
		w.checkAll()
	}
}

type world struct {
	*fixture
	rand        *rand.Rand
	reconcilers []*Reconciler
	next        int
	uploaded    map[int]bool       // sources that are somewhere, by number
	dropped     map[ulid.ULID]bool // sources
	peers       map[ulid.ULID]bool // sources that the peer has compacted
	marked      []int              // by the peer, with a replacement
}

func newWorld(t *testing.T, r *rand.Rand) *world {
	f := newFixture(t)
	return &world{
		fixture: f, rand: r, uploaded: map[int]bool{}, dropped: map[ulid.ULID]bool{}, peers: map[ulid.ULID]bool{},
		reconcilers: []*Reconciler{f.r, f.reconciler(newOwner(f.bkt, f.clock))},
	}
}

// act has somebody else do something.
func (w *world) act() {
	m, err := w.o.Refresh(w.t.Context(), testTenant)
	require.NoError(w.t, err)
	pick := func() (manifest.Block, bool) {
		if len(m.Blocks) == 0 {
			return manifest.Block{}, false
		}
		return m.Blocks[w.rand.IntN(len(m.Blocks))], true
	}
	switch w.rand.IntN(8) {
	case 0, 1, 2:
		w.upload()
	case 3: // an upload that breaks off
		w.put(spec{n: w.number(), writer: ingester})
		require.NoError(w.t, w.bkt.Delete(w.t.Context(), block.Key(testTenant, id(w.next-1), block.MetaName)))
	case 4, 5:
		a, ok := pick()
		b, _ := pick()
		if ok && a.ULID != b.ULID {
			w.compact(a, b)
		}
	case 6:
		// What a peer has compacted nobody else may drop: only one family's compactor works on a bucket.
		if b, ok := pick(); ok && w.rand.IntN(2) == 0 && !slices.ContainsFunc(b.Sources, w.isPeers) {
			if _, err := w.o.Swap(w.t.Context(), testTenant, manifest.Change{Drop: []ulid.ULID{b.ULID}}); err == nil {
				for _, source := range b.Sources {
					w.dropped[source] = true
				}
			}
		}
	case 7:
		w.peerDeletes()
	}
}

func (w *world) isPeers(source ulid.ULID) bool { return w.peers[source] }

func (w *world) number() int { w.next++; return w.next - 1 }

// upload puts a block that may or may not be announced, and may be a peer's.
func (w *world) upload() {
	s := spec{n: w.number(), writer: ingester}
	if w.rand.IntN(3) == 0 {
		s.writer = ""
	}
	b := w.put(s)
	w.uploaded[s.n] = true
	if w.rand.IntN(2) == 0 {
		_, err := w.o.Add(w.t.Context(), testTenant, b)
		require.NoError(w.t, err)
	}
}

// compact merges two blocks: as our compactor, whose swap may be lost, or as a peer's, which marks them.
func (w *world) compact(a, b manifest.Block) {
	s := spec{n: w.number(), writer: compactor, change: func(m *block.Meta) {
		m.Compaction.Sources = slices.Concat(a.Sources, b.Sources)
		m.Compaction.Level = 2
		m.MinTime, m.MaxTime = min(a.MinTime, b.MinTime), max(a.MaxTime, b.MaxTime)
	}}
	peer := w.rand.IntN(2) == 0
	if peer {
		s.writer = ""
	}
	out := w.put(s)
	inputs := []ulid.ULID{a.ULID, b.ULID}
	switch {
	case peer:
		for _, source := range slices.Concat(a.Sources, b.Sources) {
			w.peers[source] = true
		}
		for n := range w.next {
			if id(n) == a.ULID || id(n) == b.ULID {
				mark(w.t, w.bkt, n)
				w.marked = append(w.marked, n)
			}
		}
	case w.rand.IntN(3) > 0:
		_, err := w.o.Swap(w.t.Context(), testTenant, manifest.Change{Add: []manifest.Block{out}, Replace: inputs})
		require.NoError(w.t, err)
	}
}

// peerDeletes deletes what the peer has marked before.
func (w *world) peerDeletes() {
	for _, n := range w.marked {
		require.NoError(w.t, block.Delete(w.t.Context(), w.bkt, testTenant, id(n)))
	}
	w.marked = nil
}

// checkWhole checks that all listed blocks are there, but those that the peer has deleted since.
func (w *world) checkWhole() {
	w.t.Helper()
	m := newest(w.t, w.bkt, w.clock)
	for i := range m.Blocks {
		for _, source := range m.Blocks[i].Sources {
			require.False(w.t, w.dropped[source], "source %s came back in block %s", source, m.Blocks[i].ULID)
		}
		if f, err := listFolder(w.t.Context(), w.bkt, testTenant, m.Blocks[i].ULID); err == nil && f.folders[m.Blocks[i].ULID] == nil {
			continue // deleted as a whole, which only the peer does
		}
		require.NoError(w.t, block.Verify(w.t.Context(), w.bkt, testTenant, m.Blocks[i].ULID))
	}
}

// checkAll checks that nothing is missing and nothing is left over.
func (w *world) checkAll() {
	w.t.Helper()
	m := newest(w.t, w.bkt, w.clock)
	covered := newCoverage(nil)
	for i := range m.Blocks {
		covered.add(&m.Blocks[i])
		require.NoError(w.t, block.Verify(w.t.Context(), w.bkt, testTenant, m.Blocks[i].ULID))
	}
	for n := range w.uploaded {
		require.True(w.t, w.dropped[id(n)] || covered.holds(id(n), ""), "source %d", n)
	}
	l, err := list(w.t.Context(), w.bkt, testTenant)
	require.NoError(w.t, err)
	for folder := range l.folders {
		_, isListed := m.Find(folder)
		_, isWhole := l.folders[folder].meta()
		require.True(w.t, isListed || isWhole, "folder %s is left over", folder)
	}
}
