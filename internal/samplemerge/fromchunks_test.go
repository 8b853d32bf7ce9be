package samplemerge

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/stretchr/testify/require"
)

func TestFromChunksReturnsWhatSeriesDoes(t *testing.T) {
	var reuse chunkenc.Iterator
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 9))
		sources := randomSources(r)
		sources = append(sources, sources[r.IntN(len(sources))]) // a replica that is equal
		var in []storage.ChunkSeries
		n := 1 + r.IntN(6)
		for i := range sources {
			in = append(in, chunkSeries(t, sources[i], n))
		}
		mint, maxt := int64(math.MinInt64), int64(math.MaxInt64)
		want := model(sources)
		if len(want) > 0 && r.IntN(2) == 0 {
			mint, maxt = want[r.IntN(len(want))].t, want[r.IntN(len(want))].t
		}
		var within []sample
		for _, s := range want {
			if mint <= s.t && s.t <= maxt {
				within = append(within, s)
			}
		}
		series := FromChunks(mint, maxt, in...)
		reuse = series.Iterator(reuse)
		got := drain(t, reuse)
		require.Len(t, got, len(within), "seed %d", seed)
		for i := range within {
			require.Equal(t, within[i].t, got[i].t, "seed %d", seed)
			require.Equal(t, within[i].key(), got[i].key(), "seed %d, time %d", seed, got[i].t)
			require.Equal(t, within[i].st, got[i].st, "seed %d, time %d", seed, got[i].t)
		}

		// The same with jumps.
		it, next := series.Iterator(nil), 0
		for {
			var typ chunkenc.ValueType
			if r.IntN(2) == 0 {
				typ = it.Next()
			} else {
				to := int64(math.MinInt64)
				if next < len(within) {
					to = within[next+r.IntN(len(within)-next)].t - int64(r.IntN(2))
				}
				for next < len(within) && within[next].t < to {
					next++
				}
				if typ = it.Seek(to); next > 0 && typ != chunkenc.ValNone && it.AtT() == within[next-1].t {
					next--
				}
			}
			if next >= len(within) {
				require.Equal(t, chunkenc.ValNone, typ, "seed %d", seed)
				break
			}
			require.Equal(t, within[next].t, it.AtT(), "seed %d", seed)
			require.Equal(t, within[next].key(), at(it, typ).key(), "seed %d", seed)
			next++
		}
		require.NoError(t, it.Err())
	}
}

func TestEqualChunksAreKeptAndDecodedOnce(t *testing.T) {
	a := []sample{{t: 1, f: 1}, {t: 2, f: 1}, {t: 11, f: 1}, {t: 12, f: 1}}
	one := FromChunks(0, 100, chunkSeries(t, a, 2))
	three := FromChunks(0, 100, chunkSeries(t, a, 2), chunkSeries(t, a, 2), chunkSeries(t, a, 2))
	require.Equal(t, one.Held(), three.Held())
	merged, ok := Series(one, series(a), three).(interface{ Held() int })
	require.True(t, ok)
	require.Equal(t, 2*one.Held(), merged.Held())
	for _, r := range three.runs {
		require.Nil(t, r.sources)
	}
	require.Less(t, FromChunks(5, 100, chunkSeries(t, a, 2)).Held(), one.Held(), "what is outside of the times is not kept")
	b := append([]sample{{t: 1, f: 1}, {t: 2, f: 9}}, a[2:]...)
	require.NotNil(t, FromChunks(0, 100, chunkSeries(t, a, 2), chunkSeries(t, b, 2)).runs[0].sources)
}

func TestErrorOfOneSourceEndsTheSamples(t *testing.T) {
	broken := &storage.ChunkSeriesEntry{Lset: lset, ChunkIteratorFn: func(chunks.Iterator) chunks.Iterator {
		return failingChunks{storage.NewListChunkSeriesIterator()}
	}}
	it := FromChunks(0, 10, chunkSeries(t, []sample{{t: 1, f: 1}}, 1), broken).Iterator(nil)
	require.Equal(t, chunkenc.ValNone, it.Next())
	require.ErrorIs(t, it.Err(), errBroken)
	require.Equal(t, chunkenc.ValNone, it.Seek(1))
}

func BenchmarkFromChunks(b *testing.B) {
	var samples []sample
	for i := range int64(1200) {
		samples = append(samples, sample{t: i * 15_000, f: float64(i * i % 1000)})
	}
	t := &testing.T{}
	one := chunkSeries(t, samples, 120)
	shifted := append([]storage.ChunkSeries{one}, chunkSeries(t, samples[1:], 120))
	for name, in := range map[string][]storage.ChunkSeries{"one": {one}, "two equal": {one, one}, "two shifted": shifted} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var it chunkenc.Iterator
			for b.Loop() {
				it = FromChunks(0, math.MaxInt64, in...).Iterator(it)
				for it.Next() != chunkenc.ValNone {
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(samples)), "ns/sample")
		})
	}
}
