// Package oracle compares what the store answers with what Prometheus' own block reader answers over the same blocks, for
// random blocks, matchers and ranges, whole and damaged. It holds tests only; a seed that fails is repeated with
// go test ./chunkstore/oracle -args -oracle.from=SEED -oracle.seeds=1. Read package blockgen for the blocks.
package oracle

import (
	"flag"
	"log/slog"
	"os"
	"testing"

	"go.uber.org/goleak"
)

var (
	firstSeed = flag.Uint64("oracle.from", 0, "the first seed")
	seeds     = flag.Int("oracle.seeds", defaultSeeds, "how many seeds, one after the other")
)

var nopLog = slog.New(slog.DiscardHandler)

// memoryDir is where the reference's blocks lie for a moment; empty means the usual place.
var memoryDir = func() string {
	const dir = "/dev/shm"
	if f, err := os.CreateTemp(dir, ""); err == nil && f.Close() == nil && os.Remove(f.Name()) == nil {
		return dir
	}
	return ""
}()

func TestMain(m *testing.M) {
	flag.Parse()
	goleak.VerifyTestMain(m)
}

// eachSeed runs fn for share of the seeds asked for, divided among some goroutines.
func eachSeed(t *testing.T, share float64, fn func(t *testing.T, seed uint64)) {
	t.Helper()
	const workers = 4
	n := max(1, int(share*float64(*seeds)))
	for w := range workers {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			for i := w; i < n && !t.Failed(); i += workers {
				fn(t, *firstSeed+uint64(i))
			}
		})
	}
}
