package ingester

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"
	"github.com/stretchr/testify/require"
)

func TestCleanStopIsTold(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tenant")
	ledger := diskLedger{}
	a := openDisk(t, dir)
	require.False(t, a.Report.Unclean, "a new folder was never open")
	fill(t, a.DB, ledger, 3, 0, 5)
	require.NoError(t, a.DB.Close())
	require.NoError(t, markClean(dir))
	require.NoError(t, markClean(dir), "twice is no error")

	b := openDisk(t, dir)
	require.False(t, b.Report.Unclean)
	require.NotZero(t, b.Incarnation)
	require.NotEqual(t, a.Incarnation, b.Incarnation)
	require.NoError(t, b.DB.Close())

	c := openDisk(t, dir)
	require.True(t, c.Report.Unclean, "closed, but nobody said that all writes went well")
	require.Zero(t, ledger.missing(t, held(t, c.DB)))
	require.Empty(t, asideFolders(t, dir))
}

// A kill in the middle of a write may leave the last record incomplete at any byte. Whatever was acknowledged before it
// must be there after the next open, out-of-order samples included, and after the one behind that.
func TestTornTailLosesNothingAcknowledged(t *testing.T) {
	origin := t.TempDir()
	acked, all := diskLedger{}, diskLedger{}
	a := openDisk(t, origin)
	fill(t, a.DB, acked, 20, 0, 40)
	fillLate(t, a.DB, acked, 20, 10, 20)
	for series, samples := range acked {
		for ts, v := range samples {
			all.add(series, ts, v)
		}
	}
	fill(t, a.DB, all, 20, 40, 1)
	image := crashImage(t, origin)
	segments := segmentsOf(t, image, walDirName)
	last := segments[len(segments)-1]
	begins, end := recordOffsets(t, last)
	begin := begins[len(begins)-1]

	for off := begin; off < end; off += max(1, (end-begin)/23) {
		t.Run(fmt.Sprint(off-begin), func(t *testing.T) {
			dir := crashImage(t, image)
			torn := filepath.Join(dir, walDirName, filepath.Base(last))
			require.NoError(t, os.Truncate(torn, off))
			b := openDisk(t, dir)
			require.True(t, b.Report.Unclean)
			require.Empty(t, b.Report.LostWAL)
			require.Zero(t, acked.missing(t, only(held(t, b.DB), acked)))
			if off > begin {
				require.Len(t, b.Report.TornTails, 1)
				d := b.Report.TornTails[0]
				require.Equal(t, walDirName, d.Log)
				require.Equal(t, begin, d.Offset)
				require.Equal(t, off-begin, d.Bytes)
			}
			require.Empty(t, asideFolders(t, dir))
			compactLate(t, b.DB)
			require.NoError(t, b.DB.Close())
			c := openDisk(t, dir)
			require.Empty(t, c.Report.TornTails)
			require.Zero(t, acked.missing(t, only(held(t, c.DB), acked)))
			all.missing(t, held(t, c.DB))
		})
	}
}

// compactLate cuts blocks of the out-of-order samples, which drops the log of them up to then.
func compactLate(t *testing.T, db *tsdb.DB) {
	t.Helper()
	require.NoError(t, db.CompactOOOHead(context.Background()))
}

// The reason for all this: what stock does by itself after a kill in the middle of a write.
func TestStockLosesOutOfOrderSamplesAfterATornTail(t *testing.T) {
	dir := t.TempDir()
	ledger := diskLedger{}
	a := openDisk(t, dir)
	fill(t, a.DB, ledger, 20, 0, 40)
	fillLate(t, a.DB, ledger, 20, 10, 20)
	fill(t, a.DB, diskLedger{}, 20, 40, 1)
	dir = crashImage(t, dir)
	segments := segmentsOf(t, dir, walDirName)
	last := segments[len(segments)-1]
	require.NoError(t, os.Truncate(last, fileSize(t, last)-10))

	for range 2 {
		db, err := tsdb.Open(dir, discardLog(), nil, diskOptions(), nil)
		require.NoError(t, err)
		db.DisableCompactions()
		require.NoError(t, db.CompactOOOHead(context.Background()))
		got := held(t, db)
		require.NoError(t, db.Close())
		if ledger.missing(t, got) > 0 {
			return
		}
	}
	t.Fatal("stock kept everything: openTSDB may have become simpler than it is")
}

func TestFlippedBitInEarlierSegment(t *testing.T) {
	origin := t.TempDir()
	ledger := diskLedger{}
	a := openDisk(t, origin)
	fill(t, a.DB, ledger, 200, 0, 200)
	fillLate(t, a.DB, ledger, 20, 10, 20)
	image := crashImage(t, origin)
	segments := segmentsOf(t, image, walDirName)
	require.Greater(t, len(segments), 3)

	for _, which := range []int{1, len(segments) / 2} {
		t.Run(fmt.Sprint(which), func(t *testing.T) {
			dir := crashImage(t, image)
			path := filepath.Join(dir, walDirName, filepath.Base(segments[which]))
			begins, _ := recordOffsets(t, path)
			begin, next := begins[len(begins)/2], begins[len(begins)/2+1]
			behind := fileSize(t, path) - next
			for _, s := range segments[which+1:] {
				behind += fileSize(t, s)
			}
			flipBit(t, path, begin+100)

			b := openDisk(t, dir)
			require.Empty(t, b.Report.TornTails)
			require.Len(t, b.Report.LostWAL, 1)
			got := b.Report.LostWAL[0]
			folders := asideFolders(t, dir)
			require.Len(t, folders, 1)
			require.Equal(t, logDamage{
				Log: walDirName, Segment: which, Offset: begin, Bytes: next - begin, Behind: behind,
				Reason: got.Reason, Aside: folders[0],
			}, got)
			lost := ledger.missing(t, held(t, b.DB))
			require.LessOrEqual(t, lost, 200, "one record of 200 samples was broken")

			kept, err := os.ReadFile(filepath.Join(folders[0], walDirName, filepath.Base(path)))
			require.NoError(t, err)
			flipped, err := os.ReadFile(filepath.Join(image, walDirName, filepath.Base(path)))
			require.NoError(t, err)
			flipped[begin+100] ^= 0x10
			require.Equal(t, flipped, kept, "aside is the log as it was found")

			more := diskLedger{}
			fill(t, b.DB, more, 200, 200, 2)
			require.NoError(t, b.DB.Close())
			require.NoError(t, markClean(dir))
			c := openDisk(t, dir)
			require.Equal(t, b.Report.LostWAL, c.Report.LostWAL, "the loss is told until the folder is removed")
			fill(t, c.DB, more, 200, 202, 1)
			again := held(t, c.DB)
			require.Zero(t, more.missing(t, only(again, more)))
			require.NoError(t, c.DB.Close())
			require.NoError(t, os.RemoveAll(folders[0]))
			require.Empty(t, openDisk(t, dir).Report.LostWAL)
		})
	}
}

// only returns the part of got that want speaks of.
func only(got, want diskLedger) diskLedger {
	out := diskLedger{}
	for series, samples := range want {
		for ts := range samples {
			if v, ok := got[series][ts]; ok {
				out.add(series, ts, v)
			}
		}
	}
	return out
}

// A write failure leaves a torn record; the reopen begins a new segment. Had the tail not been cut first, it would
// sit in the middle from then on and the next repair would delete all behind it.
func TestTornTailNeverMovesToTheMiddle(t *testing.T) {
	dir := t.TempDir()
	ledger := diskLedger{}
	a := openDisk(t, dir)
	fill(t, a.DB, ledger, 20, 0, 20)
	fill(t, a.DB, diskLedger{}, 20, 20, 1)
	for round := 1; round < 4; round++ {
		dir = crashImage(t, dir)
		segments := segmentsOf(t, dir, walDirName)
		last := segments[len(segments)-1]
		begins, _ := recordOffsets(t, last)
		require.NoError(t, os.Truncate(last, begins[len(begins)-1]+9))
		b := openDisk(t, dir)
		require.Len(t, b.Report.TornTails, 1)
		require.Empty(t, b.Report.LostWAL)
		fill(t, b.DB, ledger, 20, 20*round, 20)
		require.Zero(t, ledger.missing(t, held(t, b.DB)))
		fill(t, b.DB, diskLedger{}, 20, 20*round+20, 1) // the one to be torn
	}
}

// If one is there all the same, for an older version left it, what follows must be kept and the damage reported.
func TestTornTailInTheMiddleKeepsWhatFollows(t *testing.T) {
	dir := t.TempDir()
	ledger := diskLedger{}
	a := openDisk(t, dir)
	fill(t, a.DB, ledger, 200, 0, 200)
	dir = crashImage(t, dir)
	segments := segmentsOf(t, dir, walDirName)
	begins, _ := recordOffsets(t, segments[1])
	require.NoError(t, os.Truncate(segments[1], begins[len(begins)-1]+30))
	b := openDisk(t, dir)
	require.Len(t, b.Report.LostWAL, 1)
	require.Equal(t, 1, b.Report.LostWAL[0].Segment)
	require.EqualValues(t, 30, b.Report.LostWAL[0].Bytes)
	require.LessOrEqual(t, ledger.missing(t, held(t, b.DB)), 200)
	require.Len(t, asideFolders(t, dir), 1)
}

func TestDamagedOutOfOrderLog(t *testing.T) {
	dir := t.TempDir()
	ledger := diskLedger{}
	a := openDisk(t, dir)
	fill(t, a.DB, ledger, 100, 0, 100)
	for i := range 60 {
		fillLate(t, a.DB, ledger, 100, i, 1)
	}
	dir = crashImage(t, dir)
	segments := segmentsOf(t, dir, wlog.WblDirName)
	begins, _ := recordOffsets(t, segments[0])
	flipBit(t, segments[0], begins[3]+20)
	b := openDisk(t, dir)
	require.Len(t, b.Report.LostWAL, 1)
	require.Equal(t, wlog.WblDirName, b.Report.LostWAL[0].Log)
	require.Equal(t, begins[3], b.Report.LostWAL[0].Offset)
	require.LessOrEqual(t, ledger.missing(t, held(t, b.DB)), 100)

	dir = crashImage(t, dir)
	require.NoError(t, os.RemoveAll(asideFolders(t, dir)[0]))
	before := held(t, b.DB)
	segments = segmentsOf(t, dir, wlog.WblDirName)
	require.NoError(t, os.Truncate(segments[len(segments)-1], fileSize(t, segments[len(segments)-1])-logPageSize/2-3))
	c := openDisk(t, dir)
	require.Empty(t, c.Report.LostWAL, "%+v", c.Report)
	before.missing(t, held(t, c.DB))
}

func TestDamagedCheckpointKeepsTheLog(t *testing.T) {
	dir, ledger := logWithCheckpoint(t)
	checkpoint, _, err := wlog.LastCheckpoint(filepath.Join(dir, walDirName))
	require.NoError(t, err)
	path := filepath.Join(checkpoint, "00000000")
	begins, _ := recordOffsets(t, path)
	last := len(begins) - 1
	flipBit(t, path, begins[last]+10)
	b := openDisk(t, dir)
	require.Len(t, b.Report.LostWAL, 1)
	require.Equal(t, walDirName+"/"+filepath.Base(checkpoint), b.Report.LostWAL[0].Log)
	require.Equal(t, begins[last], b.Report.LostWAL[0].Offset)
	lost := ledger.missing(t, held(t, b.DB))
	require.LessOrEqual(t, lost, 900, "one series is lost; stock deletes the whole log")
}

func TestMissingSegmentsAreReportedAndTheRestKept(t *testing.T) {
	dir, ledger := logWithCheckpoint(t)
	segments := segmentsOf(t, dir, walDirName)
	require.Greater(t, len(segments), 2)
	require.NoError(t, os.Remove(segments[1]))
	b := openDisk(t, dir)
	require.Len(t, b.Report.LostWAL, 1)
	require.Contains(t, b.Report.LostWAL[0].Reason, "missing")
	require.Positive(t, b.Report.LostWAL[0].Behind)
	require.Less(t, ledger.missing(t, held(t, b.DB)), ledger.size()/2)
	require.NoError(t, b.DB.Close())

	checkpoint, _, err := wlog.LastCheckpoint(filepath.Join(dir, walDirName))
	require.NoError(t, err)
	require.NoError(t, os.RemoveAll(checkpoint))
	openDisk(t, dir) // without series nothing replays, but the tenant opens and says so
}

// logWithCheckpoint returns the image of a TSDB that cut a block and a checkpoint.
func logWithCheckpoint(t *testing.T) (string, diskLedger) {
	t.Helper()
	dir := t.TempDir()
	ledger := diskLedger{}
	a := openDisk(t, dir)
	for i := range 100 { // a record for each series
		commit(t, a.DB, ledger, diskSample{fmt.Sprintf("series_%d", i), diskStart - 1, 0})
	}
	fill(t, a.DB, ledger, 100, 0, 700) // almost 3 h
	head := a.DB.Head()
	require.NoError(t, a.DB.CompactHead(tsdb.NewRangeHead(head, head.MinTime(), diskStart+7_200_000-1)))
	_, _, err := wlog.LastCheckpoint(filepath.Join(dir, walDirName))
	require.NoError(t, err)
	fill(t, a.DB, ledger, 100, 700, 200)
	return crashImage(t, dir), ledger
}

// A power cut may take the record that defines a series and leave samples that name it. Stock would give the reference
// to the next new series, and the replay after that would add the old samples to it.
func TestReferencesOfLostSeriesAreNotGivenAway(t *testing.T) {
	for _, guarded := range []bool{false, true} {
		t.Run(fmt.Sprintf("guarded=%v", guarded), func(t *testing.T) {
			dir := t.TempDir()
			ledger := diskLedger{}
			a := openDisk(t, dir)
			fill(t, a.DB, ledger, 3, 0, 3)
			require.NoError(t, a.DB.Close())
			// The log of out-of-order samples reached the disk with a sample of series 4; its definition did not.
			w, err := wlog.NewSize(discardLog(), nil, filepath.Join(dir, wlog.WblDirName), diskSegmentSize, compression.None)
			require.NoError(t, err)
			var enc record.Encoder
			stray := record.RefSample{Ref: 4, T: diskStart - 1, V: 666}
			require.NoError(t, w.Log(enc.Samples([]record.RefSample{stray}, nil)))
			require.NoError(t, w.Close())

			open := func() *tsdb.DB {
				if guarded {
					return openDisk(t, dir).DB
				}
				db, err := tsdb.Open(dir, discardLog(), nil, diskOptions(), nil)
				require.NoError(t, err)
				return db
			}
			db := open()
			commit(t, db, ledger, diskSample{"another", diskStart + 30_000, 1})
			require.NoError(t, db.Close())
			db = open()
			got := held(t, db)
			require.NoError(t, db.Close())
			if guarded {
				require.Zero(t, ledger.missing(t, got))
				return
			}
			require.Equal(t, 666.0, got["another"][diskStart-1], "stock no longer invents: the guard may go")
		})
	}
}

// A full out-of-order chunk is marked in the log as written while it is still in a buffer. After a kill stock ignores
// the mark, for there is no chunk at that place; replay writes other chunks there, and after a second kill stock
// believes the mark and drops the samples before it.
func TestMarksOfLostHeadChunksAreDropped(t *testing.T) {
	for _, guarded := range []bool{false, true} {
		t.Run(fmt.Sprintf("guarded=%v", guarded), func(t *testing.T) {
			dir := t.TempDir()
			ledger := diskLedger{}
			open := func() *tsdb.DB {
				if guarded {
					return openDisk(t, dir).DB
				}
				db, err := tsdb.Open(dir, discardLog(), nil, diskOptions(), nil)
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, db.Close()) })
				return db
			}
			db := open()
			fill(t, db, ledger, 500, 0, 200)
			for i := range 33 { // 32 fill a chunk, the next one has it written
				commit(t, db, ledger, diskSample{"series_0", diskStart + int64(i)*15_000 + 1, 1})
			}
			dir = crashImage(t, dir)
			require.Zero(t, ledger.missing(t, held(t, open())))
			dir = crashImage(t, dir)
			lost := ledger.missing(t, held(t, open()))
			if guarded {
				require.Zero(t, lost)
				return
			}
			require.Positive(t, lost, "stock keeps them now: the filter may go")
		})
	}
}

func TestHeadChunkFilesThatStockRefuses(t *testing.T) {
	origin := t.TempDir()
	ledger := diskLedger{}
	a := openDisk(t, origin)
	fill(t, a.DB, ledger, 50, 0, 300)
	a.DB.ForceHeadMMap()
	require.NoError(t, a.DB.Close())
	b := openDisk(t, origin) // a second file
	fill(t, b.DB, ledger, 50, 300, 300)
	fillLate(t, b.DB, ledger, 5, 250, 100)
	b.DB.ForceHeadMMap()
	require.NoError(t, b.DB.Close())
	files, err := segmentNumbers(filepath.Join(origin, headChunksDirName))
	require.NoError(t, err)
	require.Equal(t, []int{1, 2}, files)
	name := func(dir string, n int) string { return filepath.Join(dir, headChunksDirName, fmt.Sprintf("%06d", n)) }

	cases := map[string]func(dir string){
		"bad magic":      func(dir string) { flipBit(t, name(dir, 1), 0) },
		"gap":            func(dir string) { require.NoError(t, os.Rename(name(dir, 2), name(dir, 4))) },
		"empty last":     func(dir string) { require.NoError(t, os.WriteFile(name(dir, 3), nil, 0o666)) },
		"zeros last":     func(dir string) { require.NoError(t, os.WriteFile(name(dir, 3), make([]byte, 4096), 0o666)) },
		"torn last":      func(dir string) { require.NoError(t, os.Truncate(name(dir, 2), 5000)) },
		"torn header":    func(dir string) { require.NoError(t, os.Truncate(name(dir, 2), 5)) },
		"flipped chunk":  func(dir string) { flipBit(t, name(dir, 1), 3000) },
		"no files":       func(dir string) { require.NoError(t, os.RemoveAll(filepath.Join(dir, headChunksDirName))) },
		"broken length":  func(dir string) { flipBit(t, name(dir, 1), chunks.HeadChunkFileHeaderSize+headChunkFixed) },
		"broken at last": func(dir string) { flipBit(t, name(dir, 2), 4000) },
	}
	for what, breakIt := range cases {
		t.Run(what, func(t *testing.T) {
			dir := crashImage(t, origin)
			breakIt(dir)
			o := openDisk(t, dir)
			require.Empty(t, o.Report.LostWAL, "the logs hold it all")
			require.Empty(t, asideFolders(t, dir))
			require.Zero(t, ledger.missing(t, held(t, o.DB)))
			corruptions, err := counterValue(o.Registry, "prometheus_tsdb_mmap_chunk_corruptions_total")
			require.NoError(t, err)
			require.Zero(t, corruptions, "nothing was left for stock to repair")
			compactLate(t, o.DB)
			require.NoError(t, o.DB.Close())
			require.Zero(t, ledger.missing(t, held(t, openDisk(t, dir).DB)))
		})
	}
}

func TestHeadChunkScanAgreesWithStock(t *testing.T) {
	origin := t.TempDir()
	a := openDisk(t, origin)
	fill(t, a.DB, diskLedger{}, 50, 0, 500)
	a.DB.ForceHeadMMap()
	require.NoError(t, a.DB.Close())
	r := rand.New(rand.NewPCG(5, 6))
	path := filepath.Join(origin, headChunksDirName, "000001")
	for range 60 {
		dir := crashImage(t, origin)
		broken := filepath.Join(dir, headChunksDirName, "000001")
		flipBit(t, broken, r.Int64N(fileSize(t, path)))
		h, err := scanHeadChunks(dir)
		require.NoError(t, err)
		_, err = h.repair(t.TempDir())
		require.NoError(t, err)
		m, err := chunks.NewChunkDiskMapper(nil, filepath.Join(dir, headChunksDirName), nil, chunks.MinWriteBufferSize, 0)
		require.NoError(t, err)
		last := chunks.ChunkDiskMapperRef(0)
		highest := uint64(0)
		require.NoError(t, m.IterateAllChunks(func(series chunks.HeadSeriesRef, ref chunks.ChunkDiskMapperRef, _, _ int64,
			_ uint16, _ chunkenc.Encoding, _ bool,
		) error {
			last, highest = ref, max(highest, uint64(series))
			return nil
		}))
		require.NoError(t, m.Close())
		require.Equal(t, last, h.last)
		require.Equal(t, highest, h.highestSeries)
	}
}

// Whatever bytes of whatever file are damaged, the tenant opens, invents nothing, and reports or holds everything.
func TestAnyDamageToTheLogsIsHeldOrReported(t *testing.T) {
	image, ledger := logWithCheckpoint(t)
	r := rand.New(rand.NewPCG(11, uint64(len(image))))
	for range rounds(25, 8) {
		dir := crashImage(t, image)
		var files []string
		for _, pattern := range []string{"wal/0*", "wal/checkpoint.*/0*", "wbl/0*", "chunks_head/0*"} {
			found, err := filepath.Glob(filepath.Join(dir, pattern))
			require.NoError(t, err)
			files = append(files, found...)
		}
		path := files[r.IntN(len(files))]
		size := fileSize(t, path)
		if size == 0 {
			continue
		}
		off := r.Int64N(size)
		if r.IntN(2) == 0 {
			flipBit(t, path, off)
		} else {
			require.NoError(t, os.Truncate(path, off))
		}
		o := openDisk(t, dir)
		lost := ledger.missing(t, held(t, o.DB))
		if lost > 0 && len(o.Report.LostWAL) == 0 {
			require.NotEmpty(t, o.Report.TornTails, "%s at %d: %d samples lost in silence", path, off, lost)
		}
		require.NoError(t, o.DB.Close())
		o = openDisk(t, dir)
		require.LessOrEqual(t, ledger.missing(t, held(t, o.DB)), lost, "%s at %d: a restart lost more", path, off)
		require.NoError(t, o.DB.Close())
	}
}

func TestInterruptedOpen(t *testing.T) {
	dir := t.TempDir()
	a := openDisk(t, dir)
	fill(t, a.DB, diskLedger{}, 10, 0, 10)
	require.NoError(t, a.DB.Close())

	aside := filepath.Join(dir, asidePrefix+"1")
	require.NoError(t, os.Mkdir(aside, 0o777))
	require.NoError(t, linkTree(filepath.Join(dir, walDirName), filepath.Join(aside, walDirName)))
	lost, err := keptAside(dir)
	require.NoError(t, err)
	require.Empty(t, lost)
	require.NoDirExists(t, aside, "nothing was repaired yet")

	require.NoError(t, os.Mkdir(aside, 0o777))
	require.NoError(t, linkTree(filepath.Join(dir, walDirName), filepath.Join(aside, walDirName)))
	require.NoError(t, os.Remove(filepath.Join(dir, walDirName, "00000000")))
	lost, err = keptAside(dir)
	require.NoError(t, err)
	require.Len(t, lost, 1)
	require.FileExists(t, filepath.Join(aside, asideReport))
	again, err := keptAside(dir)
	require.NoError(t, err)
	require.Equal(t, lost, again)
}

func TestSyncFailedRenewsTheNewestSegments(t *testing.T) {
	dir := t.TempDir()
	ledger := diskLedger{}
	a := openDisk(t, dir)
	fill(t, a.DB, ledger, 50, 0, 400)
	require.NoError(t, a.DB.Close())
	segments := segmentsOf(t, dir, walDirName)
	last := segments[len(segments)-1]
	before, err := os.Stat(last)
	require.NoError(t, err)
	o, err := openTSDB(context.Background(), openOptions{
		Dir: dir, TSDB: diskOptions(), Log: discardLog(), SyncFailed: true,
	})
	require.NoError(t, err)
	defer func() { require.NoError(t, o.DB.Close()) }()
	after, err := os.Stat(last)
	require.NoError(t, err)
	require.False(t, os.SameFile(before, after), "the pages of the old file are not to be trusted")
	require.Zero(t, ledger.missing(t, held(t, o.DB)))
}

func TestGuardSeriesIsNotVisible(t *testing.T) {
	dir := t.TempDir()
	o := openDisk(t, dir)
	fill(t, o.DB, diskLedger{}, 2, 0, 2)
	require.NoError(t, o.DB.Close())
	logs := &tenantLogs{dir: dir, refs: logRefs{defined: 2, used: 40}}
	require.NoError(t, logs.guardRefs(0))
	o = openDisk(t, dir)
	require.EqualValues(t, 2, o.DB.Head().NumSeries())
	q, err := o.DB.Querier(math.MinInt64, math.MaxInt64)
	require.NoError(t, err)
	names, _, err := q.LabelNames(context.Background(), nil)
	require.NoError(t, err)
	require.Equal(t, []string{labels.MetricName}, names)
	require.NoError(t, q.Close())
}
