package bucketcopy

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const tenantID = "team-a"

// place is a bucket in memory with the owner of its manifests.
type place struct {
	*bucket.InMemory
	owner *manifest.Owner
	t     *testing.T
	n     uint64
}

func newPlace(t *testing.T) *place {
	t.Helper()
	b := bucket.NewInMemory()
	return &place{b, manifest.NewOwner(b, time.Now, slog.New(slog.DiscardHandler), nil), t, 0}
}

func (p *place) put(key string, data []byte) {
	p.t.Helper()
	require.NoError(p.t, p.Put(p.t.Context(), key, bytes.NewReader(data), int64(len(data))))
}

// add uploads and announces a block with random-looking files. What is in them does not matter here.
func (p *place) add() ulid.ULID {
	p.t.Helper()
	p.n++
	id := ulid.MustNew(ulid.Now(), ulid.DefaultEntropy())
	content := func(name string) []byte { return bytes.Repeat([]byte(id.String()+name), 20+int(p.n)) } //nolint:gosec // small
	var files []block.File
	for _, name := range []string{block.SegmentName(1), block.SegmentName(2), block.IndexName} {
		data := content(name)
		files = append(files, block.File{Name: name, SizeBytes: int64(len(data))})
		p.put(block.Key(tenantID, id, name), data)
	}
	p.put(block.Key(tenantID, id, "duramen.idx"), content("side"))
	m := &block.Meta{
		BlockMeta: tsdb.BlockMeta{ULID: id, MinTime: int64(p.n), MaxTime: int64(p.n) + 1, Version: 1}, //nolint:gosec // small
		Duramen:   &block.Duramen{Writer: "w", Version: 1},
		Thanos:    &block.Thanos{Version: 1, Files: append(files, block.File{Name: block.MetaName})},
	}
	m.Compaction.Level = 1
	raw, err := m.Marshal()
	require.NoError(p.t, err)
	p.put(block.Key(tenantID, id, block.MetaName), raw)
	_, err = p.owner.Add(p.t.Context(), tenantID, m.ManifestBlock(int64(len(raw))))
	require.NoError(p.t, err)
	return id
}

// contents returns all objects of a bucket.
func contents(t *testing.T, b bucket.Bucket) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := b.List(context.WithoutCancel(t.Context()), "", true, func(o bucket.Object) error {
		all[o.Key] = ""
		return nil
	})
	require.NoError(t, err)
	for key := range all {
		data, err := fetch(context.WithoutCancel(t.Context()), b, key)
		require.NoError(t, err)
		all[key] = string(data)
	}
	return all
}

// requireConsistent insists that nothing in a bucket names what is not there: manifests their blocks, meta.json its files.
func requireConsistent(t *testing.T, b bucket.Bucket) {
	t.Helper()
	all := contents(t, b)
	for key, data := range all {
		if _, ok := manifest.ParseKey(tenantID, key); ok {
			m, err := manifest.Decode([]byte(data))
			require.NoError(t, err)
			for _, e := range m.Blocks {
				require.Contains(t, all, block.Key(tenantID, e.ULID, block.MetaName), "%s names it", key)
			}
		}
		if _, id, name, ok := block.ParseKey(key); ok && name == block.MetaName {
			m, err := block.ParseMeta([]byte(data))
			require.NoError(t, err)
			for _, f := range m.Thanos.Files {
				there, ok := all[block.Key(tenantID, id, f.Name)]
				require.True(t, ok, "%s names %s", key, f.Name)
				require.True(t, f.SizeBytes == 0 || f.SizeBytes == int64(len(there)))
			}
		}
	}
}

func TestCopyIsEqualAndResumable(t *testing.T) {
	src, dst := newPlace(t), newPlace(t)
	for range 7 {
		src.add()
	}
	var plans []Plan
	var sent atomic.Int64
	o := Options{Parallel: 3, Planned: func(p Plan) { plans = append(plans, p) }, Went: func(n int64) { sent.Add(n) }}
	dry := o
	dry.DryRun = true
	_, err := New(src, dst, dry).Tenant(t.Context(), tenantID)
	require.NoError(t, err)
	require.Empty(t, contents(t, dst), "nothing is sent")
	_, err = New(src, dst, o).Tenant(t.Context(), tenantID)
	require.NoError(t, err)
	require.Equal(t, plans[0], plans[1])
	require.Equal(t, 7*5, plans[1].Objects)
	require.Equal(t, plans[1].Bytes, sent.Load())
	want := contents(t, src)
	for n := range uint64(2) {
		delete(want, manifest.Key(tenantID, n+1)) // only the last five go along
	}
	require.Equal(t, want, contents(t, dst))

	sent.Store(0)
	plan, err := New(src, dst, o).Tenant(t.Context(), tenantID)
	require.NoError(t, err)
	require.Zero(t, sent.Load(), "nothing is sent again")
	require.Zero(t, plan.Objects)
	require.Equal(t, 7*5, plan.ThereObjects)

	all := o
	all.Verify = VerifyAll
	_, err = New(src, dst, all).Tenant(t.Context(), tenantID)
	require.NoError(t, err)
	require.Equal(t, plan.ThereBytes, sent.Load(), "all of it was compared")

	id := src.add()
	plan, err = New(src, dst, o).Tenant(t.Context(), tenantID)
	require.NoError(t, err)
	require.Equal(t, 5, plan.Objects, "the new block")
	require.Contains(t, contents(t, dst), block.Key(tenantID, id, block.MetaName))
	m, err := dst.owner.Refresh(t.Context(), tenantID)
	require.NoError(t, err)
	require.EqualValues(t, 8, m.Version)
	require.Len(t, m.Blocks, 8)
}

// TestInterruptedAnywhere ends the copy at each operation of either bucket, in every way, and goes on: at no moment does the
// destination name what it has not, and the end is the same.
func TestInterruptedAnywhere(t *testing.T) {
	src := newPlace(t)
	for range 2 {
		src.add()
	}
	want := contents(t, src)
	for _, fault := range []faultbucket.Fault{faultbucket.Before, faultbucket.After} {
		for n := 0; ; n++ {
			dst := newPlace(t)
			ctx, cancel := context.WithCancel(t.Context())
			faulty := faultbucket.New(dst, func(op faultbucket.Op) faultbucket.Fault {
				if op.N < n {
					return faultbucket.None
				}
				if op.N == n { // as when the process dies: nothing follows
					cancel()
					return fault
				}
				return faultbucket.Before
			})
			watched := &watcher{Bucket: faulty, after: func() { requireConsistent(t, dst) }}
			_, err := New(src, watched, Options{}).Tenant(ctx, tenantID)
			cancel()
			requireConsistent(t, dst)
			done := n >= len(faulty.Ops())
			require.Equal(t, done, err == nil, "operation %d: %v", n, err)
			_, err = New(src, dst, Options{}).Tenant(t.Context(), tenantID)
			require.NoError(t, err)
			require.Equal(t, want, contents(t, dst))
			if done {
				break
			}
		}
	}
}

// watcher looks at the bucket after each write.
type watcher struct {
	bucket.Bucket
	after func()
}

func (w *watcher) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	defer w.after()
	return w.Bucket.Put(ctx, key, r, size)
}

func (w *watcher) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	defer w.after()
	return w.Bucket.PutIfAbsent(ctx, key, data)
}

// TestPassingFaultsAreGotOver: bodies that break off and puts that fail once.
func TestPassingFaultsAreGotOver(t *testing.T) {
	for _, fault := range []faultbucket.Fault{faultbucket.Before, faultbucket.After, faultbucket.Truncate} {
		src, dst := newPlace(t), newPlace(t)
		src.add()
		var once sync.Map
		first := func(side, method string) faultbucket.Plan {
			return func(op faultbucket.Op) faultbucket.Fault {
				if op.Method == method && strings.Contains(op.Key, "chunks/") {
					if _, seen := once.LoadOrStore(side+op.Key, true); !seen {
						return fault
					}
				}
				return faultbucket.None
			}
		}
		c := New(faultbucket.New(src, first("src", "Get")), faultbucket.New(dst, first("dst", "Put")), Options{})
		_, err := c.Tenant(t.Context(), tenantID)
		require.NoError(t, err, fault)
		require.Equal(t, contents(t, src), contents(t, dst))
	}
}

// TestWhatWasSentIsReadBack: a store that damages what it takes is found out by default.
func TestWhatWasSentIsReadBack(t *testing.T) {
	src, dst := newPlace(t), newPlace(t)
	id := src.add()
	bad := &damager{Bucket: dst, key: block.Key(tenantID, id, block.IndexName)}
	_, err := New(src, bad, Options{}).Tenant(t.Context(), tenantID)
	require.ErrorContains(t, err, "reads back other than it was sent")
	require.NotContains(t, contents(t, dst), block.Key(tenantID, id, block.MetaName))
	require.NotContains(t, contents(t, dst), manifest.Key(tenantID, 1))
	_, err = New(src, bad, Options{Verify: VerifySizes}).Tenant(t.Context(), tenantID)
	require.NoError(t, err, "sizes are right")

	// The damage is found by reading everything, and named; neither side is touched.
	before := contents(t, dst)
	_, err = New(src, dst, Options{Verify: VerifyAll}).Tenant(t.Context(), tenantID)
	require.ErrorIs(t, err, ErrDiffers)
	require.ErrorContains(t, err, block.Key(tenantID, id, block.IndexName))
	require.Equal(t, before, contents(t, dst))
	require.NoError(t, dst.Delete(t.Context(), block.Key(tenantID, id, block.IndexName)))
	_, err = New(src, dst, Options{Verify: VerifyAll}).Tenant(t.Context(), tenantID)
	require.NoError(t, err)
	require.Equal(t, contents(t, src), contents(t, dst))
}

// damager changes a byte of one object on its way in.
type damager struct {
	bucket.Bucket
	key string
}

func (d *damager) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	if key != d.key {
		return d.Bucket.Put(ctx, key, r, size)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	data[0] ^= 1
	return d.Bucket.Put(ctx, key, bytes.NewReader(data), size)
}

func TestDivergedDestinations(t *testing.T) {
	newer, other := "the destination is ahead", "another history of the same length"
	for name, prepare := range map[string]func(src, dst *place){
		newer: func(src, dst *place) {
			src.add()
			dst.add()
			dst.add()
		},
		other: func(src, dst *place) {
			src.add()
			dst.add()
		},
		"an own block in between": func(src, dst *place) {
			src.add()
			src.add()
			dst.add()
		},
		"an own block, and the version is gone in the source": func(src, dst *place) {
			for range 3 {
				src.add()
			}
			dst.add()
			require.NoError(t, src.Delete(t.Context(), manifest.Key(tenantID, 1)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			src, dst := newPlace(t), newPlace(t)
			prepare(src, dst)
			before := contents(t, dst)
			_, err := New(src, dst, Options{}).Tenant(t.Context(), tenantID)
			require.ErrorIs(t, err, ErrDiverged)
			require.Equal(t, before, contents(t, dst), "nothing is touched")
			_, err = New(src, dst, Options{ReplaceDiverged: true}).Tenant(t.Context(), tenantID)
			require.NoError(t, err)
			requireConsistent(t, dst)
			want, err := src.owner.Refresh(t.Context(), tenantID)
			require.NoError(t, err)
			got, err := manifest.NewOwner(dst, time.Now, slog.New(slog.DiscardHandler), nil).Current(t.Context(), tenantID)
			require.NoError(t, err)
			require.Equal(t, want.Blocks, got.Blocks)
		})
	}
}

// TestOldVersionsMayBeGone: the source has deleted the version that the destination is at.
func TestOldVersionsMayBeGone(t *testing.T) {
	src, dst := newPlace(t), newPlace(t)
	src.add()
	_, err := New(src, dst, Options{}).Tenant(t.Context(), tenantID)
	require.NoError(t, err)
	src.add()
	require.NoError(t, src.Delete(t.Context(), manifest.Key(tenantID, 1)))
	_, err = New(src, dst, Options{}).Tenant(t.Context(), tenantID)
	require.NoError(t, err)
	requireConsistent(t, dst)
}

// TestIncompleteBlocks: a block that is broken in the source keeps the manifest back, unless that is accepted.
func TestIncompleteBlocks(t *testing.T) {
	for _, name := range []string{block.MetaName, block.IndexName, block.SegmentName(2)} {
		src, dst := newPlace(t), newPlace(t)
		bad, good := src.add(), src.add()
		require.NoError(t, src.Delete(t.Context(), block.Key(tenantID, bad, name)))
		_, err := New(src, dst, Options{}).Tenant(t.Context(), tenantID)
		require.ErrorIs(t, err, ErrIncomplete)
		require.ErrorContains(t, err, bad.String())
		got := contents(t, dst)
		require.Contains(t, got, block.Key(tenantID, good, block.MetaName), "the others are copied")
		require.NotContains(t, got, manifest.Key(tenantID, 2))
		_, err = New(src, dst, Options{AcceptIncomplete: true}).Tenant(t.Context(), tenantID)
		require.NoError(t, err, name)
		require.Contains(t, contents(t, dst), manifest.Key(tenantID, 2))
	}
}

// TestSidecarsMayDiffer: they are derived, and the manifest that is copied says the sizes of the source's.
func TestSidecarsMayDiffer(t *testing.T) {
	src, dst := newPlace(t), newPlace(t)
	key := block.Key(tenantID, src.add(), block.SidecarName)
	_, err := New(src, dst, Options{}).Tenant(t.Context(), tenantID)
	require.NoError(t, err)
	want := contents(t, src)

	dst.put(key, []byte("built there"))
	_, err = New(src, dst, Options{}).Tenant(t.Context(), tenantID)
	require.NoError(t, err)
	require.Equal(t, want, contents(t, dst))
	dst.put(key, bytes.Repeat([]byte("x"), len(want[key])))
	_, err = New(src, dst, Options{Verify: VerifyAll}).Tenant(t.Context(), tenantID)
	require.NoError(t, err)
	require.Equal(t, want, contents(t, dst))

	other := newPlace(t)
	without := faultbucket.New(src, func(op faultbucket.Op) faultbucket.Fault {
		if op.Method == "Get" && op.Key == key {
			require.NoError(t, src.Delete(t.Context(), key)) // after it was listed
		}
		return faultbucket.None
	})
	_, err = New(without, other, Options{}).Tenant(t.Context(), tenantID)
	require.NoError(t, err)
	require.NotContains(t, contents(t, other), key)
}

// TestADamagedSourceSpoilsNoCopy: an object that was cut in the source does not replace the whole one of an earlier copy,
// whatever is accepted.
func TestADamagedSourceSpoilsNoCopy(t *testing.T) {
	src, dst := newPlace(t), newPlace(t)
	key := block.Key(tenantID, src.add(), block.IndexName)
	_, err := New(src, dst, Options{}).Tenant(t.Context(), tenantID)
	require.NoError(t, err)
	copied := contents(t, dst)
	src.put(key, []byte(copied[key][:10]))
	_, err = New(src, dst, Options{}).Tenant(t.Context(), tenantID)
	require.ErrorIs(t, err, ErrIncomplete)
	_, err = New(src, dst, Options{AcceptIncomplete: true}).Tenant(t.Context(), tenantID)
	require.ErrorIs(t, err, ErrDiffers)
	require.ErrorContains(t, err, key)
	require.Equal(t, copied, contents(t, dst))
}

// TestWhileTheSourceChanges: blocks are added during the copy, and one is merged away and deleted under its hands.
func TestWhileTheSourceChanges(t *testing.T) {
	src, dst := newPlace(t), newPlace(t)
	first := src.add()
	src.add()
	var once sync.Once
	hooked := &hook{Bucket: src, before: func(key string) {
		if strings.HasPrefix(key, block.Prefix(tenantID, first)) && path.Base(key) == block.IndexName {
			once.Do(func() {
				src.add()
				src.replaceWithout(first)
				require.NoError(t, block.Delete(t.Context(), src, tenantID, first))
			})
		}
	}}
	plan, err := New(hooked, dst, Options{}).Tenant(t.Context(), tenantID)
	require.NoError(t, err)
	require.EqualValues(t, 4, plan.From, "it began again with a newer version")
	require.Equal(t, 2, plan.Blocks)
	requireConsistent(t, dst)
}

// replaceWithout writes a version without one block, as a compactor will.
func (p *place) replaceWithout(id ulid.ULID) {
	p.t.Helper()
	v, err := newest(p.t.Context(), p, tenantID)
	require.NoError(p.t, err)
	next := *v.Manifest
	next.Version++
	next.SwapID = "swap"
	next.Blocks = nil
	for _, b := range v.Blocks {
		if b.ULID != id {
			next.Blocks = append(next.Blocks, b)
		}
	}
	next.Removed = []manifest.RemovedBlock{{ULID: id, RemovedAt: 1}}
	raw, err := manifest.Encode(&next)
	require.NoError(p.t, err)
	require.NoError(p.t, p.PutIfAbsent(p.t.Context(), manifest.Key(tenantID, next.Version), raw))
}

// hook calls before each Get.
type hook struct {
	bucket.Bucket
	before func(key string)
}

func (h *hook) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	h.before(key)
	return h.Bucket.Get(ctx, key)
}

func TestTenantWithoutManifest(t *testing.T) {
	src, dst := newPlace(t), newPlace(t)
	src.add()
	require.NoError(t, src.Delete(t.Context(), manifest.Key(tenantID, 1)))
	plan, err := New(src, dst, Options{}).Tenant(t.Context(), tenantID)
	require.NoError(t, err)
	require.Equal(t, 1, plan.Unlisted)
	require.Zero(t, plan.Blocks)
	require.Empty(t, contents(t, dst))
	dst.add()
	_, err = New(src, dst, Options{}).Tenant(t.Context(), tenantID)
	require.ErrorIs(t, err, ErrDiverged)
	require.ErrorContains(t, err, "it is at version 1, the source has no manifest")
}

func TestDamagedManifests(t *testing.T) {
	for name, damage := range map[string]func(src, dst *place){
		"source":      func(src, _ *place) { src.put(manifest.Key(tenantID, 1), []byte("broken")) },
		"destination": func(_, dst *place) { dst.put(manifest.Key(tenantID, 1), []byte("broken")) },
		"source: the manifest is damaged: " + manifest.Key(tenantID, 2) + ": it holds version 1 of": func(src, _ *place) {
			src.put(manifest.Key(tenantID, 2), []byte(contents(t, src)[manifest.Key(tenantID, 1)]))
		},
	} {
		t.Run(name, func(t *testing.T) {
			src, dst := newPlace(t), newPlace(t)
			src.add()
			damage(src, dst)
			before := contents(t, dst)
			_, err := New(src, dst, Options{}).Tenant(t.Context(), tenantID)
			require.ErrorIs(t, err, ErrManifest)
			require.ErrorContains(t, err, "copy tenant "+tenantID+": "+name)
			require.Equal(t, before, contents(t, dst), "nothing is touched")
		})
	}
}
