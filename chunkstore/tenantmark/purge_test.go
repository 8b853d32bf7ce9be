package tenantmark

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/countbucket"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// requireReceipt checks that all that is left of tenant a is the receipt, and that nobody else has lost anything.
func requireReceipt(w *world, others []string) {
	w.t.Helper()
	m := w.manifest("a")
	require.Empty(w.t, m.Blocks)
	require.NotZero(w.t, m.Doomed.FinishedAt)
	require.Equal(w.t, 2, m.Doomed.Blocks)
	require.EqualValues(w.t, 20, m.Doomed.Bytes)
	require.Equal(w.t, []string{manifest.Key("a", m.Version)}, w.keys("a/"))
	mark, found, err := Read(w.t.Context(), w.inner, "a")
	require.NoError(w.t, err)
	require.True(w.t, found)
	require.True(w.t, mark.Finished())
	require.Equal(w.t, m.Doomed.FinishedAt, mark.FinishedAt())
	require.Equal(w.t, others, w.keys("ab/"))
}

func TestPurgeLeavesAReceipt(t *testing.T) {
	w := newWorld(t)
	w.fill("a")
	w.fill("ab")
	others := w.keys("ab/")
	counted := countbucket.New(w.inner)
	owner := w.newOwner(counted)
	_, err := NewRequests(counted, owner, time.Hour, nil).Delete(t.Context(), "a")
	require.NoError(t, err)
	before := w.keys("")
	w.at = w.at.Add(59 * time.Minute)
	finished, err := Purge(t.Context(), counted, owner, "a", w.at, quiet())
	require.NoError(t, err)
	require.False(t, finished)
	require.Equal(t, before, w.keys(""), "nothing is touched in the time of grace")

	w.at = w.at.Add(time.Minute)
	counted.Reset()
	finished, err = Purge(t.Context(), counted, owner, "a", w.at, quiet())
	require.NoError(t, err)
	require.True(t, finished)
	requireReceipt(w, others)
	deletes := 0
	for _, op := range counted.Ops() {
		if op.Method == "Delete" {
			deletes++
			metas := strings.Contains(op.Key, "meta.json")
			require.Equal(t, deletes == 1, metas, "meta.json first: %s", op.Key)
		}
	}
	require.Equal(t, 3, deletes, "in batches: meta.json, the others, old versions")

	version := w.manifest("a").Version
	finished, err = Purge(t.Context(), counted, owner, "a", w.at, quiet())
	require.NoError(t, err)
	require.True(t, finished)
	require.Equal(t, version, w.manifest("a").Version, "once more changes nothing")
	finished, err = Purge(t.Context(), counted, owner, "ab", w.at, quiet())
	require.NoError(t, err)
	require.False(t, finished, "nobody has asked for it")
	require.Equal(t, others, w.keys("ab/"))
}

// TestPurgeThatIsCutOff kills a purge at each of its operations, before it and after it had its effect, and has another
// process go on.
func TestPurgeThatIsCutOff(t *testing.T) {
	for _, fault := range []faultbucket.Fault{faultbucket.Before, faultbucket.After} {
		for n, done := 1, false; !done; n++ {
			require.Less(t, n, 200)
			w := newWorld(t)
			w.fill("a")
			w.fill("ab")
			others := w.keys("ab/")
			faulty := faultbucket.New(w.inner, nil)
			owner := w.newOwner(faulty)
			_, err := NewRequests(w.inner, owner, time.Minute, nil).Delete(t.Context(), "a")
			require.NoError(t, err)
			w.at = w.at.Add(time.Minute)
			calls := 0
			faulty.SetPlan(func(faultbucket.Op) faultbucket.Fault {
				if calls++; calls >= n { // the process is dead from here on
					if calls == n {
						return fault
					}
					return faultbucket.Before
				}
				return faultbucket.None
			})
			_, err = Purge(t.Context(), faulty, owner, "a", w.at, quiet())
			done = calls < n
			if done {
				require.NoError(t, err)
			}
			w.at = w.at.Add(time.Minute)
			finished, err := Purge(t.Context(), w.inner, w.newOwner(w.inner), "a", w.at, quiet())
			require.NoError(t, err, "operation %d", n)
			require.True(t, finished, "operation %d", n)
			requireReceipt(w, others)
		}
	}
}

// TestRequestThatIsCutOff: a request, or its withdrawal, that broke off at any operation is repeated with success.
func TestRequestThatIsCutOff(t *testing.T) {
	for _, fault := range []faultbucket.Fault{faultbucket.Before, faultbucket.After} {
		for n, done := 1, false; !done; n++ {
			w := newWorld(t)
			w.fill("a")
			require.NoError(t, w.inner.Delete(t.Context(), InFolderKey("a")))
			before := w.keys("a/0")
			faulty := faultbucket.New(w.inner, nil)
			r := NewRequests(faulty, w.newOwner(faulty), time.Minute, nil)
			calls := 0
			faulty.SetPlan(func(faultbucket.Op) faultbucket.Fault {
				if calls++; calls == n {
					return fault
				}
				return faultbucket.None
			})
			if _, err := r.Delete(t.Context(), "a"); err != nil {
				_, err = r.Delete(t.Context(), "a")
				require.NoError(t, err, n)
			}
			require.True(t, w.manifest("a").Deleting())
			require.Contains(t, w.keys(Prefix), Key("a"))
			if _, err := r.Undelete(t.Context(), "a"); err != nil {
				_, err = r.Undelete(t.Context(), "a")
				require.NoError(t, err, n)
			}
			done = calls < n
			require.Nil(t, w.manifest("a").Doomed)
			require.Empty(t, w.keys(Prefix))
			require.Equal(t, before, w.keys("a/0"))
		}
	}
}

// TestBlocksThatComeMeanwhile: what an ingester ships in the middle of a purge goes, too.
func TestBlocksThatComeMeanwhile(t *testing.T) {
	w := newWorld(t)
	w.fill("a")
	_, err := NewRequests(w.inner, w.owner, 0, nil).Delete(t.Context(), "a")
	require.NoError(t, err)
	late := &lateShipper{Bucket: w.inner, w: w}
	finished, err := Purge(t.Context(), late, w.newOwner(w.inner), "a", w.at.Add(time.Second), quiet())
	require.NoError(t, err)
	require.True(t, finished)
	require.Len(t, w.keys("a/"), 1)
	require.Equal(t, 3, w.manifest("a").Doomed.Blocks)
}

// lateShipper has a block shipped after the first deletion.
type lateShipper struct {
	bucket.Bucket
	w    *world
	done bool
}

func (b *lateShipper) List(ctx context.Context, prefix string, recursive bool, fn func(bucket.Object) error) error {
	err := b.Bucket.List(ctx, prefix, recursive, fn)
	if !b.done {
		b.done = true
		b.w.ship("a", 9)
	}
	return err
}

func TestStatus(t *testing.T) {
	w := newWorld(t)
	w.fill("a")
	told := 0
	r := NewRequests(w.inner, w.owner, time.Hour, func() { told++ })
	ctx := t.Context()
	s, err := r.Status(ctx, "a")
	require.NoError(t, err)
	require.Equal(t, Status{TenantID: "a", State: StateNone, Blocks: 2}, s)
	s, err = r.Delete(ctx, "a")
	require.NoError(t, err)
	require.Equal(t, StateGrace, s.State)
	require.Equal(t, w.at.Add(time.Hour).UnixMilli(), s.GraceUntil)
	require.Equal(t, 1, told)
	s, err = r.Undelete(ctx, "a")
	require.NoError(t, err)
	require.Equal(t, StateNone, s.State)
	require.Equal(t, 2, told)
	_, err = r.Delete(ctx, "a")
	require.NoError(t, err)
	w.at = w.at.Add(time.Hour)
	require.NoError(t, w.owner.Raze(ctx, "a"))
	s, err = r.Status(ctx, "a")
	require.NoError(t, err)
	require.Equal(t, StateDeleting, s.State)
	require.False(t, s.BlocksDeleted)
	_, err = r.Undelete(ctx, "a")
	require.Equal(t, errkind.Gone, errkind.Of(err), "too late")
	_, err = Purge(ctx, w.inner, w.owner, "a", w.at, quiet())
	require.NoError(t, err)
	s, err = r.Status(ctx, "a")
	require.NoError(t, err)
	require.Equal(t, StateDeleted, s.State)
	require.True(t, s.BlocksDeleted)
	require.Equal(t, 2, s.DeletedBlocks)
	_, err = r.Undelete(ctx, "a")
	require.Equal(t, errkind.Gone, errkind.Of(err))
}

func TestMarksOfPeers(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.put("a/x")
	put := func(key, content string) {
		require.NoError(t, w.inner.Put(ctx, key, strings.NewReader(content), int64(len(content))))
	}
	put(Key("a"), `{"deletion_time":1700000000}`)
	put(InFolderKey("b"), `{"deletion_time":1700000001,"finished_time":1700000002,"something":"new"}`)
	put(Prefix+"c/else.json", `{}`)
	put(Key("d"), `no JSON`)
	watch := NewWatch(w.inner)
	marks, err := watch.Look(ctx)
	require.NoError(t, err)
	require.Equal(t, map[string]Mark{"a": {DeletionTime: 1700000000}, "d": {}}, marks)
	b, found, err := Read(ctx, w.inner, "b")
	require.NoError(t, err)
	require.True(t, found)
	require.EqualValues(t, 1700000002000, b.FinishedAt())
	_, found, err = Read(ctx, w.inner, "c")
	require.NoError(t, err)
	require.False(t, found)

	counted := countbucket.New(w.inner)
	watch.bkt = counted
	_, err = watch.Look(ctx)
	require.NoError(t, err)
	require.Len(t, counted.Ops(), 1, "what is known is not read again")
	w.at = w.at.Add(time.Second)
	require.NoError(t, Write(ctx, w.inner, "a", Of(manifest.TenantDeletion{RequestedAt: 5000, FinishedAt: 6500})))
	marks, err = watch.Look(ctx)
	require.NoError(t, err)
	a := marks["a"]
	require.EqualValues(t, 6500, a.FinishedAt())
	require.EqualValues(t, 7, a.FinishedTime, "whole seconds, not before the end")
	require.NoError(t, Remove(ctx, w.inner, "a"))
	marks, err = watch.Look(ctx)
	require.NoError(t, err)
	require.NotContains(t, marks, "a")
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"deletion_time":1,"finished_time":2}`))
	f.Add([]byte(`{"deletion_time":1,"duramen":{"grace_until":5,"blocks":-1}}`))
	f.Add([]byte(`null`))
	f.Add([]byte(`{"deletion_time":-1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := Decode(data)
		if m.DeletionTime < 0 || m.FinishedTime < 0 {
			t.Fatalf("%+v", m)
		}
		again, err := json.Marshal(m)
		require.NoError(t, err)
		require.Equal(t, m, Decode(again))
	})
}
