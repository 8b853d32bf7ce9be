package ingester

import (
	"context"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
)

// diskSegmentSize is small, so that a few thousand samples make many segments.
const diskSegmentSize = 4 * logPageSize

// diskLedger is what a TSDB must hold: series → time → value.
type diskLedger map[string]map[int64]float64

func (l diskLedger) add(series string, ts int64, v float64) {
	if l[series] == nil {
		l[series] = map[int64]float64{}
	}
	l[series][ts] = v
}

func (l diskLedger) size() (n int) {
	for _, samples := range l {
		n += len(samples)
	}
	return n
}

// missing returns how many samples of l are not in held, and fails the test for a sample of held that l does not have.
func (l diskLedger) missing(t testing.TB, held diskLedger) (n int) {
	t.Helper()
	for series, samples := range held {
		for ts, v := range samples {
			if want, ok := l[series][ts]; !ok || want != v { // an assertion for each sample takes most of the time
				t.Fatalf("%s has %v at %d, sent was %v (%v)", series, v, ts, want, ok)
			}
		}
	}
	for series, samples := range l {
		for ts := range samples {
			if _, ok := held[series][ts]; !ok {
				n++
			}
		}
	}
	return n
}

func diskOptions() *tsdb.Options {
	o := tsdb.DefaultOptions()
	o.RetentionDuration = 0
	o.WALSegmentSize = diskSegmentSize
	o.StripeSize = 1024
	o.HeadChunksWriteBufferSize = 64 << 10
	o.OutOfOrderTimeWindow = 3 * time.Hour.Milliseconds()
	o.EnableOverlappingCompaction = false
	o.NoLockfile = true
	o.BlocksToDelete = func([]*tsdb.Block) map[ulid.ULID]struct{} { return nil }
	return o
}

func discardLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

// openDisk opens dir as the ingester does and closes it at the end of the test unless it is closed before.
func openDisk(t testing.TB, dir string) *openedTSDB {
	t.Helper()
	o, err := openTSDB(context.Background(), openOptions{Dir: dir, TSDB: diskOptions(), Log: discardLog()})
	require.NoError(t, err)
	o.DB.DisableCompactions()
	t.Cleanup(func() { _ = o.DB.Close() })
	return o
}

// diskSample is one sample to append.
type diskSample struct {
	series string
	ts     int64
	v      float64
}

// commit appends in one transaction and enters the samples into the ledger once Commit returned.
func commit(t testing.TB, db *tsdb.DB, ledger diskLedger, samples ...diskSample) {
	t.Helper()
	app := db.Appender(context.Background())
	for _, s := range samples {
		if _, err := app.Append(0, labels.FromStrings(labels.MetricName, s.series), s.ts, s.v); err != nil {
			t.Fatalf("append %+v: %v", s, err)
		}
	}
	require.NoError(t, app.Commit())
	for _, s := range samples {
		ledger.add(s.series, s.ts, s.v)
	}
}

// diskStart is a round time; tests count from it.
const diskStart = int64(1_700_000_000_000) / 7_200_000 * 7_200_000

// fill commits n rounds of one sample for each of series, 15 s apart, beginning with round from.
func fill(t testing.TB, db *tsdb.DB, ledger diskLedger, series, from, n int) {
	t.Helper()
	for i := from; i < from+n; i++ {
		batch := make([]diskSample, 0, series)
		for s := range series {
			batch = append(batch, diskSample{fmt.Sprintf("series_%d", s), diskStart + int64(i)*15_000, float64(i*series + s)})
		}
		commit(t, db, ledger, batch...)
	}
}

// fillLate commits n samples out of order for each of series: the same times as fill, 1 ms later.
func fillLate(t testing.TB, db *tsdb.DB, ledger diskLedger, series, from, n int) {
	t.Helper()
	for i := from; i < from+n; i++ {
		batch := make([]diskSample, 0, series)
		for s := range series {
			ts := diskStart + int64(i)*15_000 + 1
			batch = append(batch, diskSample{fmt.Sprintf("series_%d", s), ts, -float64(i*series + s)})
		}
		commit(t, db, ledger, batch...)
	}
}

// held reads everything.
func held(t testing.TB, q storage.Queryable) diskLedger {
	t.Helper()
	querier, err := q.Querier(math.MinInt64, math.MaxInt64)
	require.NoError(t, err)
	defer func() { require.NoError(t, querier.Close()) }()
	out := diskLedger{}
	all := labels.MustNewMatcher(labels.MatchRegexp, labels.MetricName, ".*")
	set := querier.Select(context.Background(), true, nil, all)
	for set.Next() {
		name := set.At().Labels().Get(labels.MetricName)
		require.NotEmpty(t, name, "a series that nobody sent: %s", set.At().Labels())
		it := set.At().Iterator(nil)
		for it.Next() != chunkenc.ValNone {
			ts, v := it.At()
			out.add(name, ts, v)
		}
		require.NoError(t, it.Err())
	}
	require.NoError(t, set.Err())
	return out
}

// crashImage copies a folder as a kill would leave it: what was written is there, what was buffered is not.
func crashImage(t testing.TB, dir string) string {
	t.Helper()
	to := t.TempDir()
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o777)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), data, 0o666)
	}))
	return to
}

// segmentsOf lists the segment files of a log, oldest first, without empty ones at the end.
func segmentsOf(t testing.TB, dir, log string) []string {
	t.Helper()
	numbers, err := segmentNumbers(filepath.Join(dir, log))
	require.NoError(t, err)
	var out []string
	for _, n := range numbers {
		out = append(out, filepath.Join(dir, log, fmt.Sprintf("%08d", n)))
	}
	for len(out) > 0 && fileSize(t, out[len(out)-1]) == 0 {
		out = out[:len(out)-1]
	}
	return out
}

func fileSize(t testing.TB, path string) int64 {
	t.Helper()
	st, err := os.Stat(path)
	require.NoError(t, err)
	return st.Size()
}

// flipBit changes one bit of a file.
func flipBit(t testing.TB, path string, off int64) {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	data[off] ^= 0x10
	require.NoError(t, os.WriteFile(path, data, 0o666))
}

// recordOffsets returns where the records of a segment begin, and where the last one ends.
func recordOffsets(t testing.TB, path string) (begins []int64, end int64) {
	t.Helper()
	s := &segmentScanner{}
	f, err := os.Open(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	bad, _, err := scanSegmentFrom(f, nil)
	require.NoError(t, err)
	require.Empty(t, bad)
	_, err = f.Seek(0, 0)
	require.NoError(t, err)
	s.r = f
	for page := int64(0); ; page += logPageSize {
		more, err := s.nextPage()
		require.NoError(t, err)
		for pos := 0; pos < s.have && s.page[pos] != 0; {
			n, err := (&segmentScanner{page: s.page, have: s.have, crc: crc32.MakeTable(crc32.Castagnoli)}).fragment(pos)
			require.NoError(t, err)
			if kind := s.page[pos] & fragmentKind; kind == kindFull || kind == kindFirst {
				begins = append(begins, page+int64(pos))
			}
			pos += n
			end = page + int64(pos)
		}
		if !more {
			return begins, end
		}
	}
}

func asideFolders(t testing.TB, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, asidePrefix+"*"))
	require.NoError(t, err)
	return found
}
