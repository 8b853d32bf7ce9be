package samplemerge

import (
	"testing"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"
)

func TestWhichStartTimestampWins(t *testing.T) {
	for name, tc := range map[string]struct {
		starts []int64
		want   int64
	}{
		"none knows":                      {[]int64{0, 0, 0}, 0},
		"one knows":                       {[]int64{0, 5, 0}, 5},
		"most":                            {[]int64{9, 5, 5}, 5},
		"as many: the latest":             {[]int64{9, 5, 0}, 9},
		"before the epoch, known":         {[]int64{0, -5, 0}, -5},
		"before the epoch, most":          {[]int64{-5, 9, -5}, -5},
		"before the epoch, the latest is": {[]int64{-5, -9}, -5},
	} {
		t.Run(name, func(t *testing.T) {
			for _, s := range []sample{
				{f: 1}, {h: tsdbutil.GenerateTestHistogram(1)}, {fh: tsdbutil.GenerateTestFloatHistogram(1)},
			} {
				var sources [][]sample
				var inChunks []storage.ChunkSeries
				for _, st := range tc.starts {
					s.t, s.st = 10, st
					sources = append(sources, []sample{s})
					inChunks = append(inChunks, chunkSeries(t, []sample{s}, 1))
				}
				require.Equal(t, tc.want, drain(t, merged(sources).Iterator(nil))[0].st)
				got, _ := decode(t, ChunkSeries(inChunks...))
				require.Len(t, got, 1)
				require.Equal(t, tc.want, got[0].st)
			}
		})
	}
}

// TestTheStartTimestampOfALoserDoesNotCount: it belongs to another value.
func TestTheStartTimestampOfALoserDoesNotCount(t *testing.T) {
	got := drain(t, merged([][]sample{{{t: 1, f: 2, st: 9}}, {{t: 1, f: 1, st: 3}}, {{t: 1, f: 1}}}).Iterator(nil))
	require.Equal(t, dump([]sample{{t: 1, f: 1, st: 3}}), dump(got))
}

// TestChunksWithoutStartTimestampsStayAsTheyAre: what peers can read is not encoded in what they cannot.
func TestChunksWithoutStartTimestampsStayAsTheyAre(t *testing.T) {
	with := []sample{{t: 1, f: 1, st: 1}, {t: 3, f: 1, st: 1}}
	without := []sample{{t: 2, f: 1}, {t: 4, f: 1}}
	encodings := func(sources ...[]sample) (out []chunkenc.Encoding) {
		var in []storage.ChunkSeries
		for _, s := range sources {
			in = append(in, chunkSeries(t, s, 10))
		}
		var it chunks.Iterator
		for it = ChunkSeries(in...).Iterator(nil); it.Next(); {
			out = append(out, it.At().Chunk.Encoding())
		}
		require.NoError(t, it.Err())
		return out
	}
	require.Equal(t, []chunkenc.Encoding{chunkenc.EncXOR}, encodings(without, []sample{{t: 3, f: 1}}))
	require.Equal(t, []chunkenc.Encoding{chunkenc.EncXOR2}, encodings(with, without))
	require.Equal(t, []chunkenc.Encoding{chunkenc.EncXOR2}, encodings(with, []sample{{t: 1, f: 1}, {t: 3, f: 1}}),
		"the copy that knows more")
}
