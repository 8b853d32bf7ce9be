package salvage

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/blockgen"
)

// TestByteInEachFile flips one byte in each file of a block at once. What one file has lost another one says: only chunks
// are lost, one of each chunk file.
func TestByteInEachFile(t *testing.T) {
	var w *world
	for seed := range 20 * seeds() {
		if seed%20 == 0 {
			w = newWorld(t, seed)
		}
		r := rand.New(rand.NewPCG(seed, 8))
		files, segments := map[string][]byte{}, uint64(0)
		at := map[string]int{}
		for _, f := range w.block.Files {
			data := slices.Clone(f.Data)
			at[f.Name] = r.IntN(len(data))
			data[at[f.Name]] ^= byte(1 + r.IntN(255))
			files[f.Name] = data
			if _, ok := block.ParseSegmentName(f.Name); ok {
				segments++
			}
		}
		w.with(t, files)
		c, report := w.read(t)
		lost := w.judge(t, c, report)
		require.LessOrEqual(t, lost, segments, "seed %d, bytes %v: %+v", seed, at, report)
	}
}

// TestTruncated cuts files anywhere.
func TestTruncated(t *testing.T) {
	for seed := range seeds() {
		w := newWorld(t, seed)
		r := rand.New(rand.NewPCG(seed, 9))
		for _, f := range w.block.Files {
			for _, n := range []int{0, r.IntN(len(f.Data)), r.IntN(len(f.Data))} {
				w.with(t, map[string][]byte{f.Name: f.Data[:n]})
				c, report := w.read(t)
				lost := w.judge(t, c, report)
				if _, ok := block.ParseSegmentName(f.Name); !ok {
					require.Zero(t, lost, "seed %d, %s cut at %d of %d: %+v", seed, f.Name, n, len(f.Data), report)
				}
			}
			w.with(t, map[string][]byte{f.Name: f.Data})
		}
	}
}

// TestMissing takes each set of files away.
func TestMissing(t *testing.T) {
	for seed := range (seeds() + 1) / 2 {
		w := newWorld(t, seed)
		n := len(w.block.Files)
		for set := range 1 << min(n, 5) {
			files := map[string][]byte{}
			both := 0
			for i, f := range w.block.Files {
				files[f.Name] = f.Data
				if set&(1<<i) != 0 {
					files[f.Name] = nil
					if f.Name == block.IndexName || f.Name == block.SidecarName {
						both++
					}
				}
			}
			w.with(t, files)
			c, report := w.read(t)
			lost := w.judge(t, c, report)
			if both == 2 {
				require.Equal(t, w.block.Entry.Chunks, lost)
			}
		}
	}
}

// TestZeroed overwrites pieces of files with zeros, as a disk that lost sectors does.
func TestZeroed(t *testing.T) {
	for seed := range seeds() {
		w := newWorld(t, seed)
		r := rand.New(rand.NewPCG(seed, 10))
		for range 8 {
			files := map[string][]byte{}
			for _, f := range w.block.Files {
				data := slices.Clone(f.Data)
				if r.IntN(2) == 0 {
					from := r.IntN(len(data))
					clear(data[from:min(len(data), from+1+r.IntN(512))])
				}
				files[f.Name] = data
			}
			w.with(t, files)
			c, report := w.read(t)
			w.judge(t, c, report)
		}
	}
}

// TestReplicaCovers damages chunks that another block has.
func TestReplicaCovers(t *testing.T) {
	for seed := range seeds() {
		w := newWorld(t, seed)
		r := rand.New(rand.NewPCG(seed, 11))
		replica, err := blockgen.Build(blockgen.Options{
			ULID: blockgen.ULID(2e12, seed), MinTime: w.block.Entry.MinTime, MaxTime: w.block.Entry.MaxTime, Sidecar: true,
		}, w.series)
		require.NoError(t, err)
		w.put(t, replica)
		files := map[string][]byte{}
		for _, f := range w.block.Files {
			if _, ok := block.ParseSegmentName(f.Name); !ok {
				continue
			}
			data := slices.Clone(f.Data)
			switch r.IntN(3) {
			case 0:
				data = nil
			case 1:
				data = data[:r.IntN(len(data))]
			default:
				data[r.IntN(len(data))] ^= 4
			}
			files[f.Name] = data
		}
		w.with(t, files)
		c, report := w.read(t, replica.Entry)
		lost := w.judge(t, c, report)
		require.True(t, report.Lossless, "seed %d: %+v", seed, report)
		require.Equal(t, lost, report.Covered.Chunks)
		if lost > 0 {
			require.Equal(t, []string{replica.Entry.ULID.String()}, report.CoveredBy)
		}
		require.Empty(t, report.Ranges)

		// A replica with another value, or of other external labels, covers nothing.
		strange := replica.Entry
		strange.Labels = map[string]string{"cluster": "b"}
		_, report = w.read(t, strange)
		require.Equal(t, lost == 0, report.Lossless)
	}
}

// TestReplicaThatDiffers has the same series and the same times, but other values in other bytes.
func TestReplicaThatDiffers(t *testing.T) {
	w := newWorld(t, 3)
	others := make([]blockgen.Series, len(w.series))
	for i, s := range w.series {
		others[i].Labels = s.Labels
		for _, k := range s.Chunks {
			var samples []chunks.Sample
			for n := range int64(k.Samples) {
				at := k.MinTime + n
				if n == int64(k.Samples)-1 {
					at = k.MaxTime
				}
				samples = append(samples, number{at, float64(n) * 1.7})
			}
			m, err := chunks.ChunkFromSamples(samples)
			require.NoError(t, err)
			others[i].Chunks = append(others[i].Chunks, blockgen.Chunk{
				MinTime: k.MinTime, MaxTime: k.MaxTime, Encoding: m.Chunk.Encoding(), Data: m.Chunk.Bytes(), Samples: k.Samples,
			})
		}
	}
	replica, err := blockgen.Build(blockgen.Options{
		ULID: blockgen.ULID(2e12, 1), MinTime: w.block.Entry.MinTime, MaxTime: w.block.Entry.MaxTime, Sidecar: true,
	}, others)
	require.NoError(t, err)
	w.put(t, replica)
	w.with(t, map[string][]byte{block.SegmentName(1): nil})
	_, report := w.read(t, replica.Entry)
	require.False(t, report.Lossless)
	require.Less(t, report.Covered.Chunks, report.Lost.Chunks)
}

// number is a sample.
type number struct {
	t int64
	v float64
}

func (n number) T() int64                    { return n.t }
func (number) ST() int64                     { return 0 }
func (n number) F() float64                  { return n.v }
func (number) H() *histogram.Histogram       { return nil }
func (number) FH() *histogram.FloatHistogram { return nil }
func (number) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (n number) Copy() chunks.Sample         { return n }
