package manifest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
)

// addVersions adds n blocks, one version each, step apart.
func addVersions(t *testing.T, o *Owner, clock *testClock, first, n int, step time.Duration) {
	t.Helper()
	for i := range n {
		clock.t = clock.t.Add(step)
		_, err := o.Add(t.Context(), "acme", testBlock(first+i))
		require.NoError(t, err)
	}
}

func versions(t *testing.T, bkt bucket.Bucket) []uint64 {
	t.Helper()
	var found []uint64
	for _, key := range buckettest.Keys(t, bkt, Prefix("acme"), true) {
		version, ok := ParseKey("acme", key)
		require.True(t, ok)
		found = append(found, version)
	}
	return found
}

func TestOldVersionsAreDeleted(t *testing.T) {
	clock := &testClock{time.UnixMilli(1_700_000_000_000)}
	bkt := bucket.NewInMemoryWithClock(clock.now)
	o := newTestOwner(bkt, clock.now)
	addVersions(t, o, clock, 0, 8, time.Minute)
	require.Equal(t, []uint64{1, 2, 3, 4, 5, 6, 7, 8}, versions(t, bkt), "none is two hours old")
	addVersions(t, o, clock, 8, 1, pruneAfter-time.Second)
	require.Equal(t, []uint64{5, 6, 7, 8, 9}, versions(t, bkt))
	addVersions(t, o, clock, 9, 1, 24*time.Hour)
	require.Equal(t, []uint64{6, 7, 8, 9, 10}, versions(t, bkt), "five stay, however old")
	addVersions(t, o, clock, 10, 5, time.Minute)
	require.Equal(t, []uint64{9, 10, 11, 12, 13, 14, 15}, versions(t, bkt),
		"9 was the newest until minutes ago, though it is a day old")
	m, err := newTestOwner(bkt, clock.now).Current(t.Context(), "acme")
	require.NoError(t, err)
	require.Len(t, m.Blocks, 15)
}

func TestFailureToDeleteOldVersionsIsNotFatal(t *testing.T) {
	clock := &testClock{time.UnixMilli(1_700_000_000_000)}
	bkt := faultbucket.New(bucket.NewInMemoryWithClock(clock.now), faultbucket.On("Delete", faultbucket.Before))
	o := newTestOwner(bkt, clock.now)
	addVersions(t, o, clock, 0, 8, 3*time.Hour)
	require.Len(t, versions(t, bkt), 8)
	bkt.SetPlan(nil)
	addVersions(t, o, clock, 8, 1, time.Second)
	require.Equal(t, []uint64{5, 6, 7, 8, 9}, versions(t, bkt), "the next swap makes up for it")
}

// TestRefreshAfterALongPause has the reader's next version, and its own, deleted while it stood still.
func TestRefreshAfterALongPause(t *testing.T) {
	clock := &testClock{time.UnixMilli(1_700_000_000_000)}
	bkt := bucket.NewInMemoryWithClock(clock.now)
	o, paused := newTestOwner(bkt, clock.now), newTestOwner(bkt, clock.now)
	addVersions(t, o, clock, 0, 2, time.Minute)
	m, err := paused.Current(t.Context(), "acme")
	require.NoError(t, err)
	require.EqualValues(t, 2, m.Version)

	addVersions(t, o, clock, 2, 10, time.Hour)
	require.NotContains(t, versions(t, bkt), uint64(3))
	m, err = paused.Refresh(t.Context(), "acme")
	require.NoError(t, err)
	require.EqualValues(t, 12, m.Version)
}

func TestRefreshUnderAClockThatGoesBack(t *testing.T) {
	clock := &testClock{time.UnixMilli(1_700_000_000_000)}
	bkt := bucket.NewInMemoryWithClock(clock.now)
	o := newTestOwner(bkt, clock.now)
	addVersions(t, o, clock, 0, 1, time.Minute)
	readerClock := &testClock{clock.t}
	reader := newTestOwner(bkt, readerClock.now)
	_, err := reader.Current(t.Context(), "acme")
	require.NoError(t, err)
	addVersions(t, o, clock, 1, 10, time.Hour)
	readerClock.t = readerClock.t.Add(-time.Second)
	m, err := reader.Refresh(t.Context(), "acme")
	require.NoError(t, err)
	require.EqualValues(t, 11, m.Version)
}

// TestAPausedOwnerDoesNotForkTheHistory has the clock of an owner stand still together with it, so that it does not even
// know. Its next number has been used and deleted meanwhile, and its put succeeds.
func TestAPausedOwnerDoesNotForkTheHistory(t *testing.T) {
	for _, known := range []int{0, 2} { // versions that the paused owner knows; 0: it knows the tenant as empty
		clock := &testClock{time.UnixMilli(1_700_000_000_000)}
		bkt := bucket.NewInMemoryWithClock(clock.now)
		o := newTestOwner(bkt, clock.now)
		addVersions(t, o, clock, 0, known, time.Minute)
		stopped := &testClock{clock.t}
		paused := newTestOwner(bkt, stopped.now)
		m, err := paused.Current(t.Context(), "acme")
		require.NoError(t, err)
		require.EqualValues(t, known, m.Version)

		addVersions(t, o, clock, known, 10, time.Hour)
		require.NotContains(t, versions(t, bkt), uint64(known+1))
		added, err := paused.Add(t.Context(), "acme", testBlock(99))
		require.NoError(t, err)
		require.Equal(t, Added{Version: uint64(known) + 11}, added)
		require.Equal(t, 1, swaps(paused, swapForked))
		require.NotContains(t, versions(t, bkt), uint64(known+1), "the stray version is gone")

		m, err = newTestOwner(bkt, clock.now).Current(t.Context(), "acme")
		require.NoError(t, err)
		require.Len(t, m.Blocks, known+11)
		_, ok := m.Find(testBlock(99).ULID)
		require.True(t, ok)
	}
}

// TestForkThatCouldNotBeSeenAtOnce has the listing after the put fail, so that the owner does not learn that its version
// is a stray one. Asked again it must not take that version for the truth.
func TestForkThatCouldNotBeSeenAtOnce(t *testing.T) {
	clock := &testClock{time.UnixMilli(1_700_000_000_000)}
	bkt := faultbucket.New(bucket.NewInMemoryWithClock(clock.now), nil)
	o := newTestOwner(bkt, clock.now)
	addVersions(t, o, clock, 0, 2, time.Minute)
	stopped := &testClock{clock.t}
	paused := newTestOwner(bkt, stopped.now)
	_, err := paused.Current(t.Context(), "acme")
	require.NoError(t, err)
	addVersions(t, o, clock, 2, 10, time.Hour)

	bkt.SetPlan(faultbucket.On("List", faultbucket.Before))
	_, err = paused.Add(t.Context(), "acme", testBlock(99))
	require.ErrorIs(t, err, faultbucket.ErrInjected)
	bkt.SetPlan(nil)
	added, err := paused.Add(t.Context(), "acme", testBlock(99))
	require.NoError(t, err)
	require.Equal(t, Added{Version: 13}, added)
	m, err := paused.Refresh(t.Context(), "acme")
	require.NoError(t, err)
	require.Len(t, m.Blocks, 13)
}
