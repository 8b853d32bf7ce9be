package merge

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/chunkstore/blockcheck"
	"github.com/duramendb/duramen/chunkstore/blockgen"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/internal/samplemerge"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const tenantID = "t"

// world is a set of blocks and what they come to.
type world struct {
	blocks    []*blockgen.Block
	series    [][]blockgen.Series
	deletions [][]Deletion // of each block
}

// put puts the blocks into a new bucket.
func (w *world) put(t testing.TB) bucket.Bucket {
	t.Helper()
	bkt := bucket.NewInMemory()
	for _, b := range w.blocks {
		require.NoError(t, b.Put(t.Context(), bkt, tenantID))
	}
	return bkt
}

func (w *world) job(seed uint64) Job {
	j := Job{ULID: blockgen.ULID(1_800_000_000_000, seed), Writer: "compactor/x", Level: 2}
	for i, b := range w.blocks {
		in := Input{Block: b.Entry}
		if w.deletions != nil {
			in.Deletions = w.deletions[i]
		}
		j.Inputs = append(j.Inputs, in)
	}
	return j
}

// sample is one as tests compare them.
func sampleString(it chunkenc.Iterator, typ chunkenc.ValueType) string {
	switch typ {
	case chunkenc.ValFloat:
		t, v := it.At()
		return fmt.Sprintf("%d st %d %x", t, it.AtST(), v)
	case chunkenc.ValHistogram:
		t, h := it.AtHistogram(nil)
		return fmt.Sprintf("%d st %d %s", t, it.AtST(), histogramString(h.ToFloat(nil), false))
	default:
		t, h := it.AtFloatHistogram(nil)
		return fmt.Sprintf("%d st %d %s", t, it.AtST(), histogramString(h, true))
	}
}

func histogramString(h *histogram.FloatHistogram, floats bool) string {
	gauge := h.CounterResetHint == histogram.GaugeType
	if h.Sum != h.Sum { //nolint:gocritic // NaN: a stale marker has nothing else
		return fmt.Sprintf("%v gauge %v NaN", floats, gauge)
	}
	h = h.Copy()
	h.Compact(0)
	h.CounterResetHint = 0
	return fmt.Sprintf("%v gauge %v %x %x %s %v", floats, gauge, h.Sum, h.ZeroThreshold, h, h.CustomValues)
}

// naive returns what the blocks come to: by series, all samples.
func (w *world) naive(t testing.TB) (map[string][]string, uint64) {
	t.Helper()
	sources := map[string][]storage.Series{}
	total := uint64(0)
	for i, block := range w.series {
		for _, s := range block {
			var parts []storage.Series
			for _, c := range s.Chunks {
				total += uint64(c.Samples)
				ch, err := chunkenc.FromData(c.Encoding, c.Data)
				require.NoError(t, err)
				hide := func(ts int64) bool {
					if w.deletions == nil {
						return false
					}
					for _, d := range w.deletions[i] {
						if ts >= d.MinTime && ts <= d.MaxTime && d.concerns(s.Labels) {
							return true
						}
					}
					return false
				}
				parts = append(parts, &storage.SeriesEntry{Lset: s.Labels, SampleIteratorFn: func(chunkenc.Iterator) chunkenc.Iterator {
					return &hiding{ch.Iterator(nil), hide}
				}})
			}
			sources[s.Labels.String()] = append(sources[s.Labels.String()], samplemerge.Series(parts...))
		}
	}
	out := map[string][]string{}
	for lset, all := range sources {
		it := samplemerge.Series(all...).Iterator(nil)
		for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
			out[lset] = append(out[lset], sampleString(it, typ))
		}
		require.NoError(t, it.Err())
	}
	return out, total
}

type hiding struct {
	chunkenc.Iterator

	hide func(int64) bool
}

func (h *hiding) Next() chunkenc.ValueType {
	for {
		if typ := h.Iterator.Next(); typ == chunkenc.ValNone || !h.hide(h.AtT()) {
			return typ
		}
	}
}

// dump returns the samples of a block in the bucket, and checks all of it.
func dump(t testing.TB, bkt bucket.Bucket, j Job, r *Result) map[string][]string {
	t.Helper()
	sum, err := blockcheck.Check(t.Context(), blockcheck.InBucket(bkt, tenantID, j.ULID), j.ULID, blockcheck.Options{},
		func(f blockcheck.Fault) { t.Errorf("%s", f) })
	require.NoError(t, err)
	require.Empty(t, blockcheck.CompareEntry(sum.Meta, sum.MetaBytes, r.Block))
	require.Empty(t, blockcheck.CompareSidecar(sum, r.Block))
	require.Equal(t, r.OutputSamples, sum.Samples())
	return readBack(t, bkt, j)
}

func TestRandomBlocks(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 6))
		w := randomWorld(t, r)
		checkWorld(t, w, seed)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func randomWorld(t testing.TB, r *rand.Rand) *world {
	t.Helper()
	g, err := blockgen.NewRandom(r)
	require.NoError(t, err)
	return &world{blocks: g.Blocks, series: g.Series}
}

func checkWorld(t testing.TB, w *world, seed uint64) *Result {
	t.Helper()
	bkt := w.put(t)
	want, total := w.naive(t)
	j := w.job(seed)
	dir := t.(interface{ TempDir() string }).TempDir()
	cfg := Config{Scratch: dir, SegmentBytes: []int64{0, 500, 5000}[seed%3], ReadBytes: []int64{0, 1}[seed%2]}
	var p Progress
	result, err := Run(t.Context(), cfg, bkt, tenantID, j, &p)
	require.NoError(t, err)
	require.Equal(t, total, result.InputSamples)
	if result.Empty {
		require.Empty(t, want)
		return result
	}
	require.Equal(t, want, dump(t, bkt, j, result))
	return result
}

// readBack reads all samples of a block with Prometheus' own reader.
func readBack(t testing.TB, bkt bucket.Bucket, j Job) map[string][]string {
	t.Helper()
	b := openBlock(t, bkt, j)
	defer func() { require.NoError(t, b.Close()) }()
	q, err := newBlockQuerier(b)
	require.NoError(t, err)
	defer func() { require.NoError(t, q.Close()) }()
	out := map[string][]string{}
	set := q.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "none", ".*"))
	for set.Next() {
		s := set.At()
		it := s.Iterator(nil)
		for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
			out[s.Labels().String()] = append(out[s.Labels().String()], sampleString(it, typ))
		}
		require.NoError(t, it.Err())
	}
	require.NoError(t, set.Err())
	return out
}
