package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/chunkstore/blockgen"
	"github.com/duramendb/duramen/chunkstore/bucket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// folder returns an empty folder, in memory where there is room: the disk cache gives way on a volume that runs full, and
// then reads of the bucket are right.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "duramen-bench-") //nolint:usetesting // which is on a disk
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	free, err := freeBytes(dir)
	require.NoError(t, err)
	if free < spareBytes {
		t.Skipf("%s has %d bytes free; the disk cache would give way below %d", dir, free, spareBytes)
	}
	return dir
}

// small is 30 daily blocks that fit a test.
func small(t *testing.T) (*data, bucket.Bucket) {
	t.Helper()
	d := &data{days: 30, grid: blockgen.Grid{Seed: 1, Metrics: minMetrics, Series: 24, Interval: 240_000, Start: start}}
	bkt := bucket.NewInMemory()
	require.NoError(t, d.grid.Days(d.days, func(_ int, b *blockgen.Block) error {
		d.add([]*blockgen.Block{b})
		return b.Put(t.Context(), bkt, tenant)
	}))
	return d, bkt
}

// TestBars holds what does not depend on the machine. In fake time all that passes is what operations wait for one another.
func TestBars(t *testing.T) {
	d, bkt := small(t)
	dir := folder(t)
	synctest.Test(t, func(t *testing.T) {
		const latency = 40 * time.Millisecond
		costs, err := d.cold(t.Context(), bkt, filepath.Join(dir, "cache"), latency)
		require.NoError(t, err)
		require.Empty(t, misses(costs, d.days))
		for _, c := range costs {
			if !c.slow {
				continue
			}
			allowed := 2 * latency
			if !c.known {
				allowed += latency
			}
			if c.again {
				allowed = 0
			}
			require.LessOrEqual(t, c.took, allowed, c.name)
			require.LessOrEqual(t, c.waves, int(allowed/latency), c.name)
		}
	})
}

// TestSidecarIsSmall: at most 3 % of a day's block with a sample a minute.
func TestSidecarIsSmall(t *testing.T) {
	g := blockgen.Grid{Seed: 1, Metrics: 3, Series: 100, Interval: 60_000, Start: start}
	require.NoError(t, g.Days(1, func(_ int, b *blockgen.Block) error {
		require.Less(t, float64(b.Entry.SidecarBytes), 0.03*float64(b.Entry.SizeBytes))
		return nil
	}))
}

// TestWarmAnswersAreEqual: what the comparison with Prometheus compares are equal answers.
func TestWarmAnswersAreEqual(t *testing.T) {
	d := &data{days: 3, grid: blockgen.Grid{Seed: 1, Metrics: minMetrics, Series: 50, Interval: 600_000, Start: start}}
	dir := folder(t)
	bkt, err := d.write(dir)
	require.NoError(t, err)
	costs, err := d.warm(context.Background(), bkt, filepath.Join(dir, "cache"), filepath.Join(dir, "bucket", tenant), 1)
	require.NoError(t, err)
	for _, c := range costs {
		require.Zero(t, c.gets, "%s: a warm query reads nothing from the bucket", c.query.text)
	}
	require.NoError(t, d.sidecar(t.Context(), bkt))
}

func TestMissesSeesWhatIsMissed(t *testing.T) {
	good := cost{known: true, slow: true, perBlock: 2, gets: 60, waves: 2, bytes: 110, needed: 100, most: 4}
	require.Empty(t, misses([]cost{good}, 30))
	for _, spoil := range []func(*cost){
		func(c *cost) { c.perBlock = 3 },
		func(c *cost) { c.gets = 61 },
		func(c *cost) { c.waves = 3 },
		func(c *cost) { c.bytes = 121 },
		func(c *cost) { c.one, c.most = true, 65<<10 },
		func(c *cost) { c.again, c.gets = true, 1 },
	} {
		bad := good
		spoil(&bad)
		require.Len(t, misses([]cost{bad}, 30), 1+map[bool]int{true: 2}[bad.again])
	}
}
