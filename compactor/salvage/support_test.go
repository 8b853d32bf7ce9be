package salvage

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/blockgen"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const tenant = "t"

// world is a block, its series, and a bucket.
type world struct {
	bkt    bucket.Bucket
	block  *blockgen.Block
	series []blockgen.Series
	dir    string
}

// newWorld is a random block of at most a few kilobytes.
func newWorld(t testing.TB, seed uint64) *world {
	t.Helper()
	made, ok := generated.Load(seed)
	if !ok {
		r := rand.New(rand.NewPCG(seed, 6))
		for made == nil {
			all, err := blockgen.NewRandom(r)
			require.NoError(t, err)
			size := 0
			for _, f := range all.Blocks[0].Files {
				size += len(f.Data)
			}
			if b := all.Blocks[0]; b.Entry.Chunks > 3 && b.Entry.Series > 2 && size < 25_000 && len(b.Files) < 9 {
				made = all
			}
		}
		generated.Store(seed, made)
	}
	all := made.(*blockgen.Random)
	w := &world{bucket.NewInMemory(), all.Blocks[0], all.Series[0], t.TempDir()}
	w.put(t, w.block)
	return w
}

// generated are the worlds of all tests by seed, which take longer to make than to salvage.
var generated sync.Map

func (w *world) put(t testing.TB, b *blockgen.Block) {
	t.Helper()
	require.NoError(t, b.Put(t.Context(), w.bkt, tenant))
}

// with returns the block with some of its files changed; nil takes a file away.
func (w *world) with(t testing.TB, files map[string][]byte) {
	t.Helper()
	for _, f := range w.block.Files {
		key := block.Key(tenant, w.block.Entry.ULID, f.Name)
		data, changed := files[f.Name]
		if !changed {
			data = f.Data
		}
		if changed && data == nil {
			require.NoError(t, w.bkt.Delete(t.Context(), key))
			continue
		}
		require.NoError(t, w.bkt.Put(t.Context(), key, newReader(data), int64(len(data))))
	}
}

func (w *world) request() Request {
	return Request{
		Tenant: tenant, Damaged: w.block.Entry, Writer: manifest.CompactorWriter + "test", ULID: blockgen.ULID(1e12, 77),
		Now: time.UnixMilli(1_700_000_000_000),
	}
}

// collected are the chunks that a salvage read.
type collected struct {
	series map[string][]chunks.Meta
	last   labels.Labels
	err    error
}

func (c *collected) add(lset labels.Labels, chks []chunks.Meta) error {
	if !c.last.IsEmpty() && labels.Compare(c.last, lset) >= 0 {
		c.err = fmt.Errorf("%s follows %s", lset, c.last)
	}
	c.last = lset.Copy()
	c.series[lset.String()] = chks
	return nil
}

// read salvages without writing a block.
func (w *world) read(t testing.TB, others ...manifest.Block) (*collected, *Report) {
	t.Helper()
	r := w.request()
	r.Others = others
	j := &job{Request: r, bkt: w.bkt, dir: w.dir, notes: map[string]*FileFaults{}, report: &Report{Block: r.Damaged}}
	c := &collected{series: map[string][]chunks.Meta{}}
	ctx := context.Background()
	f, err := openFolder(ctx, w.bkt, tenant, r.Damaged.ULID, filepath.Join(w.dir, "damaged"), false)
	require.NoError(t, err)
	_, err = j.meta(ctx, f)
	require.NoError(t, err)
	v, err := openView(f, &r.Damaged, 0, j.fault)
	require.NoError(t, err)
	defer func() { require.NoError(t, v.close()) }()
	require.NoError(t, j.salvage(v, c))
	require.NoError(t, c.err)
	covered, err := j.cover(ctx)
	require.NoError(t, err)
	j.conclude(covered)
	return c, j.report
}

// judge compares what was read with what the block had: nothing is invented, and the report says exactly what misses. It
// returns how many chunks do.
func (w *world) judge(t testing.TB, c *collected, r *Report) (chunksLost uint64) {
	t.Helper()
	var lostSeries, lostChunks, lostSamples, matched uint64
	for _, s := range w.series {
		got := c.series[s.Labels.String()]
		if len(got) == 0 {
			lostSeries++
		}
		for _, k := range s.Chunks {
			i := slices.IndexFunc(got, func(m chunks.Meta) bool {
				return m.MinTime == k.MinTime && m.MaxTime == k.MaxTime && string(m.Chunk.Bytes()) == string(k.Data)
			})
			if i >= 0 {
				matched++
				continue
			}
			lostChunks++
			lostSamples += uint64(k.Samples)
			if r.Covered.Chunks == 0 {
				require.True(t, slices.ContainsFunc(r.Ranges, func(x Range) bool {
					return x.MinTime <= k.MinTime && k.MaxTime < x.MaxTime
				}), "times of a lost chunk from %d to %d are in no range of %v", k.MinTime, k.MaxTime, r.Ranges)
			}
		}
	}
	total := 0
	for _, got := range c.series {
		total += len(got)
	}
	require.Equal(t, int(matched), total, "something was invented")
	require.Equal(t, lostChunks, r.Lost.Chunks+r.Covered.Chunks, "lost chunks")
	require.True(t, r.SamplesExact)
	require.Equal(t, lostSamples, r.Lost.Samples+r.Covered.Samples, "lost samples")
	require.Equal(t, lostSeries, r.Lost.Series+r.Covered.Series, "lost series")
	require.Equal(t, r.Lost.Samples == 0, r.Lossless)
	require.Equal(t, r.Lossless, len(r.Ranges) == 0)
	return lostChunks
}
