package merge

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/chunkstore/blockcheck"
	"github.com/duramendb/duramen/chunkstore/blockgen"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/tombstone"
	"github.com/duramendb/duramen/internal/samplemerge"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const tenantID = "t"

// world is a set of blocks and what they come to.
type world struct {
	blocks    []*blockgen.Block
	series    [][]blockgen.Series
	deletions [][]manifest.Deletion // of each block
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
			for _, d := range w.deletions[i] {
				in.Deletions = append(in.Deletions, d.ID)
				if !slices.ContainsFunc(j.Deletions, func(known manifest.Deletion) bool { return known.ID == d.ID }) {
					j.Deletions = append(j.Deletions, d)
				}
			}
		}
		j.Inputs = append(j.Inputs, in)
	}
	return j
}

// seen is a sample as tests compare it: of the value a hash. Hints of counter resets and empty buckets are no value.
type seen struct {
	t, st int64
	value uint64
}

func see(it chunkenc.Iterator, typ chunkenc.ValueType) seen {
	s := seen{t: it.AtT(), st: it.AtST()}
	switch typ {
	case chunkenc.ValFloat:
		_, v := it.At()
		s.value = math.Float64bits(v)
	case chunkenc.ValHistogram:
		_, h := it.AtHistogram(nil)
		s.value = hash(h.ToFloat(nil), 1)
	default:
		_, h := it.AtFloatHistogram(nil)
		s.value = hash(h, 2)
	}
	return s
}

func hash(h *histogram.FloatHistogram, kind byte) uint64 {
	b := []byte{kind, 0}
	if h.CounterResetHint == histogram.GaugeType {
		b[1] = 1
	}
	if value.IsStaleNaN(h.Sum) { // it has nothing else
		return xxhash.Sum64(b)
	}
	h = h.Copy()
	h.Compact(0)
	for _, spans := range [][]histogram.Span{h.PositiveSpans, h.NegativeSpans} {
		for _, s := range spans {
			b = binary.AppendVarint(b, int64(s.Offset))
			b = binary.AppendUvarint(b, uint64(s.Length))
		}
		b = append(b, 0xff)
	}
	b = binary.AppendVarint(b, int64(h.Schema))
	for _, f := range slices.Concat([]float64{h.Sum, h.Count, h.ZeroCount, h.ZeroThreshold},
		h.PositiveBuckets, h.NegativeBuckets, h.CustomValues) {
		b = binary.BigEndian.AppendUint64(b, math.Float64bits(f))
	}
	return xxhash.Sum64(b)
}

// naive returns what the blocks come to: by series, all samples.
func (w *world) naive(t testing.TB) (map[string][]seen, uint64) {
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
						if ts >= d.MinTime && ts <= d.MaxTime && concerns(t, &d, s.Labels) {
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
	out := map[string][]seen{}
	for lset, all := range sources {
		it := samplemerge.Series(all...).Iterator(nil)
		for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
			out[lset] = append(out[lset], see(it, typ))
		}
		require.NoError(t, it.Err())
	}
	return out, total
}

// concerns reports whether a series satisfies all matchers of a selector.
func concerns(t testing.TB, d *manifest.Deletion, lset labels.Labels) bool {
	t.Helper()
	selectors, err := tombstone.Matchers(d)
	require.NoError(t, err)
	return slices.ContainsFunc(selectors, func(selector []*labels.Matcher) bool {
		return !slices.ContainsFunc(selector, func(m *labels.Matcher) bool { return !m.Matches(lset.Get(m.Name)) })
	})
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
func dump(t testing.TB, bkt bucket.Bucket, j Job, r *Result) map[string][]seen {
	t.Helper()
	sum, err := blockcheck.Check(t.Context(), blockcheck.InBucket(bkt, tenantID, j.ULID), j.ULID, blockcheck.Options{},
		func(f blockcheck.Fault) { t.Errorf("%s", f) })
	require.NoError(t, err)
	require.Empty(t, blockcheck.CompareEntry(sum.Meta, sum.MetaBytes, r.Block))
	require.Empty(t, blockcheck.CompareSidecar(sum, r.Block))
	require.Equal(t, r.OutputSamples, sum.Samples())
	return readBack(t, bkt, j)
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
func readBack(t testing.TB, bkt bucket.Bucket, j Job) map[string][]seen {
	t.Helper()
	b := openBlock(t, bkt, j)
	defer func() { require.NoError(t, b.Close()) }()
	q, err := newBlockQuerier(b)
	require.NoError(t, err)
	defer func() { require.NoError(t, q.Close()) }()
	out := map[string][]seen{}
	set := q.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "none", ".*"))
	for set.Next() {
		s := set.At()
		it := s.Iterator(nil)
		for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
			out[s.Labels().String()] = append(out[s.Labels().String()], see(it, typ))
		}
		require.NoError(t, it.Err())
	}
	require.NoError(t, set.Err())
	return out
}
