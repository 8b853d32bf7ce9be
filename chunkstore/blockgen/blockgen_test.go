package blockgen

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	tsdbindex "github.com/prometheus/prometheus/tsdb/index"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/blockcheck"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/index"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var nopLog = slog.New(slog.DiscardHandler)

const start = 1_700_006_400_000 // 2023-11-15

func openBlock(t testing.TB, dir string) *tsdb.Block {
	t.Helper()
	b, err := tsdb.OpenBlock(nopLog, dir, nil, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}

// check reads every byte of a block in a bucket with the checker that operators use.
func check(t testing.TB, bkt bucket.Bucket, b *Block) {
	t.Helper()
	sum, err := blockcheck.Check(t.Context(), blockcheck.InBucket(bkt, "t", b.Entry.ULID), b.Entry.ULID, blockcheck.Options{},
		func(f blockcheck.Fault) { t.Errorf("block %s: %+v", b.Entry.ULID, f) })
	require.NoError(t, err)
	require.Equal(t, b.Entry.Series, sum.Series)
	require.Equal(t, b.Entry.Chunks, sum.Chunks)
	require.Equal(t, b.Entry.Samples, sum.Samples())
}

// TestGridIsWhatItsFormulaSays opens the blocks with Prometheus' own reader and compares every sample.
func TestGridIsWhatItsFormulaSays(t *testing.T) {
	g := Grid{Seed: 7, Metrics: 4, Series: 6, Interval: 600_000, Start: start, SamplesPerChunk: 50, SegmentBytes: 4000}
	dir := t.TempDir()
	blocks, err := g.Write(dir, 3)
	require.NoError(t, err)
	require.Len(t, blocks, 3)
	for day, b := range blocks {
		require.Equal(t, uint64(g.Samples()), b.Entry.Samples)
		tb := openBlock(t, dir+"/"+b.Entry.ULID.String())
		mint, maxt := g.Range(day)
		require.Equal(t, mint, tb.MinTime())
		require.Equal(t, maxt, tb.MaxTime())
		q, err := tsdb.NewBlockQuerier(tb, mint, maxt)
		require.NoError(t, err)
		for metric := range g.Metrics {
			for series := range g.Series {
				var ms []*labels.Matcher
				g.Labels(metric, series).Range(func(l labels.Label) {
					ms = append(ms, labels.MustNewMatcher(labels.MatchEqual, l.Name, l.Value))
				})
				set := q.Select(t.Context(), false, nil, ms...)
				require.True(t, set.Next())
				it := set.At().Iterator(nil)
				for k := range g.PerDay() {
					require.Equal(t, chunkenc.ValFloat, it.Next())
					ts, v := it.At()
					require.Equal(t, g.Time(metric, series, day, k), ts)
					require.Equal(t, g.Value(metric, series, k), v)
				}
				require.Equal(t, chunkenc.ValNone, it.Next())
				require.False(t, set.Next())
				require.NoError(t, set.Err())
			}
		}
		require.NoError(t, q.Close())
	}
}

func TestGridPassesTheChecker(t *testing.T) {
	g := Grid{Seed: 7, Metrics: 3, Series: 20, Interval: 600_000, Start: start, SegmentBytes: 9000}
	bkt := bucket.NewInMemory()
	chunks := int64(0)
	for metric := range g.Metrics {
		n, err := g.ChunkBytes(metric, -1)
		require.NoError(t, err)
		chunks += n
	}
	require.NoError(t, g.Days(2, func(_ int, b *Block) error {
		size := int64(0)
		for _, f := range b.Files {
			if _, ok := block.ParseSegmentName(f.Name); ok {
				size += int64(len(f.Data)) - 8
			}
		}
		require.Equal(t, chunks, size)
		require.NoError(t, b.Put(t.Context(), bkt, "t"))
		require.NoError(t, block.Verify(t.Context(), bkt, "t", b.Entry.ULID))
		check(t, bkt, b)
		return nil
	}))
}

func TestGridRefusesUnequalDays(t *testing.T) {
	for _, g := range []Grid{
		{Metrics: 1, Series: 1, Interval: 7_000, Start: start},
		{Metrics: 1, Series: 1, Interval: 60_000, Start: start + 1},
		{Metrics: 1, Series: 1, Start: start},
	} {
		require.Error(t, g.Days(1, func(int, *Block) error { return nil }), "%+v", g)
	}
}

// TestRandomBlocks: each is one that Prometheus opens and the checker has nothing to say about, its sidecar is the one
// that the block's own index gives, and equal seeds give equal bytes.
func TestRandomBlocks(t *testing.T) {
	kinds := map[chunkenc.Encoding]int{}
	for seed := range uint64(25) {
		s, err := NewRandom(rand.New(rand.NewPCG(seed, 1)))
		require.NoError(t, err)
		again, err := NewRandom(rand.New(rand.NewPCG(seed, 1)))
		require.NoError(t, err)
		require.Equal(t, s, again)
		bkt, dir := bucket.NewInMemory(), t.TempDir()
		for _, b := range s.Blocks {
			require.NoError(t, b.Put(t.Context(), bkt, "t"))
			check(t, bkt, b)
			_, err := b.WriteDir(dir)
			require.NoError(t, err)
			tb := openBlock(t, dir+"/"+b.Entry.ULID.String())
			require.Equal(t, b.Entry.Series, tb.Meta().Stats.NumSeries)
			if seed < 15 {
				requireSidecar(t, b, kinds)
			}
		}
	}
	require.Len(t, kinds, 3, "floats, integer and float histograms")
}

// requireSidecar compares the sidecar of a block with the one that is built from its index.
func requireSidecar(t *testing.T, b *Block, kinds map[chunkenc.Encoding]int) {
	t.Helper()
	files := map[string][]byte{}
	var segments []int64
	for _, f := range b.Files {
		files[f.Name] = f.Data
		if _, ok := block.ParseSegmentName(f.Name); ok {
			segments = append(segments, int64(len(f.Data)))
		}
	}
	ix, err := tsdbindex.NewReader(bytesOf(files[block.IndexName]), tsdbindex.DecodePostingsRaw)
	require.NoError(t, err)
	var built bytes.Buffer
	size, directory, err := index.Build(t.Context(), &built, ix, b.Entry.MinTime, b.Entry.MaxTime, segments)
	require.NoError(t, err)
	require.True(t, bytes.Equal(files[sidecarName], built.Bytes()))
	require.Equal(t, b.Entry.SidecarBytes, size)
	require.Equal(t, b.Entry.DirectoryBytes, directory)
	for name, data := range files {
		if _, ok := block.ParseSegmentName(name); ok {
			_, n := binary.Uvarint(data[8:])
			kinds[chunkenc.Encoding(data[8+n])]++
		}
	}
}

type bytesOf []byte

func (b bytesOf) Len() int                    { return len(b) }
func (b bytesOf) Range(start, end int) []byte { return b[start:end] }

func TestBuildRefusesWhatNoBlockHas(t *testing.T) {
	a, z := labels.FromStrings("a", "1"), labels.FromStrings("z", "1")
	for name, series := range map[string][]Series{
		"order":    {{Labels: z}, {Labels: a}},
		"twice":    {{Labels: a}, {Labels: a}},
		"overlaps": {{Labels: a, Chunks: []Chunk{{MinTime: 1, MaxTime: 5, Encoding: 1}, {MinTime: 5, MaxTime: 6, Encoding: 1}}}},
	} {
		_, err := Build(Options{ULID: ULID(1, 1), MaxTime: 10}, series)
		require.Error(t, err, name)
	}
}

func TestForeignBlocksSayNothingOfUs(t *testing.T) {
	b, err := Build(Options{ULID: ULID(1, 1), MaxTime: 10, Foreign: true}, nil)
	require.NoError(t, err)
	require.NotContains(t, string(b.Files[len(b.Files)-1].Data), "duramen")
	require.Empty(t, b.Entry.Writer)
}

func BenchmarkGrid(b *testing.B) {
	g := Grid{Seed: 1, Metrics: 21, Series: 100, Interval: 60_000, Start: start}
	for b.Loop() {
		require.NoError(b, g.Days(10, func(int, *Block) error { return nil }))
	}
	b.ReportMetric(float64(10*g.Samples()*b.N)/b.Elapsed().Seconds(), "samples/s")
}

func BenchmarkRandom(b *testing.B) {
	seed := uint64(0)
	for b.Loop() {
		_, err := NewRandom(rand.New(rand.NewPCG(seed, 1)))
		require.NoError(b, err)
		seed++
	}
}
