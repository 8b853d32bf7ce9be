package ingester

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Each kind of damage to one block sets that block aside alone; the tenant opens with all the others.
func TestBrokenBlockIsQuarantinedAlone(t *testing.T) {
	origin, ledger := cutBlocks(t, 3)
	dirs, err := blockDirs(origin)
	require.NoError(t, err)
	var victim string
	for id := range dirs {
		if victim == "" || id.String() < victim {
			victim = id.String() // the first block: [diskStart, diskStart+2h)
		}
	}
	write := func(t *testing.T, path, text string) {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o666))
	}
	cut := func(share float64) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			require.NoError(t, os.Truncate(path, int64(share*float64(fileSize(t, path)))))
		}
	}
	flip := func(share float64) func(*testing.T, string) {
		return func(t *testing.T, path string) { flipBit(t, path, int64(share*float64(fileSize(t, path)-1))) }
	}
	remove := func(t *testing.T, path string) { require.NoError(t, os.RemoveAll(path)) }
	swap := func(from, to string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Contains(t, string(data), from)
			write(t, path, strings.Replace(string(data), from, to, 1))
		}
	}
	for _, tc := range []struct {
		name, file string
		damage     func(*testing.T, string)
		unknown    bool // the range cannot be told
	}{
		{"meta missing", "meta.json", remove, false},
		{"meta empty", "meta.json", cut(0), false},
		{"meta truncated", "meta.json", cut(0.5), false},
		{"meta garbage", "meta.json", func(t *testing.T, path string) { write(t, path, "]") }, false},
		{"meta version", "meta.json", swap(`"version": 1`, `"version": 9`), false},
		{"meta of another block", "meta.json", swap(victim, "01BX5ZZKBKACTAV9WEVGEMMVS0"), false},
		{"meta counts", "meta.json", swap(`"numSamples": `, `"numSamples": 1`), false},
		{"index missing", "index", remove, false},
		{"index empty", "index", cut(0), false},
		{"index truncated", "index", cut(0.5), false},
		{"index flipped at its end", "index", flip(0.99), false},
		{"index flipped in series", "index", flip(0.3), false},
		{"chunks missing", "chunks", remove, false},
		{"chunk file missing", "chunks/000001", remove, false},
		{"chunk file empty", "chunks/000001", cut(0), false},
		{"chunk file truncated", "chunks/000001", cut(0.7), false},
		{"chunk file flipped", "chunks/000001", flip(0.5), false},
		{"chunk file magic", "chunks/000001", flip(0), false},
		{"tombstones garbage", "tombstones", func(t *testing.T, path string) { write(t, path, "not tombstones") }, false},
		{"nothing left", "", func(t *testing.T, path string) {
			remove(t, path)
			require.NoError(t, os.Mkdir(path, 0o777))
		}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := crashImage(t, origin)
			write(t, filepath.Join(dir, openMarkName), "") // after an unclean stop all of a block is read
			tc.damage(t, filepath.Join(dir, victim, tc.file))
			o := openDisk(t, dir)
			require.Len(t, o.DB.Blocks(), 2)
			require.Len(t, o.Report.Quarantined, 1)
			q := o.Report.Quarantined[0]
			require.Equal(t, victim, q.ULID.String())
			require.NotEmpty(t, q.Reason)
			require.Equal(t, filepath.Join(dir, quarantineDirName, victim), q.Dir)
			require.DirExists(t, q.Dir)
			require.NoDirExists(t, filepath.Join(dir, victim))
			if tc.unknown {
				require.Equal(t, []int64{math.MinInt64, math.MaxInt64}, []int64{q.MinTime, q.MaxTime})
			} else {
				require.Equal(t, diskStart, q.MinTime)
				require.Greater(t, q.MaxTime, diskStart+7_100_000)
				require.LessOrEqual(t, q.MaxTime, diskStart+7_200_000)
			}
			require.Equal(t, !tc.unknown, q.Known)
			require.Equal(t, 5*480, ledger.missing(t, held(t, o.DB)), "the other blocks are served whole")
			require.NoError(t, o.DB.Close())
			require.NoError(t, markClean(dir))

			again := openDisk(t, dir)
			require.Equal(t, o.Report.Quarantined, again.Report.Quarantined, "told at each open until it is removed")
			require.NoError(t, again.DB.Close())
			require.NoError(t, os.RemoveAll(filepath.Join(dir, quarantineDirName)))
			require.Empty(t, openDisk(t, dir).Report.Quarantined)
		})
	}
}

func TestAnyDamageToABlockIsHeldOrQuarantined(t *testing.T) {
	origin, ledger := cutBlocks(t, 2)
	r := rand.New(rand.NewPCG(8, 8))
	for range rounds(40, 15) {
		dir := crashImage(t, origin)
		require.NoError(t, os.WriteFile(filepath.Join(dir, openMarkName), nil, 0o666))
		files, err := filepath.Glob(filepath.Join(dir, "01*", "*"))
		require.NoError(t, err)
		chunkFiles, err := filepath.Glob(filepath.Join(dir, "01*", "chunks", "*"))
		require.NoError(t, err)
		files = append(files, chunkFiles...)
		path := files[r.IntN(len(files))]
		st, err := os.Stat(path)
		require.NoError(t, err)
		if st.IsDir() {
			continue
		}
		off := r.Int64N(st.Size())
		flipBit(t, path, off)
		o := openDisk(t, dir)
		lost := ledger.missing(t, held(t, o.DB))
		what := fmt.Sprintf("%s at %d", path, off)
		// Samples of a block that is set aside may still be in the log, which replays what is behind the newest block.
		require.False(t, lost > 0 && len(o.Report.Quarantined) == 0, what)
		require.Len(t, o.DB.Blocks(), 2-len(o.Report.Quarantined), what)
		require.NoError(t, o.DB.Close())
	}
}

func TestBlocksLeftInCreationAreNotBlocks(t *testing.T) {
	dir, ledger := cutBlocks(t, 1)
	for _, name := range []string{
		"01BX5ZZKBKACTAV9WEVGEMMVS0.tmp-for-creation", "01BX5ZZKBKACTAV9WEVGEMMVS1.tmp-for-deletion",
	} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o777))
	}
	o := openDisk(t, dir)
	require.Empty(t, o.Report.Quarantined)
	require.Zero(t, ledger.missing(t, held(t, o.DB)))
}
