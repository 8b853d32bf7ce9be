package merge

import (
	"flag"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/blockgen"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

var (
	seeds = flag.Uint64("merge.seeds", rounds(300, 10), "how many worlds of random blocks are merged")
	from  = flag.Uint64("merge.from", 1, "seed of the first of them")
)

// rounds is how often a test repeats itself, without the race detector and with it.
func rounds(without, with uint64) uint64 {
	if raceDetector {
		return with
	}
	return without
}

// TestRandomBlocks merges worlds of random blocks and compares each sample with what a merge in memory gives.
func TestRandomBlocks(t *testing.T) {
	var sum Result
	for seed := *from; seed < *from+*seeds; seed++ {
		r := rand.New(rand.NewPCG(seed, 6))
		result := checkWorld(t, randomWorld(t, r), seed)
		if t.Failed() {
			t.Fatalf("repeat with: go test ./compactor/merge -run TestRandomBlocks -args -merge.from=%d -merge.seeds=1", seed)
		}
		sum.Deleted += result.Deleted
		sum.Conflicts += result.Conflicts
		sum.Duplicates += result.Duplicates
		sum.ChunksCopied += result.ChunksCopied
		sum.ChunksEncoded += result.ChunksEncoded
		sum.ChunksDropped += result.ChunksDropped
	}
	if *seeds >= 100 {
		for what, n := range map[string]uint64{
			"deleted": sum.Deleted, "conflicts": sum.Conflicts, "duplicates": sum.Duplicates, "copied": sum.ChunksCopied,
			"encoded": sum.ChunksEncoded, "dropped": sum.ChunksDropped,
		} {
			require.NotZero(t, n, what)
		}
	}
}

// randomWorld returns blocks as blockgen makes them, some of them as no sound writer would leave them: chunks of a
// series out of order and overlapping, and half of the worlds with deletions.
func randomWorld(t testing.TB, r *rand.Rand) *world {
	t.Helper()
	g, err := blockgen.NewRandom(r)
	require.NoError(t, err)
	w := &world{blocks: g.Blocks, series: g.Series}
	if r.IntN(3) == 0 {
		w.disturb(t, r, r.IntN(len(w.blocks)))
	}
	if r.IntN(2) == 0 {
		w.deletions = make([][]manifest.Deletion, len(w.blocks))
		for id := range 1 + r.Uint64N(3) {
			d := randomDeletion(r, g, id+1)
			for i := range w.deletions {
				if r.IntN(4) > 0 {
					w.deletions[i] = append(w.deletions[i], d)
				}
			}
		}
	}
	return w
}

func randomDeletion(r *rand.Rand, g *blockgen.Random, id uint64) manifest.Deletion {
	d := manifest.Deletion{ID: id, MinTime: math.MinInt64, MaxTime: math.MaxInt64}
	length := g.MaxTime - g.MinTime
	if r.IntN(4) > 0 {
		d.MinTime = g.MinTime + r.Int64N(length)
		d.MaxTime = d.MinTime + r.Int64N(length)
	}
	for range 1 + r.IntN(2) {
		selector := fmt.Sprintf(`i=~".*[%d-%d]"`, r.IntN(5), 5+r.IntN(5))
		if r.IntN(2) == 0 {
			selector += `,__name__` + []string{`!="m0"`, `="m0"`, `=~"m0|m1"`, `=~"m.*"`}[r.IntN(4)]
		}
		d.Selectors = append(d.Selectors, "{"+selector+"}")
	}
	return d
}

// disturb replaces a block by one that has more chunks of some series, which overlap what is there.
func (w *world) disturb(t testing.TB, r *rand.Rand, n int) {
	t.Helper()
	e := w.blocks[n].Entry
	var series []blockgen.Series
	for _, s := range w.series[n] {
		if len(s.Chunks) > 0 && r.IntN(2) == 0 {
			s.Chunks = append(slices.Clone(s.Chunks), stray(t, r, e.MinTime, e.MaxTime))
			if r.IntN(2) == 0 {
				s.Chunks = append(s.Chunks, s.Chunks[r.IntN(len(s.Chunks))]) // the same once more
			}
			r.Shuffle(len(s.Chunks), func(i, j int) { s.Chunks[i], s.Chunks[j] = s.Chunks[j], s.Chunks[i] })
		}
		series = append(series, s)
	}
	w.series[n] = series
	o := blockgen.Options{ULID: e.ULID, MinTime: e.MinTime, MaxTime: e.MaxTime, Level: e.Level, Unordered: true}
	if r.IntN(2) == 0 {
		o.Scatter = r.Uint64()
	}
	var err error
	w.blocks[n], err = blockgen.Build(o, series)
	require.NoError(t, err)
}

// stray returns a chunk of floats at any times.
func stray(t testing.TB, r *rand.Rand, mint, maxt int64) blockgen.Chunk {
	t.Helper()
	times := map[int64]bool{}
	for range 1 + r.IntN(5) {
		times[mint+r.Int64N(maxt-mint)] = true
	}
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	require.NoError(t, err)
	sorted := slices.Sorted(maps.Keys(times))
	for _, ts := range sorted {
		app.Append(0, ts, float64(r.IntN(3)))
	}
	return blockgen.Chunk{
		MinTime: sorted[0], MaxTime: sorted[len(sorted)-1], Encoding: chunkenc.EncXOR, Data: c.Bytes(), Samples: len(sorted),
	}
}
