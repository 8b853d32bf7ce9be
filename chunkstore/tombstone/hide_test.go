package tombstone

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/tombstones"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/manifest"
)

type sample struct {
	t int64
	f float64
	h *histogram.Histogram
}

func (s sample) T() int64                      { return s.t }
func (s sample) ST() int64                     { return 0 }
func (s sample) F() float64                    { return s.f }
func (s sample) H() *histogram.Histogram       { return s.h }
func (s sample) FH() *histogram.FloatHistogram { return s.h.ToFloat(nil) }
func (s sample) Copy() chunks.Sample           { return s }
func (s sample) Type() chunkenc.ValueType {
	if s.h != nil {
		return chunkenc.ValHistogram
	}
	return chunkenc.ValFloat
}

// randomSamples has times from 0 on, floats and histograms in runs.
func randomSamples(r *rand.Rand, n int) (out []chunks.Sample) {
	t := int64(0)
	for i := range n {
		t += 1 + r.Int64N(3)
		s := sample{t: t, f: float64(i)}
		if i/7%2 == 1 {
			s.h = tsdbutil.GenerateTestHistogram(int64(i))
		}
		out = append(out, s)
	}
	return out
}

func times(t *testing.T, it chunkenc.Iterator) (out []int64) {
	t.Helper()
	for it.Next() != chunkenc.ValNone {
		out = append(out, it.AtT())
	}
	require.NoError(t, it.Err())
	return out
}

// TestHiddenSamples: what is shown is what a naive filter leaves, by Next, by Seek, and as chunks.
func TestHiddenSamples(t *testing.T) {
	lset := labels.FromStrings("__name__", "up")
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 5))
		samples := randomSamples(r, r.IntN(60))
		var ds []manifest.Deletion
		for id := range r.Uint64N(5) {
			d := deletion(id+1, r.Int64N(120)-5, 0, "up")
			d.MaxTime = d.MinTime + r.Int64N(30)
			if r.IntN(10) == 0 {
				d.MinTime = math.MinInt64
			}
			if r.IntN(10) == 0 {
				d.MaxTime = math.MaxInt64
			}
			ds = append(ds, d)
		}
		s := set(t, ds...)
		var want []int64
		for _, each := range samples {
			if !(tombstones.Interval{Mint: each.T(), Maxt: each.T()}).IsSubrange(s.Intervals(lset)) {
				want = append(want, each.T())
			}
		}
		listed := storage.NewListSeries(lset, samples)
		hidden := s.Series(&seriesOf{Series: listed})
		require.True(t, hidden.Next())
		series := hidden.At()
		it := series.Iterator(nil)
		require.Equal(t, want, times(t, it))
		require.Equal(t, want, times(t, series.Iterator(it)), "used again")

		for from := int64(-1); from < 130; from += 1 + r.Int64N(9) {
			it := series.Iterator(nil)
			if r.IntN(2) == 0 {
				it.Next()
			}
			var got []int64
			for typ := it.Seek(from); typ != chunkenc.ValNone; typ = it.Next() {
				got = append(got, it.AtT())
			}
			require.Equal(t, above(want, from), got)
		}

		var parts [][]chunks.Sample
		for rest := samples; len(rest) > 0; {
			n := min(len(rest), 7) // as many as there are of one type
			parts, rest = append(parts, rest[:n]), rest[n:]
		}
		shown := s.Chunks(&chunksOf{ChunkSeries: storage.NewListChunkSeriesFromSamples(lset, parts...)})
		require.True(t, shown.Next())
		var got []int64
		metas := shown.At().Iterator(nil)
		for metas.Next() {
			meta := metas.At()
			in := times(t, meta.Chunk.Iterator(nil))
			require.Equal(t, []int64{in[0], in[len(in)-1]}, []int64{meta.MinTime, meta.MaxTime})
			got = append(got, in...)
		}
		require.NoError(t, metas.Err())
		require.Equal(t, want, got)
	}
}

func above(ts []int64, from int64) (out []int64) {
	for _, t := range ts {
		if t >= from {
			out = append(out, t)
		}
	}
	return out
}

// seriesOf is a set of one series.
type seriesOf struct {
	storage.SeriesSet
	storage.Series

	given bool
}

func (s *seriesOf) Next() bool         { s.given = !s.given; return s.given }
func (s *seriesOf) At() storage.Series { return s.Series }

// chunksOf is a set of one series of chunks.
type chunksOf struct {
	storage.ChunkSeriesSet
	storage.ChunkSeries

	given bool
}

func (s *chunksOf) Next() bool              { s.given = !s.given; return s.given }
func (s *chunksOf) At() storage.ChunkSeries { return s.ChunkSeries }

// TestChunksOutsidePassUntouched: not a byte is written anew of what is not hidden.
func TestChunksOutsidePassUntouched(t *testing.T) {
	lset := labels.FromStrings("__name__", "up")
	var metas []chunks.Meta
	for i := range int64(4) {
		c, err := chunks.ChunkFromSamples([]chunks.Sample{sample{t: 10 * i}, sample{t: 10*i + 5}})
		require.NoError(t, err)
		metas = append(metas, c)
	}
	entry := &storage.ChunkSeriesEntry{Lset: lset, ChunkIteratorFn: func(chunks.Iterator) chunks.Iterator {
		return storage.NewListChunkSeriesIterator(metas...)
	}}
	shown := func(s *Set) (out []chunks.Meta) {
		it := (&chunkSeries{entry, s.Intervals(lset)}).Iterator(nil)
		for it.Next() {
			out = append(out, it.At())
		}
		require.NoError(t, it.Err())
		return out
	}
	got := shown(set(t, deletion(1, 6, 9, "up"), deletion(2, 10, 15, "up"), deletion(3, 25, 29, "up")))
	require.Len(t, got, 3)
	require.Same(t, metas[0].Chunk, got[0].Chunk)
	require.NotSame(t, metas[2].Chunk, got[1].Chunk)
	require.EqualValues(t, 20, got[1].MaxTime)
	require.Same(t, metas[3].Chunk, got[2].Chunk)

	other := set(t, deletion(1, 0, 99, "down")).Chunks(&chunksOf{ChunkSeries: entry})
	require.True(t, other.Next())
	require.Same(t, entry, other.At(), "a series that is not meant passes as it is")
}

// TestHintsBehindAGap: "no reset since the sample before" is no longer said when that sample is hidden.
func TestHintsBehindAGap(t *testing.T) {
	var samples []chunks.Sample
	for i := range int64(4) {
		h := tsdbutil.GenerateTestHistogram(i)
		h.CounterResetHint = histogram.NotCounterReset
		if i == 3 {
			h.CounterResetHint = histogram.CounterReset
		}
		samples = append(samples, sample{t: i, h: h})
	}
	hints := func(ds ...manifest.Deletion) (out []histogram.CounterResetHint) {
		gaps := set(t, ds...).Intervals(labels.FromStrings("__name__", "up"))
		it := (&series{storage.NewListSeries(labels.EmptyLabels(), samples), gaps}).Iterator(nil)
		for it.Next() != chunkenc.ValNone {
			_, h := it.AtHistogram(nil)
			_, fh := it.AtFloatHistogram(nil)
			require.Equal(t, h.CounterResetHint, fh.CounterResetHint)
			out = append(out, h.CounterResetHint)
		}
		return out
	}
	const not, unknown, reset = histogram.NotCounterReset, histogram.UnknownCounterReset, histogram.CounterReset
	require.Equal(t, []histogram.CounterResetHint{not, unknown, reset}, hints(deletion(1, 1, 1, "up")))
	require.Equal(t, []histogram.CounterResetHint{not, not, reset}, hints(deletion(1, 2, 2, "up")), "there was one")
	require.Equal(t, []histogram.CounterResetHint{unknown, not, reset}, hints(deletion(1, 0, 0, "up")))
	require.Equal(t, not, samples[2].H().CounterResetHint, "the source's histograms are its own")
}

func TestSourcesAreCounted(t *testing.T) {
	s := &series{Series: counted{storage.NewListSeries(labels.EmptyLabels(), nil)}}
	require.Equal(t, 3, s.Sources())
	require.Equal(t, 70, s.Held())
	s = &series{Series: storage.NewListSeries(labels.EmptyLabels(), nil)}
	require.Equal(t, 1, s.Sources())
	require.Zero(t, s.Held())
}

type counted struct{ storage.Series }

func (counted) Sources() int { return 3 }
func (counted) Held() int    { return 70 }
