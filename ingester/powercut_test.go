package ingester

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"
)

// powerRecorder notes what the syncs of walSync made durable: sizes of files and names in folders, as they were when
// the sync began. What it did not see synced may be lost in a power cut.
type powerRecorder struct {
	mu    sync.Mutex
	sizes map[string]int64
	names map[string]map[string]bool
}

func newPowerRecorder(t *testing.T, root string) *powerRecorder {
	p := &powerRecorder{sizes: map[string]int64{}, names: map[string]map[string]bool{}}
	p.everything(t, root)() // openTSDB has synced what it leaves
	return p
}

// everything returns a function that enters the present state as durable.
func (p *powerRecorder) everything(t *testing.T, root string) func() {
	sizes, names := map[string]int64{}, map[string]map[string]bool{}
	_ = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // removed meanwhile
		}
		if path != root {
			names[filepath.Dir(path)][e.Name()] = true
		}
		if e.IsDir() {
			names[path] = map[string]bool{}
			return nil
		}
		if st, err := e.Info(); err == nil {
			sizes[path] = st.Size()
		}
		return nil
	})
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		maps.Copy(p.sizes, sizes)
		maps.Copy(p.names, names)
	}
}

func (p *powerRecorder) calls(t *testing.T, root string) syncCalls {
	return syncCalls{
		file: func(f *os.File) error {
			st, err := f.Stat()
			if err == nil {
				err = fdatasync(f)
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			p.sizes[f.Name()] = st.Size()
			return err
		},
		dir: func(path string) error {
			entries, err := os.ReadDir(path)
			if err == nil {
				err = syncDir(path)
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			p.names[path] = map[string]bool{}
			for _, e := range entries {
				p.names[path][e.Name()] = true
			}
			return err
		},
		volume: func(f *os.File) error {
			enter := p.everything(t, root)
			err := syncfs(f)
			enter()
			return err
		},
	}
}

// cut copies root as a power cut could leave it. With lucky, some of what was not synced is there too: longer files
// with pages of zeros in them, and names. Blocks and checkpoints are whole: stock syncs them before it renames them.
func (p *powerRecorder) cut(t *testing.T, root string, r *rand.Rand, lucky bool) string {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	to := t.TempDir()
	require.NoError(t, filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		whole := stockSyncs(rel)
		if !whole && !p.names[filepath.Dir(path)][e.Name()] && (!lucky || r.IntN(2) == 0) {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o777)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !whole {
			data = surviving(data, min(p.sizes[path], int64(len(data))), r, lucky)
		}
		return os.WriteFile(filepath.Join(to, rel), data, 0o666)
	}))
	return to
}

func stockSyncs(rel string) bool {
	for part := range strings.SplitSeq(rel, string(filepath.Separator)) {
		if _, err := ulid.ParseStrict(part); err == nil || strings.HasPrefix(part, "checkpoint.") {
			return true
		}
	}
	return false
}

// surviving returns the synced part of a file and, with lucky, some pages behind it.
func surviving(data []byte, synced int64, r *rand.Rand, lucky bool) []byte {
	if !lucky {
		return data[:synced]
	}
	data = data[:synced+r.Int64N(int64(len(data))-synced+1)]
	const page = 4096
	for off := synced; off < int64(len(data)); off = (off/page + 1) * page {
		if r.IntN(4) == 0 {
			clear(data[off:min((off/page+1)*page, int64(len(data)))])
		}
	}
	return data
}

// powerLoad appends rounds of in-order samples, late ones and new series, each in one commit.
type powerLoad struct {
	r      *rand.Rand
	db     *tsdb.DB
	round  int
	series int
}

func (l *powerLoad) next(t *testing.T, into diskLedger) {
	t.Helper()
	l.round++
	if l.round%7 == 0 {
		l.series += 2
	}
	now := diskStart + int64(l.round)*15_000
	var batch []diskSample
	for s := range l.series {
		name := fmt.Sprintf("series_%d", s)
		batch = append(batch, diskSample{name, now, l.r.Float64()})
		if l.round > 20 && s%3 == 0 {
			batch = append(batch, diskSample{name, now - 60_000 + 1 + int64(s), l.r.Float64()})
		}
	}
	commit(t, l.db, into, batch...)
}

// checkCut opens what a power cut left and requires all of acked. No sample may be there that was not sent, also not
// after new series were created and everything was replayed once more.
func checkCut(t *testing.T, dir string, acked, sent diskLedger) {
	t.Helper()
	o := openDisk(t, dir)
	got := held(t, o.DB)
	sent.missing(t, got)
	require.Zero(t, acked.missing(t, only(got, acked)), "acknowledged samples lost; report %+v", o.Report)
	more := diskLedger{}
	for i := range 40 {
		commit(t, o.DB, more, diskSample{fmt.Sprintf("after_%d", i), diskStart + 10_000_000, 1})
	}
	require.NoError(t, o.DB.Close())
	o = openDisk(t, dir)
	again := held(t, o.DB)
	for series, samples := range more {
		require.Equal(t, samples, again[series], "samples of another series")
		delete(again, series)
	}
	require.Equal(t, got, again, "a restart changed what is held")
	require.NoError(t, o.DB.Close())
}

func merge(ledgers ...diskLedger) diskLedger {
	out := diskLedger{}
	for _, l := range ledgers {
		for series, samples := range l {
			for ts, v := range samples {
				out.add(series, ts, v)
			}
		}
	}
	return out
}

func TestPowerCutWithSyncCommitLosesNothing(t *testing.T) {
	for _, lucky := range []bool{false, true} {
		t.Run(fmt.Sprintf("lucky=%v", lucky), func(t *testing.T) {
			root := t.TempDir()
			dir := filepath.Join(root, "tenant")
			o := openDisk(t, dir)
			r := rand.New(rand.NewPCG(17, 18))
			p := newPowerRecorder(t, root)
			w := newWALSync(SyncCommit, root, nil, discardLog(), nil)
			w.calls = p.calls(t, root)
			defer w.closed(dir)
			acked := diskLedger{}
			load := powerLoad{r: r, db: o.DB, series: 30}
			commits := rounds(400, 200)
			for i := range commits {
				flying := diskLedger{}
				load.next(t, flying)
				if i%67 == 13 { // the answer is not given yet
					checkCut(t, filepath.Join(p.cut(t, root, r, lucky), "tenant"), acked, merge(acked, flying))
				}
				require.NoError(t, w.committed(context.Background(), dir))
				acked = mergeInto(acked, flying)
				if i%67 == 31 || i == commits-1 {
					checkCut(t, filepath.Join(p.cut(t, root, r, lucky), "tenant"), acked, acked)
				}
				if i == commits*3/4 { // a block, head chunks, new segments
					o.DB.ForceHeadMMap()
					head := o.DB.Head()
					require.NoError(t, o.DB.CompactHead(tsdb.NewRangeHead(head, head.MinTime(), diskStart+3_600_000-1)))
				}
			}
			require.Greater(t, len(segmentsOf(t, dir, walDirName)), rounds(3, 1))
		})
	}
}

func mergeInto(to, from diskLedger) diskLedger {
	for series, samples := range from {
		for ts, v := range samples {
			to.add(series, ts, v)
		}
	}
	return to
}

func TestPowerCutWithSyncIntervalLosesAtMostTheLastInterval(t *testing.T) {
	for _, lucky := range []bool{false, true} {
		t.Run(fmt.Sprintf("lucky=%v", lucky), func(t *testing.T) {
			root := t.TempDir()
			dir := filepath.Join(root, "tenant")
			o := openDisk(t, dir)
			r := rand.New(rand.NewPCG(27, 28))
			p := newPowerRecorder(t, root)
			w := newWALSync(SyncInterval, root, nil, discardLog(), nil)
			ticks := make(chan time.Time)
			w.ticks, w.calls = ticks, p.calls(t, root)
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error)
			go func() { done <- w.run(ctx) }()
			defer func() { cancel(); require.NoError(t, <-done) }()

			synced, since := diskLedger{}, diskLedger{}
			load := powerLoad{r: r, db: o.DB, series: 30}
			lost := 0
			commits := rounds(300, 180)
			for i := range commits {
				load.next(t, since)
				require.NoError(t, w.committed(ctx, dir))
				if i%67 == 31 || i == commits-1 {
					cut := filepath.Join(p.cut(t, root, r, lucky), "tenant")
					checkCut(t, cut, synced, merge(synced, since))
					lost += len(since)
				}
				if i%10 == 5 { // a second has passed
					ticks <- time.Time{}
					ticks <- time.Time{} // accepted when the sync is over
					synced, since = mergeInto(synced, since), diskLedger{}
				}
			}
			require.Positive(t, lost, "the test must cut between two syncs")
		})
	}
}

// Without the syncs the same cut does lose samples: the harness can fail.
func TestPowerCutWithoutSyncLoses(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "tenant")
	o := openDisk(t, dir)
	r := rand.New(rand.NewPCG(37, 38))
	p := newPowerRecorder(t, root)
	sent := diskLedger{}
	load := powerLoad{r: r, db: o.DB, series: 30}
	for range 50 {
		load.next(t, sent)
	}
	cut := openDisk(t, filepath.Join(p.cut(t, root, r, false), "tenant"))
	require.Equal(t, sent.size(), sent.missing(t, held(t, cut.DB)))
}
