package oracle

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/blockgen"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/samplemerge"
)

const tenantID = "t1"

// world is a set of random blocks: in a bucket for the store, on local disk for the reference.
type world struct {
	*blockgen.Random

	bkt    *bucket.InMemory
	dir    string
	local  []*tsdb.Block
	blocks []manifest.Block
}

// newWorld makes the world of a seed. close has to be called.
func newWorld(t testing.TB, seed uint64) *world {
	t.Helper()
	random, err := blockgen.NewRandom(rand.New(rand.NewPCG(seed, 1)))
	require.NoError(t, err, "seed %d", seed)
	w := &world{Random: random, bkt: bucket.NewInMemory()}
	dir, err := os.MkdirTemp(memoryDir, "") //nolint:usetesting // in memory where that is possible: it is many small files
	require.NoError(t, err)
	w.dir = dir
	r := rand.New(rand.NewPCG(seed, 8))
	external := r.IntN(4) == 0
	for i, b := range random.Blocks {
		require.NoError(t, b.Put(t.Context(), w.bkt, tenantID))
		if external {
			b = w.addExternal(t, r, i)
		}
		_, err := b.WriteDir(dir)
		require.NoError(t, err)
		local, err := tsdb.OpenBlock(nopLog, filepath.Join(dir, b.Entry.ULID.String()), nil, nil)
		require.NoError(t, err, "seed %d", seed)
		w.local = append(w.local, local)
		w.blocks = append(w.blocks, random.Blocks[i].Entry)
	}
	return w
}

// addExternal gives a block external labels and returns it as it would be with these labels on each of its series.
func (w *world) addExternal(t testing.TB, r *rand.Rand, i int) *blockgen.Block {
	t.Helper()
	b := w.Blocks[i]
	b.Entry.Labels = map[string]string{}
	for name, values := range map[string][]string{
		"replica": {"a", "b"}, "Cluster": {"eu", "us"}, "mod": {"1", "x"}, // before the name, behind, and one that series have
	} {
		if v := r.IntN(2 * len(values)); v < len(values) {
			b.Entry.Labels[name] = values[v]
		}
	}
	series := slices.Clone(w.Series[i])
	for j := range series {
		lb := labels.NewBuilder(series[j].Labels)
		for name, value := range b.Entry.Labels {
			lb.Set(name, value)
		}
		series[j].Labels = lb.Labels()
		w.Labels = append(w.Labels, series[j].Labels)
	}
	slices.SortFunc(series, func(a, b blockgen.Series) int { return labels.Compare(a.Labels, b.Labels) })
	whole, err := blockgen.Build(blockgen.Options{
		ULID: b.Entry.ULID, MinTime: b.Entry.MinTime, MaxTime: b.Entry.MaxTime, Foreign: true,
	}, series)
	require.NoError(t, err)
	return whole
}

func (w *world) close(t testing.TB) {
	t.Helper()
	for _, b := range w.local {
		require.NoError(t, b.Close())
	}
	require.NoError(t, os.RemoveAll(w.dir))
}

// reference reads the blocks from local disk with Prometheus' own reader.
func (w *world) reference(t testing.TB, mint, maxt int64) storage.Querier {
	t.Helper()
	var qs []storage.Querier
	for _, b := range w.local {
		if b.OverlapsClosedInterval(mint, maxt) {
			q, err := tsdb.NewBlockQuerier(b, mint, maxt)
			require.NoError(t, err)
			qs = append(qs, q)
		}
	}
	return storage.NewMergeQuerier(qs, nil, samplemerge.Series)
}

// chunkReference is reference for chunks.
func (w *world) chunkReference(t testing.TB, mint, maxt int64) storage.ChunkQuerier {
	t.Helper()
	var qs []storage.ChunkQuerier
	for _, b := range w.local {
		if b.OverlapsClosedInterval(mint, maxt) {
			q, err := tsdb.NewBlockChunkQuerier(b, mint, maxt)
			require.NoError(t, err)
			qs = append(qs, q)
		}
	}
	return storage.NewMergeChunkQuerier(qs, nil, samplemerge.ChunkSeries)
}
