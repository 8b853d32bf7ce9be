package ingester

import (
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/errkind"
)

// cutBlocks writes n blocks of 2 h from diskStart on and returns the TSDB's folder, closed.
func cutBlocks(t *testing.T, n int) (dir string, ledger diskLedger) {
	t.Helper()
	dir, ledger = t.TempDir(), diskLedger{}
	o := openDisk(t, dir)
	head := o.DB.Head()
	for b := range n {
		fill(t, o.DB, ledger, 5, b*480, 480)
		begin := diskStart + int64(b)*7_200_000
		require.NoError(t, o.DB.CompactHead(tsdb.NewRangeHead(head, begin, begin+7_200_000-1)))
	}
	require.Len(t, o.DB.Blocks(), n)
	require.NoError(t, o.DB.Close())
	return dir, ledger
}

// openLocal opens dir with a TSDB that asks l what to delete.
func openLocal(t *testing.T, dir string, now func() time.Time) (*tsdb.DB, *localBlocks) {
	t.Helper()
	l, err := openLocalBlocks(dir, now, 12*time.Hour)
	require.NoError(t, err)
	options := diskOptions()
	options.BlocksToDelete = l.deletable
	o, err := openTSDB(t.Context(), openOptions{Dir: dir, TSDB: options, Log: discardLog()})
	require.NoError(t, err)
	o.DB.DisableCompactions()
	t.Cleanup(func() { _ = o.DB.Close() })
	return o.DB, l
}

func TestBlocksAreDeletedOnlyWhenOldAndListedForAnHour(t *testing.T) {
	dir, _ := cutBlocks(t, 1)
	end := time.UnixMilli(diskStart + 7_200_000)
	now := end
	db, l := openLocal(t, dir, func() time.Time { return now })
	b := db.Blocks()[0]
	blocks, id := db.Blocks(), b.Meta().ULID
	may := func(want bool, why string) {
		t.Helper()
		before := l.floor()
		if want {
			require.Contains(t, l.deletable(blocks), id, why)
			return
		}
		require.Empty(t, l.deletable(blocks), why)
		require.Equal(t, before, l.floor(), "what is not deleted moves no floor")
	}
	now = end.Add(48 * time.Hour)
	may(false, "not listed")
	l.setListed(id, 7, now.Add(-30*time.Minute))
	may(false, "listed, but we saw it just now")
	now = now.Add(29 * time.Minute)
	may(false, "listed for an hour by the owner's clock, for 29 minutes by ours")
	now = now.Add(31 * time.Minute)
	l.setUnlisted(id)
	may(false, "the manifest lost it")
	l.setListed(id, 9, now.Add(2*time.Hour))
	now = now.Add(time.Hour)
	may(false, "the owner's clock says it is not yet an hour")
	now = now.Add(2 * time.Hour)
	l.setListed(id, 12, now)
	v, ok := l.listedVersion(id)
	require.True(t, ok)
	require.EqualValues(t, 9, v, "the first version counts")
	may(true, "an hour by both clocks")
	now = end.Add(12*time.Hour - time.Millisecond)
	may(false, "younger than 12 h")
}

func TestFloorIsOnDiskBeforeABlockIsDeleted(t *testing.T) {
	dir, _ := cutBlocks(t, 3)
	now := time.UnixMilli(diskStart).Add(100 * time.Hour)
	clock := func() time.Time { return now }
	db, l := openLocal(t, dir, clock)
	require.EqualValues(t, math.MinInt64, l.floor())
	require.Zero(t, l.deletedVersion())
	blocks := db.Blocks()
	l.setListed(blocks[0].Meta().ULID, 3, time.Time{})
	l.setListed(blocks[1].Meta().ULID, 2, time.Time{})
	now = now.Add(time.Hour)
	require.Len(t, l.deletable(blocks), 2)
	want := blocks[1].Meta().MaxTime

	// A crash here, before stock removed anything: the floor is too high, never too low.
	again, err := openLocalBlocks(dir, clock, 12*time.Hour)
	require.NoError(t, err)
	require.Equal(t, want, again.floor())
	require.EqualValues(t, 3, again.deletedVersion())
	_, ok := again.listedVersion(blocks[0].Meta().ULID)
	require.False(t, ok, "a new process has to see the listing itself")
	require.Len(t, again.unshipped(blocks), 3)
	require.Empty(t, again.deletable(blocks))
	require.Equal(t, want, again.floor(), "and the floor never falls")
}

func TestNothingIsDeletedWhenTheFloorCannotBeWritten(t *testing.T) {
	dir, _ := cutBlocks(t, 1)
	now := time.UnixMilli(diskStart).Add(100 * time.Hour)
	db, l := openLocal(t, dir, func() time.Time { return now })
	l.setListed(db.Blocks()[0].Meta().ULID, 3, time.Time{})
	now = now.Add(2 * time.Hour)
	path := l.path
	l.path = filepath.Join(dir, "none", stateFileName)
	require.Empty(t, l.deletable(db.Blocks()))
	require.Error(t, l.err())
	l.path = path
	require.Len(t, l.deletable(db.Blocks()), 1)
	require.NoError(t, l.err())
	again, err := openLocalBlocks(dir, l.now, 12*time.Hour)
	require.NoError(t, err)
	require.Equal(t, l.floor(), again.floor())
}

func TestStockDeletesWhatItIsTold(t *testing.T) {
	dir, ledger := cutBlocks(t, 3)
	now := time.UnixMilli(diskStart).Add(100 * time.Hour)
	db, l := openLocal(t, dir, func() time.Time { return now })
	for _, b := range db.Blocks()[:2] {
		l.setListed(b.Meta().ULID, 5, time.Time{})
	}
	now = now.Add(time.Hour)
	fill(t, db, ledger, 1, 1440, 1)
	// A cut makes stock reload its blocks; so does its own minute.
	head := db.Head()
	require.NoError(t, db.CompactHead(tsdb.NewRangeHead(head, head.MinTime(), head.MaxTime())))
	require.Len(t, db.Blocks(), 2)
	dirs, err := blockDirs(dir)
	require.NoError(t, err)
	require.Len(t, dirs, 2)
	require.Equal(t, diskStart+2*7_200_000, l.floor())
	for series, samples := range held(t, db) {
		for ts := range samples {
			require.GreaterOrEqual(t, ts, l.floor(), series)
			delete(ledger[series], ts)
		}
	}
	for _, samples := range ledger {
		for ts := range samples {
			require.Less(t, ts, l.floor(), "everything at or above the floor is held")
		}
	}
	l.keepOnly(db.Blocks())
	require.Empty(t, l.listed)
}

func TestUnreadableStateFileIsNotTakenForNone(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, stateFileName), []byte("{"), 0o666))
	_, err := openLocalBlocks(dir, time.Now, time.Hour)
	require.Equal(t, errkind.Corrupt, errkind.Of(err))
	require.ErrorContains(t, err, stateFileName)
}

func TestDeletableIsSafeForConcurrentUse(t *testing.T) {
	l, err := openLocalBlocks(t.TempDir(), time.Now, time.Hour)
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 1000 {
			l.setListed(ulid.ULID{byte(i)}, uint64(i), time.Now())
		}
	}()
	for range 1000 {
		l.deletable(nil)
		l.floor()
		l.listedVersion(ulid.ULID{})
	}
	<-done
}
