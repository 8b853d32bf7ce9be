package ingester

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/tenantmark"
	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
)

// mark marks the tenant "a" and waits until the ingester has followed.
func (f *fixture) mark(d manifest.TenantDeletion, followed func() bool) {
	f.t.Helper()
	require.NoError(f.t, tenantmark.Write(f.t.Context(), f.bkt, "a", tenantmark.Of(d)))
	f.LookAtMarks()
	require.Eventually(f.t, followed, 30*time.Second, time.Millisecond)
}

func (f *fixture) unmark() {
	f.t.Helper()
	require.NoError(f.t, tenantmark.Remove(f.t.Context(), f.bkt, "a"))
	f.LookAtMarks()
	require.Eventually(f.t, func() bool { return f.dooms.refuse("a") == nil }, 30*time.Second, time.Millisecond)
}

func (f *fixture) refused() bool { return f.dooms.refuse("a") != nil }

func (f *fixture) listed() int {
	m, err := f.catalog.Current(f.t.Context(), "a")
	require.NoError(f.t, err)
	return len(m.Blocks)
}

// requireGone checks that nothing of the tenant is written or read.
func (f *fixture) requireGone() {
	f.t.Helper()
	ctx := f.t.Context()
	errs := []error{f.Push(ctx, "a", &(&batch{}).floats(named("x"), 1, 5).Batch, &duramenpb.PushResult{})}
	_, _, err := f.Querier(ctx, "a", all, math.MinInt64, math.MaxInt64)
	errs = append(errs, err)
	_, _, err = f.ChunkQuerier(ctx, "a", all, math.MinInt64, math.MaxInt64)
	errs = append(errs, err)
	_, err = f.Plan(ctx, "a", all, math.MinInt64, math.MaxInt64)
	errs = append(errs, err)
	_, err = f.Metadata(ctx, "a", "")
	errs = append(errs, err)
	_, err = f.HeadStats(ctx, "a", 1)
	errs = append(errs, err)
	_, err = f.UserStats(ctx, "a")
	errs = append(errs, err)
	for n, err := range errs {
		require.Equal(f.t, errkind.Gone, errkind.Of(err), "%d: %v", n, err)
	}
}

func (f *fixture) folder() string { return filepath.Join(f.dir, "a") }

func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

var requested = manifest.TenantDeletion{RequestedAt: ms(testStart), GraceUntil: ms(testStart) + 86_400_000}

// TestDoomedTenantKeepsAll: from the mark on nothing is taken or told, all goes into the bucket, and the folder stays, also
// over a restart; when the mark goes, everything is there.
func TestDoomedTenantKeepsAll(t *testing.T) {
	f := newFixture(t)
	f.push((&batch{}).floats(named("x"), 1, ms(testStart)-2000, ms(testStart)-1000, ms(testStart)+60_000)) // one is ahead
	before := f.read()
	require.NoError(t, f.Push(t.Context(), "ab", &(&batch{}).floats(named("x"), 1, ms(testStart)).Batch, &duramenpb.PushResult{}))

	f.mark(requested, func() bool { return f.refused() && f.listed() == 1 && !missing(doomedMarker(f.folder())) })
	f.requireGone()
	require.NoError(t, f.Push(t.Context(), "ab", &(&batch{}).floats(named("x"), 1, ms(testStart)+1).Batch, &duramenpb.PushResult{}),
		"others are not touched")

	// The bucket is away at a restart: what the disk says is enough.
	working := f.bkt
	f.bkt = faultbucket.New(working, faultbucket.On("List", faultbucket.Before))
	f.restart()
	f.requireGone()
	f.bkt = working
	f.restart()
	f.requireGone()
	f.unmark()
	require.Equal(t, before, f.read())
	require.True(t, missing(doomedMarker(f.folder())))
	f.push((&batch{}).floats(named("x"), 1, ms(testStart)+61_000))

	late, err := f.tenants.get("a", false) // somebody who looked before the withdrawal comes to mark the folder
	require.NoError(t, err)
	f.markOnDisk(late)
	require.True(t, missing(doomedMarker(f.folder())))
}

// TestDeletedTenantsFolderGoes: with the mark that says that nothing is left; and what comes then is a new life.
func TestDeletedTenantsFolderGoes(t *testing.T) {
	f := newFixture(t)
	f.push((&batch{}).floats(named("x"), 1, ms(testStart)))
	f.mark(requested, func() bool { return f.refused() && f.listed() == 1 })
	finished := requested
	finished.FinishedAt = ms(testStart) + 90_000_000 // by a clock that is ahead
	f.mark(finished, func() bool { return missing(f.folder()) && !f.refused() })
	require.Empty(t, f.read())

	f.push((&batch{}).floats(named("y"), 2, ms(testStart)+1))
	f.LookAtMarks()
	f.restart()
	f.LookAtMarks()
	_, err := f.Flush(t.Context(), "a", true)
	require.NoError(t, err, "the new life ships")
	require.Len(t, f.read(), 1)
	require.False(t, missing(f.folder()))
}

// TestFolderOfADeletedTenantThatComesBack: an ingester that was away from before the request until after the end ships
// nothing of it, and deletes its folder.
func TestFolderOfADeletedTenantThatComesBack(t *testing.T) {
	f := newFixture(t)
	f.push((&batch{}).floats(named("x"), 1, ms(testStart)))
	f.stop()
	require.NoError(t, os.MkdirAll(filepath.Join(f.dir, discardedPrefix+"z"), 0o777)) // of an earlier crash
	finished := requested
	finished.FinishedAt = ms(testStart) + 90_000_000
	require.NoError(t, tenantmark.Write(t.Context(), f.bkt, "a", tenantmark.Of(finished)))
	working := f.bkt
	f.bkt = faultbucket.New(working, faultbucket.On("List", faultbucket.Before))
	f.clock.advance(48 * time.Hour)
	f.start()
	require.True(t, missing(filepath.Join(f.dir, discardedPrefix+"z")))
	_, err := f.Flush(t.Context(), "a", true)
	require.Error(t, err, "nothing is shipped while nobody knows the marks")
	require.Zero(t, f.listed())
	f.bkt.(*faultbucket.Bucket).SetPlan(nil)
	f.LookAtMarks()
	require.Eventually(t, func() bool { return missing(f.folder()) && !f.refused() }, 30*time.Second, time.Millisecond)
	require.Zero(t, f.listed())
	require.Empty(t, f.read())
}

// TestMarksCostOneListing: that is what an ingester does while nobody is deleted.
func TestMarksCostOneListing(t *testing.T) {
	f := idleFixture(t)
	counted := faultbucket.New(bucket.NewInMemory(), nil)
	f.bkt = counted
	f.start()
	require.Eventually(t, f.dooms.looked.Load, 30*time.Second, time.Millisecond)
	f.stop()
	require.Len(t, counted.Ops(), 1)
}
