// Package oracle compares what is read of a bucket before, while and after its blocks are compacted: through the store's
// reader at every moment, and with Prometheus' own block reader at the end. It holds tests only; a seed that fails is repeated
// with go test ./compactor/oracle -args -compaction.from=SEED -compaction.seeds=1. Read world_test.go next for how the
// compactor is set up, and package blockgen for the blocks.
package oracle

import (
	"flag"
	"log/slog"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

var (
	firstSeed = flag.Uint64("compaction.from", 0, "the first seed")
	seeds     = flag.Int("compaction.seeds", defaultSeeds, "how many seeds, one after the other")
	allFaults = flag.Bool("compaction.all-faults", false, "let each read of the bucket fail in each way, not in one")
)

var nopLog = slog.New(slog.DiscardHandler)

func TestMain(m *testing.M) {
	flag.Parse()
	goleak.VerifyTestMain(m)
}

// memoryDir is where files lie for a moment; empty means the usual place.
var memoryDir = func() string {
	const dir = "/dev/shm"
	if f, err := os.CreateTemp(dir, ""); err == nil && f.Close() == nil && os.Remove(f.Name()) == nil {
		return dir
	}
	return ""
}()

// tempDir is a folder in memory where that is possible.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(memoryDir, "") //nolint:usetesting // it is many small files, each of them synced
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// eachSeed runs fn for share of the seeds asked for, at least one, divided among some goroutines.
func eachSeed(t *testing.T, share float64, fn func(t *testing.T, seed uint64)) {
	t.Helper()
	const workers = 2
	n := max(1, int(share*float64(*seeds)))
	for w := range workers {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			for i := w; i < n && !t.Failed(); i += workers {
				t.Run("", func(t *testing.T) { fn(t, *firstSeed+uint64(i)) })
			}
		})
	}
}
