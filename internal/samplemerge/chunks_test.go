package samplemerge

import (
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/stretchr/testify/require"
)

// chunkSeries cuts samples into chunks of at most n samples of one type.
func chunkSeries(t *testing.T, samples []sample, n int) storage.ChunkSeries {
	t.Helper()
	var metas []chunks.Meta
	for start := 0; start < len(samples); {
		end := start
		for end < len(samples) && end < start+n && samples[end].Type() == samples[start].Type() {
			end++
		}
		var list []chunks.Sample
		for _, s := range samples[start:end] {
			list = append(list, s)
		}
		it := storage.NewSeriesToChunkEncoder(storage.NewListSeries(lset, list)).Iterator(nil)
		for it.Next() {
			metas = append(metas, it.At())
		}
		require.NoError(t, it.Err())
		start = end
	}
	return &storage.ChunkSeriesEntry{Lset: lset, ChunkIteratorFn: func(chunks.Iterator) chunks.Iterator {
		return storage.NewListChunkSeriesIterator(metas...)
	}}
}

// decode reads all chunks and checks that they are in order and do not overlap.
func decode(t *testing.T, s storage.ChunkSeries) (out []sample, n int) {
	t.Helper()
	maxt := int64(-1)
	it := s.Iterator(nil)
	for ; it.Next(); n++ {
		meta := it.At()
		require.Greater(t, meta.MinTime, maxt)
		maxt = meta.MaxTime
		si := meta.Chunk.Iterator(nil)
		for typ := si.Next(); typ != chunkenc.ValNone; typ = si.Next() {
			out = append(out, at(si, typ))
		}
		require.NoError(t, si.Err())
	}
	require.NoError(t, it.Err())
	return out, n
}

func TestChunksHoldWhatSeriesReturns(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 4))
		sources := randomSources(r)
		var in []storage.ChunkSeries
		for i := range sources {
			in = append(in, chunkSeries(t, sources[i], 1+r.IntN(6)))
		}
		want := model(sources)
		got, _ := decode(t, ChunkSeries(in...))
		require.Len(t, got, len(want), "seed %d", seed)
		for i := range want {
			require.Equal(t, want[i].t, got[i].t, "seed %d", seed)
			require.Equal(t, want[i].key(), got[i].key(), "seed %d, time %d", seed, got[i].t)
			require.Equal(t, want[i].st, got[i].st, "seed %d, time %d", seed, got[i].t)
		}
	}
}

func TestEqualChunksPassAndStillVote(t *testing.T) {
	a := []sample{{t: 1, f: 1}, {t: 2, f: 1}, {t: 11, f: 1}, {t: 12, f: 1}}
	_, n := decode(t, ChunkSeries(chunkSeries(t, a, 2), chunkSeries(t, a, 2), chunkSeries(t, a, 2)))
	require.Equal(t, 2, n)

	// The larger value of the third source loses against two equal chunks.
	b := []sample{{t: 1, f: 9}, {t: 2, f: 9}}
	for _, in := range [][]storage.ChunkSeries{
		{chunkSeries(t, a, 2), chunkSeries(t, a, 2), chunkSeries(t, b, 2)},
		{chunkSeries(t, b, 2), chunkSeries(t, a, 2), chunkSeries(t, a, 2)},
	} {
		got, _ := decode(t, ChunkSeries(in...))
		require.Equal(t, dump(a), dump(got))
	}
}

func TestErrorOfOneSourceEndsTheChunks(t *testing.T) {
	broken := &storage.ChunkSeriesEntry{Lset: lset, ChunkIteratorFn: func(chunks.Iterator) chunks.Iterator {
		return failingChunks{storage.NewListChunkSeriesIterator()}
	}}
	it := ChunkSeries(chunkSeries(t, []sample{{t: 1, f: 1}}, 1), broken).Iterator(nil)
	require.False(t, it.Next())
	require.ErrorIs(t, it.Err(), errBroken)
}

type failingChunks struct{ chunks.Iterator }

func (failingChunks) Err() error { return errBroken }
