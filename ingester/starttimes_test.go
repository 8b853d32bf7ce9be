package ingester

import (
	"context"
	"maps"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/duramenpb"
)

// started is a batch in which every sample has a start timestamp: floats, both kinds of histograms, a stale marker, and
// start timestamps that nobody should send. It returns the start timestamps by series and time as well.
func started(t0 int64) (b *batch, want map[string]map[int64]int64) {
	b, want = new(batch), map[string]map[int64]int64{}
	for _, kind := range []string{"float", "histogram", "float histogram"} {
		lset := named(kind)
		of := map[int64]int64{}
		starts := []int64{
			t0 - 5000, t0 - 5000, t0 - 1, t0 + 3000, 0, -7, t0 + 999_999, math.MinInt64, math.MaxInt64, t0 + 8500, t0 + 9000,
		}
		for i, st := range starts {
			t := t0 + int64(i)*1000
			of[t] = st
			switch {
			case kind == "histogram":
				b.Histograms = append(b.Histograms, duramenpb.Histogram{T: t, ST: st, H: tsdbutil.GenerateTestHistogram(int64(i))})
			case kind == "float histogram":
				b.Histograms = append(b.Histograms,
					duramenpb.Histogram{T: t, ST: st, FH: tsdbutil.GenerateTestFloatHistogram(int64(i))})
			case i == len(starts)-1:
				b.Floats = append(b.Floats, duramenpb.Float{T: t, ST: st, V: math.Float64frombits(value.StaleNaN)})
			default:
				b.Floats = append(b.Floats, duramenpb.Float{T: t, ST: st, V: float64(i)})
			}
		}
		b.end(duramenpb.Series{Labels: lset})
		want[lset.String()] = of
	}
	return b, want
}

// readStarts returns the start timestamps of the tenant "a" by series and time, once as samples and once as chunks, and
// the encodings of the chunks.
func (f *fixture) readStarts() (samples, chunks map[string]map[int64]int64, encodings map[chunkenc.Encoding]bool) {
	f.t.Helper()
	everything := labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+")
	drain := func(it chunkenc.Iterator, into map[int64]int64) {
		for it.Next() != chunkenc.ValNone {
			into[it.AtT()] = it.AtST()
		}
		require.NoError(f.t, it.Err())
	}
	samples, chunks = map[string]map[int64]int64{}, map[string]map[int64]int64{}
	q, _, err := f.Querier(context.Background(), "a", all, math.MinInt64, math.MaxInt64)
	require.NoError(f.t, err)
	set := q.Select(context.Background(), false, nil, everything)
	for set.Next() {
		of := map[int64]int64{}
		drain(set.At().Iterator(nil), of)
		samples[set.At().Labels().String()] = of
	}
	require.NoError(f.t, set.Err())
	require.NoError(f.t, q.Close())

	encodings = map[chunkenc.Encoding]bool{}
	cq, _, err := f.ChunkQuerier(context.Background(), "a", all, math.MinInt64, math.MaxInt64)
	require.NoError(f.t, err)
	cset := cq.Select(context.Background(), false, nil, everything)
	for cset.Next() {
		of := map[int64]int64{}
		it := cset.At().Iterator(nil)
		for it.Next() {
			encodings[it.At().Chunk.Encoding()] = true
			drain(it.At().Chunk.Iterator(nil), of)
		}
		require.NoError(f.t, it.Err())
		chunks[cset.At().Labels().String()] = of
	}
	require.NoError(f.t, cset.Err())
	require.NoError(f.t, cq.Close())
	return samples, chunks, encodings
}

func (f *fixture) requireStarts(want map[string]map[int64]int64, when string) {
	f.t.Helper()
	samples, chunks, _ := f.readStarts()
	require.Equal(f.t, want, samples, when)
	require.Equal(f.t, want, chunks, when)
}

// kill gives what a SIGKILL leaves behind: a copy of the folder while the ingester runs. It goes on from there.
func (f *fixture) kill() {
	f.t.Helper()
	left := filepath.Join(f.t.TempDir(), "ingester")
	require.NoError(f.t, os.CopyFS(left, os.DirFS(f.dir)))
	f.stop()
	f.dir = left
	f.start()
}

// TestStartTimestampsAreKept: through the log, the head, out of order, a kill, a restart, blocks and a retry.
func TestStartTimestampsAreKept(t *testing.T) {
	f := idleFixture(t)
	f.starts = true
	f.start()
	t0 := ms(testStart.Add(-time.Hour))
	b, want := started(t0)
	r := f.push(b)
	require.Equal(t, 33, r.Floats+r.Histograms)
	require.Empty(t, r.Refused)
	f.requireStarts(want, "in the head")

	late, more := started(t0 - time.Hour.Milliseconds())
	require.Empty(t, f.push(late).Refused)
	for series, of := range more {
		maps.Copy(want[series], of)
	}
	f.requireStarts(want, "in the head, in part out of order")
	f.kill()
	f.requireStarts(want, "after a kill")
	f.restart()
	f.requireStarts(want, "after a restart")

	again, _ := started(t0)
	for i := range again.Floats {
		again.Floats[i].ST++
	}
	r = f.push(again)
	require.Equal(t, 33, r.Floats+r.Histograms, "a sample that is held is a success, whatever its start timestamp")
	f.requireStarts(want, "after a retry: the first start timestamp stays")

	res, err := f.Flush(context.Background(), "a", false)
	require.NoError(t, err)
	require.NotEmpty(t, res.Blocks)
	f.requireStarts(want, "in local blocks")
	f.kill()
	f.requireStarts(want, "in local blocks, after a kill")
	require.Zero(t, testutil.ToFloat64(f.metrics.startTimes))
}

// TestStartTimestampsAreDroppedByDefault: taken, counted, and nothing is written that peers cannot read.
func TestStartTimestampsAreDroppedByDefault(t *testing.T) {
	f := newFixture(t)
	t0 := ms(testStart.Add(-time.Hour))
	for _, at := range []int64{t0, t0 - time.Hour.Milliseconds()} {
		b, _ := started(at)
		require.Empty(t, f.push(b).Refused)
	}
	require.InDelta(t, 60, testutil.ToFloat64(f.metrics.startTimes), 0)
	none := func(when string) {
		t.Helper()
		samples, chunks, encodings := f.readStarts()
		for _, read := range []map[string]map[int64]int64{samples, chunks} {
			require.Len(t, read, 3, when)
			for _, of := range read {
				require.Len(t, of, 22, when)
				for at, st := range of {
					require.Zero(t, st, "%s, at %d", when, at)
				}
			}
		}
		require.Equal(t, map[chunkenc.Encoding]bool{
			chunkenc.EncXOR: true, chunkenc.EncHistogram: true, chunkenc.EncFloatHistogram: true,
		}, encodings, when)
	}
	none("in the head")
	f.kill()
	none("after a kill")
	_, err := f.Flush(context.Background(), "a", false)
	require.NoError(t, err)
	none("in local blocks")
}

// TestTheSwitchCanBeTurned: no sample is lost by it. Off, those in memory go on without their start timestamps.
func TestTheSwitchCanBeTurned(t *testing.T) {
	f := idleFixture(t)
	f.starts = true
	f.start()
	t0 := ms(testStart.Add(-time.Hour))
	count := func() (samples, withStart int) {
		read, _, _ := f.readStarts()
		for _, of := range read {
			for _, st := range of {
				samples++
				if st != 0 {
					withStart++
				}
			}
		}
		return samples, withStart
	}
	for i, starts := range []bool{true, false, true} {
		f.starts = starts
		f.restart()
		b, _ := started(t0 + int64(i)*60_000)
		require.Empty(t, f.push(b).Refused)
		f.kill()
		samples, withStart := count()
		require.Equal(t, 33*(i+1), samples)
		if !starts {
			require.Zero(t, withStart)
		}
	}
	_, err := f.Flush(context.Background(), "a", false)
	require.NoError(t, err)
	samples, withStart := count()
	require.Equal(t, 99, samples)
	require.GreaterOrEqual(t, withStart, 30, "what came since it is on")
}
