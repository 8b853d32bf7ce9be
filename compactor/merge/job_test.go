package merge

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/blockgen"
	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
)

func TestOutputIsDescribed(t *testing.T) {
	w := replicas(t)
	bkt, j, cfg := w.put(t), w.job(1), Config{Scratch: t.TempDir()}
	j.Inputs[1].Block.OutOfOrder = true // one of them alone does not make the output so
	j.Labels, j.Shard, j.DeletedThrough, j.Level = map[string]string{"cluster": "a"}, "1_of_2", 7, 3
	var p Progress
	r, err := Run(t.Context(), cfg, bkt, tenantID, j, &p)
	require.NoError(t, err)
	b := r.Block
	require.Equal(t, j.ULID, b.ULID)
	require.Equal(t, 3, b.Level)
	require.Equal(t, uint64(7), b.Deleted)
	require.Equal(t, j.Labels, b.Labels)
	require.Equal(t, "1_of_2", b.Shard)
	require.Equal(t, "compactor/x", b.Writer)
	require.Len(t, b.Sources, 2)
	require.False(t, b.OutOfOrder)
	require.Equal(t, [2]int64{0, 2000}, [2]int64{b.MinTime, b.MaxTime})
	require.Equal(t, [3]uint64{6, 12, 120}, [3]uint64{b.Series, b.Chunks, b.Samples})
	require.Positive(t, b.SidecarBytes)
	require.Positive(t, b.IndexBytes)
	require.Equal(t, [4]uint64{239, 120, 119, 0}, [4]uint64{r.InputSamples, r.OutputSamples, r.Duplicates, r.Conflicts})
	require.Equal(t, [4]uint64{11, 1, 11, 2}, [4]uint64{r.ChunksCopied, r.ChunksEncoded, r.ChunksDropped, r.ChunksDecoded})
	require.NoError(t, block.Verify(t.Context(), bkt, tenantID, j.ULID))
	m, err := block.FetchMeta(t.Context(), bkt, tenantID, j.ULID)
	require.NoError(t, err)
	require.Len(t, m.Compaction.Parents, 2)
	require.Equal(t, uint64(120), m.Stats.NumFloatSamples)
	s := p.Snapshot()
	require.Equal(t, "done", s.Phase)
	require.Equal(t, uint64(120), s.Samples)
	require.Positive(t, s.BytesVerified)
	require.Equal(t, r.BytesRead, s.BytesRead)
}

// TestJobsRest: while series are read and merged, and while the output is read back.
func TestJobsRest(t *testing.T) {
	w := replicas(t)
	w.deletions = [][]manifest.Deletion{{{ID: 1, Selectors: []string{"n"}}}, nil}
	bkt, j := w.put(t), w.job(1)
	var p Progress
	phases := map[string]bool{}
	j.Rest = func() { phases[p.Snapshot().Phase] = true }
	_, err := Run(t.Context(), Config{Scratch: t.TempDir()}, bkt, tenantID, j, &p)
	require.NoError(t, err)
	require.Equal(t, map[string]bool{"symbols": true, "series": true, "verify": true}, phases)
}

func TestNothingIsLeft(t *testing.T) {
	w := replicas(t)
	all := manifest.Deletion{ID: 3, Selectors: []string{"m"}, MinTime: math.MinInt64, MaxTime: math.MaxInt64}
	w.deletions = [][]manifest.Deletion{{all}, {all}}
	bkt, j, cfg := w.put(t), w.job(1), Config{Scratch: t.TempDir()}
	r, err := Run(t.Context(), cfg, bkt, tenantID, j, nil)
	require.NoError(t, err)
	require.True(t, r.Empty)
	require.Zero(t, r.Block)
	require.Equal(t, uint64(239), r.Deleted)
	requireNothing(t, bkt, j, cfg)
}

// TestRewriteKeepsWhatTheBlockIs: a block alone, cut from out-of-order samples, stays one that overlaps others.
func TestRewriteKeepsWhatTheBlockIs(t *testing.T) {
	w := replicas(t)
	bkt, j := w.put(t), w.job(1)
	j.Inputs = j.Inputs[:1]
	j.Inputs[0].Block.OutOfOrder = true
	r, err := Run(t.Context(), Config{Scratch: t.TempDir()}, bkt, tenantID, j, nil)
	require.NoError(t, err)
	require.True(t, r.Block.OutOfOrder)
	require.Equal(t, uint64(12), r.ChunksCopied)
}

// TestDeletedNamesAreGone: what only deleted series were called is not in the output's bytes.
func TestDeletedNamesAreGone(t *testing.T) {
	w := replicas(t)
	secret := labels.FromStrings(labels.MetricName, "n", "customer", "secret")
	for i := range w.series {
		w.series[i] = append(w.series[i], blockgen.Series{Labels: secret, Chunks: w.series[i][0].Chunks})
		var err error
		w.blocks[i], err = blockgen.Build(blockgen.Options{ULID: w.blocks[i].Entry.ULID, MaxTime: 2000}, w.series[i])
		require.NoError(t, err)
	}
	d := manifest.Deletion{ID: 1, Selectors: []string{`{customer="secret"}`}, MinTime: math.MinInt64, MaxTime: math.MaxInt64}
	w.deletions = [][]manifest.Deletion{{d}, {d}}
	want, _ := w.naive(t)
	bkt, j := w.put(t), w.job(1)
	r, err := Run(t.Context(), Config{Scratch: t.TempDir()}, bkt, tenantID, j, nil)
	require.NoError(t, err)
	require.Equal(t, uint64(40), r.Deleted)
	require.Equal(t, want, dump(t, bkt, j, r))
	for _, name := range []string{block.IndexName, block.SidecarName} {
		data := buckettest.Get(t, bkt, block.Key(tenantID, j.ULID, name))
		require.NotContains(t, data, "secret")
		require.NotContains(t, data, "customer")
	}
}

func TestRefusals(t *testing.T) {
	w := replicas(t)
	bkt, scratch := w.put(t), t.TempDir()
	var large *TooLarge
	_, err := Run(t.Context(), Config{Scratch: scratch, MaxIndexBytes: 10}, bkt, tenantID, w.job(1), nil)
	require.ErrorAs(t, err, &large)
	require.Equal(t, errkind.Unprocessable, errkind.Of(err))
	_, err = Run(t.Context(), Config{Scratch: scratch, MinFreeBytes: 1 << 60}, bkt, tenantID, w.job(1), nil)
	require.Equal(t, errkind.Unavailable, errkind.Of(err))
	require.ErrorContains(t, err, "free")
	for name, change := range map[string]func(*Job){
		"no inputs":  func(j *Job) { j.Inputs = nil },
		"twice":      func(j *Job) { j.Inputs[1] = j.Inputs[0] },
		"range":      func(j *Job) { j.MinTime, j.MaxTime = 100, 2000 },
		"same ULID":  func(j *Job) { j.ULID = j.Inputs[0].Block.ULID },
		"deletions":  func(j *Job) { j.Inputs[0].Deletions = []uint64{1} },
		"odd shards": func(j *Job) { j.Shard = "left half" },
	} {
		j := w.job(1)
		change(&j)
		_, err := Run(t.Context(), Config{Scratch: scratch}, bkt, tenantID, j, nil)
		require.Equal(t, errkind.Invalid, errkind.Of(err), name)
	}
	requireNothing(t, bkt, w.job(1), Config{Scratch: scratch})
}

// TestLiesOfTheManifest: what is listed of an input has to be there.
func TestLiesOfTheManifest(t *testing.T) {
	w := replicas(t)
	bkt, j, cfg := w.put(t), w.job(1), Config{Scratch: t.TempDir()}
	j.Inputs[1].Block.Samples++
	_, err := Run(t.Context(), cfg, bkt, tenantID, j, nil)
	var d *Damaged
	require.ErrorAs(t, err, &d)
	require.Equal(t, w.blocks[1].Entry.ULID, d.ULID)
	requireNothing(t, bkt, j, cfg)
}

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, Sweep(Config{Scratch: filepath.Join(dir, "none")}))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, scratchPrefix+"x", "y"), 0o750))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "other"), nil, 0o600))
	require.NoError(t, Sweep(Config{Scratch: dir}))
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1)
}

// TestHints: the header of a histogram's chunk is kept behind the chunk that it speaks of, and only there.
func TestHints(t *testing.T) {
	lset := labels.FromStrings(labels.MetricName, "h")
	chunk := func(from int64, header chunkenc.CounterResetHeader, hint histogram.CounterResetHint) blockgen.Chunk {
		c := chunkenc.NewHistogramChunk()
		app, err := c.Appender()
		require.NoError(t, err)
		for i := range int64(3) {
			h := tsdbutil.GenerateTestHistogram(from + i)
			h.CounterResetHint = hint
			_, _, app, err = app.AppendHistogram(nil, 0, from+i, h, true)
			require.NoError(t, err)
		}
		c.Bytes()[2] = c.Bytes()[2]&^chunkenc.CounterResetHeaderMask | byte(header)
		return blockgen.Chunk{MinTime: from, MaxTime: from + 2, Encoding: c.Encoding(), Data: c.Bytes(), Samples: 3}
	}
	unknown, not := chunkenc.UnknownCounterReset, chunkenc.NotCounterReset
	w := &world{series: [][]blockgen.Series{
		{{Labels: lset, Chunks: []blockgen.Chunk{
			chunk(10, chunkenc.CounterReset, 0), chunk(20, not, 0), chunk(40, not, 0), chunk(60, chunkenc.GaugeType, histogram.GaugeType),
		}}},
		{{Labels: lset, Chunks: []blockgen.Chunk{chunk(30, not, 0), chunk(50, chunkenc.GaugeType, histogram.GaugeType)}}},
	}}
	for i, s := range w.series {
		b, err := blockgen.Build(blockgen.Options{ULID: blockgen.ULID(5000, uint64(i)), MaxTime: 100}, s) //nolint:gosec // small
		require.NoError(t, err)
		w.blocks = append(w.blocks, b)
	}
	var got []chunkenc.CounterResetHeader
	_, err := attempt(t.Context(), Config{Scratch: t.TempDir()}, w.put(t), w.job(1), func(m *merger) {
		m.out = &saboteur{sink: m.out, onChunk: func(_ int, r record, mint, maxt int64, next sink) error {
			require.True(t, r.intact())
			got = append(got, chunkenc.CounterResetHeader(r.data()[2]&chunkenc.CounterResetHeaderMask))
			return next.chunk(r, mint, maxt)
		}}
	})
	require.NoError(t, err)
	gauge := chunkenc.GaugeType
	require.Equal(t, []chunkenc.CounterResetHeader{unknown, not, unknown, unknown, gauge, gauge}, got)
}

// TestStartTimestamps: chunks that have them are copied, and keep them when they are encoded again.
func TestStartTimestamps(t *testing.T) {
	lset := labels.FromStrings(labels.MetricName, "m")
	chunk := func(times ...int64) blockgen.Chunk {
		c := chunkenc.NewXOR2Chunk()
		app, err := c.Appender()
		require.NoError(t, err)
		for _, ts := range times {
			app.Append(ts-7, ts, float64(ts))
		}
		return blockgen.Chunk{
			MinTime: times[0], MaxTime: times[len(times)-1], Encoding: c.Encoding(), Data: c.Bytes(), Samples: len(times),
		}
	}
	w := &world{series: [][]blockgen.Series{
		{{Labels: lset, Chunks: []blockgen.Chunk{chunk(10, 20, 30), chunk(40, 50)}}},
		{{Labels: lset, Chunks: []blockgen.Chunk{chunk(10, 25, 30), chunk(40, 50)}}},
	}}
	for i, s := range w.series {
		b, err := blockgen.Build(blockgen.Options{ULID: blockgen.ULID(5000, uint64(i)), MaxTime: 100}, s) //nolint:gosec // small
		require.NoError(t, err)
		b.Entry.Samples = 5
		w.blocks = append(w.blocks, b)
	}
	bkt, j := w.put(t), w.job(1)
	want, _ := w.naive(t)
	require.Len(t, want[lset.String()], 6)
	r, err := Run(t.Context(), Config{Scratch: t.TempDir()}, bkt, tenantID, j, nil)
	require.NoError(t, err)
	require.Equal(t, uint64(1), r.ChunksCopied)
	require.Equal(t, want, readBack(t, bkt, j))
	for _, s := range want[lset.String()] {
		require.Equal(t, s.t-7, s.st)
	}
}
