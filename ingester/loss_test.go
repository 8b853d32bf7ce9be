package ingester

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/manifest"
)

// TestLossIsRecorded damages a log, has it salvaged, and asks what the manifest says of it.
func TestLossIsRecorded(t *testing.T) {
	origin := t.TempDir()
	ledger := diskLedger{}
	a := openDisk(t, origin)
	fill(t, a.DB, ledger, 200, 0, 200)
	dir := crashImage(t, origin)
	segments := segmentsOf(t, dir, walDirName)
	require.Greater(t, len(segments), 2)
	begins, _ := recordOffsets(t, segments[1])
	flipBit(t, segments[1], begins[len(begins)/2]+100)
	written := time.Now().Add(-24 * time.Hour).Truncate(time.Second)
	for i, path := range segments {
		at := written.Add(time.Duration(i) * time.Hour)
		require.NoError(t, os.Chtimes(path, at, at))
	}
	b := openDisk(t, dir)
	require.Len(t, b.Report.LostWAL, 1)

	catalog := &testCatalog{err: os.ErrDeadlineExceeded}
	const window = 2 * time.Hour
	record := func(mint, maxt int64) error {
		return recordLoss(t.Context(), catalog, "acme", b.Report.LostWAL, window, mint, maxt)
	}
	require.ErrorIs(t, record(1, 0), os.ErrDeadlineExceeded)
	catalog.err = nil
	require.NoError(t, record(1, 0))
	require.Len(t, catalog.lost, 1)
	require.Equal(t, written.Add(-headSpan-window).UnixMilli(), catalog.lost[0].MinTime)
	require.Equal(t, written.Add(time.Hour+futureSpan).UnixMilli()+1, catalog.lost[0].MaxTime)
	require.Contains(t, catalog.lost[0].Reason, "segment 1, kept in wal-aside-")
	require.NoError(t, record(1, 0))
	require.Len(t, catalog.lost, 1, "once")

	// A sender that caught up: what the log holds beside the damage says more than the clock.
	require.NoError(t, os.Remove(filepath.Join(b.Report.LostWAL[0].Aside, lossRecorded)))
	require.NoError(t, record(0, 5))
	require.Equal(t, -window.Milliseconds(), catalog.lost[1].MinTime)
	require.Equal(t, catalog.lost[0].MaxTime, catalog.lost[1].MaxTime)

	require.NoError(t, b.DB.Close())
	require.NoError(t, markClean(dir))
	require.Len(t, openDisk(t, dir).Report.LostWAL, 1, "the record changes nothing for the next open")
}

// TestLossOfACheckpointOrASegmentThatIsGone has less to go by.
func TestLossOfACheckpointOrASegmentThatIsGone(t *testing.T) {
	aside := t.TempDir()
	at := time.UnixMilli(1_700_000_000_000)
	checkpoint := filepath.Join(aside, walDirName, "checkpoint.00000003")
	require.NoError(t, os.MkdirAll(checkpoint, 0o755))
	require.NoError(t, os.WriteFile(wlog.SegmentName(checkpoint, 0), nil, 0o600))
	require.NoError(t, os.Chtimes(wlog.SegmentName(checkpoint, 0), at, at))
	set := at.Add(5 * time.Hour)
	require.NoError(t, os.Chtimes(aside, set, set))
	for _, c := range []struct {
		damage logDamage
		at     time.Time
	}{
		{logDamage{Log: "wal/checkpoint.00000003", Aside: aside}, at},
		{logDamage{Log: walDirName, Segment: 7, Aside: aside}, set},
	} {
		l, err := c.damage.lostRange(time.Hour, 1, 0)
		require.NoError(t, err)
		require.Equal(t, c.at.Add(-4*time.Hour).UnixMilli(), l.MinTime)
		require.Equal(t, c.at.Add(futureSpan).UnixMilli()+1, l.MaxTime)
	}
	_, err := (&logDamage{Log: walDirName, Aside: filepath.Join(aside, "gone")}).lostRange(0, 1, 0)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, recordLoss(t.Context(), &testCatalog{}, "acme",
		[]logDamage{{Aside: filepath.Join(aside, "gone")}}, 0, 1, 0), "record what was lost")
}

var _ lossRecorder = (*manifest.Owner)(nil)

// TestLostBefore: an ingester with a damaged log is one that lost what the log can have held, until an operator says that
// this is settled.
func TestLostBefore(t *testing.T) {
	origin := t.TempDir()
	a := openDisk(t, origin)
	fill(t, a.DB, diskLedger{}, 200, 0, 200)
	f := idleFixture(t)
	dir := filepath.Join(f.dir, "acme")
	require.NoError(t, os.MkdirAll(f.dir, 0o777))
	require.NoError(t, os.Rename(crashImage(t, origin), dir))
	segments := segmentsOf(t, dir, walDirName)
	begins, _ := recordOffsets(t, segments[1])
	flipBit(t, segments[1], begins[len(begins)/2]+100)
	written := time.Now().Add(-24 * time.Hour).Truncate(time.Second)
	for _, path := range segments {
		require.NoError(t, os.Chtimes(path, written, written))
	}
	f.start()
	require.Equal(t, written.Add(futureSpan).UnixMilli()+1, f.LostBefore())
	f.restart()
	require.Equal(t, written.Add(futureSpan).UnixMilli()+1, f.LostBefore(), "it does not grow with time")
	f.stop()
	asides, err := filepath.Glob(filepath.Join(dir, "*aside*"))
	require.NoError(t, err)
	require.NotEmpty(t, asides)
	for _, aside := range asides {
		require.NoError(t, os.RemoveAll(aside))
	}
	f.start()
	require.Zero(t, f.LostBefore())
}
