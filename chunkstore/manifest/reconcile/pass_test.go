package reconcile

import (
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

// fixture is a bucket, an owner and a reconciler under one clock.
type fixture struct {
	*clock
	t   *testing.T
	bkt *faultbucket.Bucket
	o   *manifest.Owner
	r   *Reconciler
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	c := &clock{start}
	bkt := faultbucket.New(bucket.NewInMemoryWithClock(c.now), nil)
	f := &fixture{clock: c, t: t, bkt: bkt, o: newOwner(bkt, c)}
	f.r = f.reconciler(f.o)
	return f
}

func (f *fixture) reconciler(o *manifest.Owner) *Reconciler {
	f.t.Helper()
	cfg := Config{ReconcileInterval: time.Minute, IdleReconcileInterval: time.Minute, TenantDeletionGrace: 24 * time.Hour, DeleteDelay: 2 * time.Hour, PeerFiles: true}
	r, err := New(cfg, f.bkt, o, f.now, discard(), nil)
	require.NoError(f.t, err)
	return r
}

// pass compares all tenants and returns the newest manifest.
func (f *fixture) pass() *manifest.Manifest {
	f.t.Helper()
	require.NoError(f.t, f.r.Pass(f.t.Context(), 0))
	require.Zero(f.t, testutil.ToFloat64(f.r.metrics.failing))
	return newest(f.t, f.bkt, f.clock)
}

func (f *fixture) left(reason string) int {
	return int(testutil.ToFloat64(f.r.metrics.left.WithLabelValues(reason)))
}

func (f *fixture) put(s spec) manifest.Block { f.t.Helper(); return putBlock(f.t, f.bkt, s) }

// add puts blocks into the bucket and the manifest.
func (f *fixture) add(specs ...spec) {
	f.t.Helper()
	for _, s := range specs {
		_, err := f.o.Add(f.t.Context(), testTenant, f.put(s))
		require.NoError(f.t, err)
	}
}

// announce has a block listed whose objects are not there, for a bucket that takes none.
func (f *fixture) announce(n int) {
	f.t.Helper()
	_, err := f.o.Add(f.t.Context(), testTenant, spec{n: n}.meta().ManifestBlock(100))
	require.NoError(f.t, err)
}

func (f *fixture) requireListed(ns ...int) {
	f.t.Helper()
	for range 2 { // once more changes nothing
		m := f.pass()
		require.ElementsMatch(f.t, ids(ns...), listed(m))
	}
}

// objects returns the keys of a block's objects without marks and index.
func (f *fixture) objects(n int) []string {
	f.t.Helper()
	return there(f.t, f.bkt, block.Prefix(testTenant, id(n)))
}

const ingester = "ingester/abc"

func TestAnnouncementThatWasLost(t *testing.T) {
	f := newFixture(t)
	f.add(spec{n: 0, writer: ingester})
	b := f.put(spec{n: 1, writer: ingester})
	m := f.pass()
	require.Equal(t, ids(0, 1), listed(m))
	b.AddedAt, b.AddedVersion = f.now().UnixMilli(), 2
	require.Equal(t, b, m.Blocks[1], "as the ingester would have announced it")
	added, err := newOwner(f.bkt, f.clock).Add(t.Context(), testTenant, b)
	require.NoError(t, err)
	require.Equal(t, manifest.Added{Version: 2}, added, "and when it does, it is told so")
	require.EqualValues(t, 2, f.pass().Version, "a pass without news makes no version")
	require.EqualValues(t, 1, testutil.ToFloat64(f.r.metrics.adopted.WithLabelValues("own")))
}

func TestNothingIsResurrected(t *testing.T) {
	f := newFixture(t)
	f.add(spec{n: 0, writer: ingester}, spec{n: 1, writer: ingester}, spec{n: 2, writer: ingester})
	merged := f.put(spec{n: 10, sources: []int{0, 1}, writer: compactor})
	_, err := f.o.Swap(t.Context(), testTenant, manifest.Change{Add: []manifest.Block{merged}, Replace: ids(0, 1), Drop: ids(2)})
	require.NoError(t, err)
	f.requireListed(10)
	require.Equal(t, 3, f.left(leftRemoved))

	// A peer has made something of a dropped block before it was gone.
	f.put(spec{n: 11, sources: []int{1, 2}})
	f.requireListed(10)
	// The memory of the removal ends, and a sidecar of Thanos sends its local block again.
	for range 60 {
		f.advance(time.Hour)
		f.pass()
	}
	m := f.pass()
	require.Len(t, m.Removed, 1)
	require.Equal(t, id(2), m.Removed[0].ULID, "what lies there and is made of it keeps its memory")
	f.put(spec{n: 0})
	f.requireListed(10)
	require.Positive(t, f.left(leftCovered))
}

func TestForeignBlocks(t *testing.T) {
	f := newFixture(t)
	f.put(spec{n: 0})
	f.put(spec{n: 1, labels: map[string]string{"__org_id__": testTenant, "cluster": "eu"}})
	f.put(spec{n: 2, labels: map[string]string{"__org_id__": "another"}})
	f.put(spec{n: 3, change: func(m *block.Meta) { m.Thanos.Downsample.Resolution = 300_000 }})
	f.put(spec{n: 4, change: func(m *block.Meta) { m.Thanos.Files[1].SizeBytes = 8 }})
	f.put(spec{n: 5, change: func(m *block.Meta) { m.Version = 2 }})
	f.put(spec{n: 6})
	require.NoError(t, f.bkt.Delete(t.Context(), block.Key(testTenant, id(6), block.MetaName)))
	f.put(spec{n: 7, sources: []int{7, 8, 9}})
	f.put(spec{n: 8})
	f.requireListed(0, 1, 7)
	m := f.pass()
	require.EqualValues(t, 1, m.Version, "all in one version")
	require.Equal(t, map[string]string{"cluster": "eu"}, m.Blocks[1].Labels)
	require.Equal(t, 2, f.left(string(verdictDoubtful)))
	require.Equal(t, 1, f.left(string(verdictDownsampled)))
	require.Equal(t, 2, f.left(string(verdictIncomplete)))
	require.Equal(t, 1, f.left(leftCovered))

	// What becomes whole is taken in.
	before := f.put(spec{n: 6})
	m = f.pass()
	got, ok := m.Find(before.ULID)
	require.True(t, ok)
	require.Equal(t, before.Samples, got.Samples)
}

func TestMetaIsReadOnce(t *testing.T) {
	f := newFixture(t)
	f.put(spec{n: 3, change: func(m *block.Meta) { m.Thanos.Downsample.Resolution = 300_000 }})
	f.put(spec{n: 4})
	f.put(spec{n: 5, writer: compactor})
	f.pass()
	from := len(f.bkt.Ops())
	f.pass()
	lists := 0
	for _, op := range f.bkt.Ops()[from:] {
		require.NotContains(t, op.Key, "meta.json")
		if op.Method == "List" && strings.HasPrefix(op.Key, testTenant) && !strings.Contains(op.Key, "manifest") {
			lists++
		}
	}
	require.Equal(t, 1, lists, "one listing a pass")
}

func TestBlockWithoutAListOfItsFiles(t *testing.T) {
	f := newFixture(t)
	f.put(spec{n: 0, noList: true})
	f.requireListed()
	require.Equal(t, 1, f.left(leftSettling))
	require.False(t, compared(t, f), "without a manifest queries are refused until it is listed")
	f.advance(settleTime)
	f.requireListed(0)
	require.True(t, compared(t, f))
	require.EqualValues(t, 11+7+len(mustGet(t, f.bkt, block.Key(testTenant, id(0), block.MetaName))),
		f.pass().Blocks[0].SizeBytes)

	f.put(spec{n: 1, noList: true})
	put(t, f.bkt, block.Key(testTenant, id(1), "chunks/000003"), "x")
	f.put(spec{n: 2, noList: true})
	require.NoError(t, f.bkt.Delete(t.Context(), block.Key(testTenant, id(2), "index")))
	f.advance(settleTime)
	f.requireListed(0)
	put(t, f.bkt, block.Key(testTenant, id(1), "chunks/000002"), "x")
	f.requireListed(0)
	f.advance(settleTime)
	f.requireListed(0, 1)
}

func TestPeerCompacts(t *testing.T) {
	for name, markBlock := range map[string]func(*testing.T, bucket.Bucket, int){"local": mark, "global": markGlobally} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.add(spec{n: 0}, spec{n: 1}, spec{n: 2})
			f.put(spec{n: 10, sources: []int{0, 1}})
			f.requireListed(0, 1, 2) // the peer is between upload and mark
			before := f.pass().Version
			markBlock(t, f.bkt, 0)
			markBlock(t, f.bkt, 1)
			f.requireListed(0, 1, 2)
			f.advance(settleTime)
			m := f.pass()
			require.Equal(t, ids(10, 2), listed(m))
			require.Equal(t, before+1, m.Version, "the replacement comes with the same version")
			require.Len(t, m.Removed, 2)
			require.False(t, m.Removed[0].Dropped)
			f.advance(20 * time.Hour)
			f.requireListed(10, 2)
			require.NotEmpty(t, f.objects(0), "the peer deletes what it has marked")
			f.advance(peerDeleteWait)
			f.requireListed(10, 2)
			require.Empty(t, f.objects(0), "unless it is gone itself")
		})
	}
}

// TestPeerMarksOneByOne: one of two sources is marked, the other not yet.
func TestPeerMarksOneByOne(t *testing.T) {
	f := newFixture(t)
	f.add(spec{n: 0}, spec{n: 1})
	f.put(spec{n: 10, sources: []int{0, 1}})
	mark(t, f.bkt, 0)
	f.advance(settleTime)
	f.requireListed(1, 10)
	mark(t, f.bkt, 1)
	f.advance(settleTime)
	f.requireListed(10)
}

func TestPeerDeletesByAge(t *testing.T) {
	f := newFixture(t)
	f.add(spec{n: 0}, spec{n: 1})
	f.put(spec{n: 2})
	mark(t, f.bkt, 0)
	mark(t, f.bkt, 2)
	f.advance(settleTime)
	f.requireListed(0, 1)
	require.Equal(t, 1, f.left(leftMarked))
	f.advance(unreplacedWait)
	f.requireListed(1)
}

func TestPeerSplitsAndMergesShards(t *testing.T) {
	shard := func(n int, sources []int, which string) spec {
		return spec{n: n, sources: sources, labels: map[string]string{"__compactor_shard_id__": which}}
	}
	f := newFixture(t)
	f.add(spec{n: 0}, spec{n: 1})
	f.put(shard(10, []int{0}, "1_of_2"))
	f.put(shard(11, []int{0}, "2_of_2"))
	mark(t, f.bkt, 0)
	f.advance(settleTime)
	f.requireListed(1, 10, 11)
	f.put(shard(12, []int{1}, "1_of_2"))
	f.put(shard(13, []int{1}, "2_of_2"))
	f.put(shard(14, []int{0, 1}, "1_of_2"))
	for _, n := range []int{1, 10, 12} {
		mark(t, f.bkt, n)
	}
	f.advance(settleTime)
	f.requireListed(11, 13, 14)
	require.Equal(t, "1_of_2", f.pass().Blocks[1].Shard)
}

// TestBlocksThatAPeerHasDeleted: this process slept through a compaction and the deletion of its sources.
func TestBlocksThatAPeerHasDeleted(t *testing.T) {
	f := newFixture(t)
	f.add(spec{n: 0}, spec{n: 1}, spec{n: 2})
	f.put(spec{n: 10, sources: []int{0, 1}})
	for n := range 2 {
		require.NoError(t, block.Delete(t.Context(), f.bkt, testTenant, id(n)))
	}
	m := f.pass()
	require.Equal(t, ids(10, 2), listed(m))
	require.Zero(t, testutil.ToFloat64(f.r.metrics.damaged))

	// Without a replacement the block stays listed, and queries over it fail rather than be short.
	require.NoError(t, block.Delete(t.Context(), f.bkt, testTenant, id(2)))
	f.requireListed(10, 2)
	require.EqualValues(t, 1, testutil.ToFloat64(f.r.metrics.damaged))
	require.NoError(t, f.bkt.Delete(t.Context(), block.Key(testTenant, id(10), "index")))
	f.requireListed(10, 2)
	require.EqualValues(t, 2, testutil.ToFloat64(f.r.metrics.damaged))
}

// TestAListingThatMissesABlock proves nothing.
func TestAListingThatMissesABlock(t *testing.T) {
	f := newFixture(t)
	f.bkt.DelayListings(3)
	f.add(spec{n: 0, writer: ingester}, spec{n: 1})
	f.bkt.DelayListings(0)
	f.put(spec{n: 10, sources: []int{0, 1}})
	require.NoError(t, f.r.Pass(t.Context(), 0))
	require.Zero(t, testutil.ToFloat64(f.r.metrics.damaged))
	f.requireListed(0, 1)
}

func TestNoCompactMarks(t *testing.T) {
	f := newFixture(t)
	f.add(spec{n: 0}, spec{n: 1}, spec{n: 2})
	put(t, f.bkt, block.Key(testTenant, id(0), noCompactMarkName),
		`{"id":"x","version":1,"reason":"index-size-exceeding","details":"`+strings.Repeat("ä", 300)+`","no_compact_time":1}`)
	put(t, f.bkt, globalMarkKey(testTenant, id(1), noCompactMarkName), `no json`)
	f.requireListed(0, 1, 2)
	m := f.pass()
	require.True(t, strings.HasPrefix(m.Blocks[0].NoCompact, "marked by a peer: index-size-exceeding: ä"))
	require.LessOrEqual(t, len(m.Blocks[0].NoCompact), maxReasonBytes)
	require.True(t, strings.HasSuffix(m.Blocks[0].NoCompact, "ä"))
	require.Equal(t, "marked by a peer", m.Blocks[1].NoCompact)
	require.Empty(t, m.Blocks[2].NoCompact)
}

func TestBlockAtTheTopOfTheBucket(t *testing.T) {
	f := newFixture(t)
	root := id(5).String()
	for _, name := range []string{"chunks/000001", "index", "meta.json"} {
		put(t, f.bkt, root+"/"+name, "x")
	}
	f.pass()
	from := len(f.bkt.Ops())
	f.pass()
	for _, op := range f.bkt.Ops()[from:] {
		require.NotContains(t, op.Key, root, "asked once")
	}
	require.Len(t, there(t, f.bkt, root), 3)
}

func TestRemovedBlocksAreSwept(t *testing.T) {
	f := newFixture(t)
	f.add(spec{n: 0, writer: ingester}, spec{n: 1, writer: ingester})
	f.pass()
	_, err := f.o.Swap(t.Context(), testTenant, manifest.Change{Drop: ids(0)})
	require.NoError(t, err)
	f.pass()
	for _, key := range deletionMarkKeys(testTenant, id(0)) {
		require.JSONEq(t, `{"id":"`+id(0).String()+`","version":1,"details":"no longer in Duramen's manifest","deletion_time":`+
			"8640000}", mustGet(t, f.bkt, key))
	}
	f.advance(2*time.Hour - time.Second)
	f.pass()
	require.Len(t, f.objects(0), 4, "three objects and the mark")
	f.advance(time.Second)
	m := f.pass()
	require.Empty(t, f.objects(0))
	require.Len(t, m.Removed, 1)
	require.Len(t, there(t, f.bkt, testTenant+"/markers/"), 1)
	f.advance(46*time.Hour - time.Second)
	require.Len(t, f.pass().Removed, 1)
	f.advance(time.Second)
	require.Empty(t, f.pass().Removed)
	require.Empty(t, there(t, f.bkt, testTenant+"/markers/"))
	f.requireListed(1)
	require.Len(t, f.objects(1), 3)
	require.EqualValues(t, 1, testutil.ToFloat64(f.r.metrics.deleted.WithLabelValues(deletedRemoved)))
}

// TestMarksComeLongBeforeDeletion: a block left the manifest while nobody could mark it.
func TestMarksComeLongBeforeDeletion(t *testing.T) {
	f := newFixture(t)
	f.add(spec{n: 0}, spec{n: 1})
	_, err := f.o.Swap(t.Context(), testTenant, manifest.Change{Drop: ids(0)})
	require.NoError(t, err)
	f.advance(10 * time.Hour)
	f.pass()
	require.NotEmpty(t, f.objects(0))
	f.advance(markLead - time.Second)
	f.pass()
	require.NotEmpty(t, f.objects(0))
	f.advance(time.Second)
	f.pass()
	require.Empty(t, f.objects(0))
}

func TestOrphans(t *testing.T) {
	f := newFixture(t)
	f.add(spec{n: 0, writer: ingester}, spec{n: 1, writer: ingester}, spec{n: 2, writer: ingester})
	winner := f.put(spec{n: 10, sources: []int{0, 1}, writer: compactor})
	_, err := f.o.Swap(t.Context(), testTenant, manifest.Change{Add: []manifest.Block{winner}, Replace: ids(0, 1)})
	require.NoError(t, err)
	f.put(spec{n: 11, sources: []int{0, 1}, writer: compactor})                         // lost the race
	f.put(spec{n: 12, sources: []int{2, 3}, writer: compactor})                         // holds what nothing else does
	put(t, f.bkt, block.Key(testTenant, id(13), "index"), "x")                          // an upload that broke off
	f.put(spec{n: 14, change: func(m *block.Meta) { m.Version = 2 }})                   // unreadable: left alone for ever
	f.put(spec{n: 15, change: func(m *block.Meta) { m.Thanos.Files[1].SizeBytes = 8 }}) // incomplete in spite of a meta.json
	f.put(spec{n: 16, writer: ingester})
	require.NoError(t, f.bkt.Delete(t.Context(), block.Key(testTenant, id(16), block.MetaName)))

	f.requireListed(2, 10)
	require.Equal(t, 1, f.left(leftLostOutput))
	require.Equal(t, 1, f.left(leftUncovered))
	f.advance(orphanAge - time.Second)
	put(t, f.bkt, block.Key(testTenant, id(16), "chunks/000002"), "x") // somebody goes on with this one
	f.requireListed(2, 10)
	require.NotEmpty(t, f.objects(11))
	require.NotEmpty(t, f.objects(13))
	f.advance(time.Second)
	f.requireListed(2, 10)
	require.Empty(t, f.objects(11))
	require.Empty(t, f.objects(13))
	for _, n := range []int{2, 10, 12, 14, 15, 16} {
		require.NotEmpty(t, f.objects(n), "block %d", n)
	}
	require.EqualValues(t, 2, testutil.ToFloat64(f.r.metrics.deleted.WithLabelValues(deletedOrphan)))
}

// TestOutputsOfALostManifestAreNoOrphans: all versions of the manifest were deleted, and an ingester has begun a new one.
func TestOutputsOfALostManifestAreNoOrphans(t *testing.T) {
	f := newFixture(t)
	f.put(spec{n: 10, sources: []int{0, 1}, writer: compactor})
	f.advance(100 * 24 * time.Hour)
	f.add(spec{n: 5, writer: ingester})
	f.requireListed(5)
	require.Equal(t, 1, f.left(leftUncovered))
	require.NotEmpty(t, f.objects(10))
}

// TestAnUploadGoesOnUnderTheSweep: between the listing and the deletion meta.json arrives.
func TestAnUploadGoesOnUnderTheSweep(t *testing.T) {
	f := newFixture(t)
	f.add(spec{n: 0, writer: ingester})
	f.put(spec{n: 1, writer: ingester})
	meta := mustGet(t, f.bkt, block.Key(testTenant, id(1), block.MetaName))
	require.NoError(t, f.bkt.Delete(t.Context(), block.Key(testTenant, id(1), block.MetaName)))
	f.advance(orphanAge)
	done := false
	f.bkt.SetPlan(func(op faultbucket.Op) faultbucket.Fault {
		if !done && op.Method == "List" && op.Key == block.Prefix(testTenant, id(1)) {
			done = true
			put(t, f.bkt, block.Key(testTenant, id(1), block.MetaName), meta)
		}
		return faultbucket.None
	})
	f.pass()
	require.True(t, done)
	f.bkt.SetPlan(nil)
	require.Len(t, f.objects(1), 3)
	f.requireListed(0, 1)
}

// TestTwoReconcilersAndAnAnnouncement race for the same blocks.
func TestTwoReconcilersAndAnAnnouncement(t *testing.T) {
	for name, both := range map[string]bool{"all that is wanted happens meanwhile": true, "a part of it": false} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			a, b := f.put(spec{n: 0, writer: ingester}), f.put(spec{n: 1})
			other := f.reconciler(newOwner(f.bkt, f.clock))
			raced := false
			f.bkt.SetPlan(func(op faultbucket.Op) faultbucket.Fault {
				if !raced && op.Method == "PutIfAbsent" {
					raced = true
					_, err := newOwner(f.bkt, f.clock).Add(t.Context(), testTenant, a)
					require.NoError(t, err)
					if both {
						require.NoError(t, other.Pass(t.Context(), 0))
					}
				}
				return faultbucket.None
			})
			m := f.pass()
			f.bkt.SetPlan(nil)
			require.Equal(t, []ulid.ULID{a.ULID, b.ULID}, listed(m))
			require.EqualValues(t, 2, m.Version)
		})
	}
}

// TestAFileThatIsNeitherIndexNorChunks is waited for as well when meta.json names it.
func TestAFileThatIsNeitherIndexNorChunks(t *testing.T) {
	f := newFixture(t)
	f.put(spec{n: 0, change: func(m *block.Meta) {
		m.Thanos.Files = append(m.Thanos.Files, block.File{Name: "extra", SizeBytes: 1})
	}})
	f.requireListed()
	put(t, f.bkt, block.Key(testTenant, id(0), "extra"), "x")
	f.requireListed(0)
}

func mustGet(t *testing.T, bkt bucket.Bucket, key string) string {
	t.Helper()
	return buckettest.Get(t, bkt, key)
}
