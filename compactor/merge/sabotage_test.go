package merge

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/blockgen"
	"github.com/duramendb/duramen/chunkstore/bucket"
)

// replicas is a world of two blocks of floats that are equal but for one sample of one series.
func replicas(t testing.TB) *world {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 1))
	w := &world{series: make([][]blockgen.Series, 2)}
	for i := range 6 {
		lset := labels.FromStrings(labels.MetricName, "m", "i", string(rune('a'+i)))
		var whole, short []blockgen.Chunk
		for k := range 2 {
			var times []int64
			var values []float64
			for n := range 10 {
				times, values = append(times, int64(1000*k+100*n)), append(values, r.Float64())
			}
			whole = append(whole, floats(t, times, values))
			if i == 3 && k == 0 {
				times, values = append(times[:4:4], times[5:]...), append(values[:4:4], values[5:]...)
			}
			short = append(short, floats(t, times, values))
		}
		w.series[0] = append(w.series[0], blockgen.Series{Labels: lset, Chunks: whole})
		w.series[1] = append(w.series[1], blockgen.Series{Labels: lset, Chunks: short})
	}
	for i, s := range w.series {
		b, err := blockgen.Build(blockgen.Options{ULID: blockgen.ULID(5000, uint64(i)), MaxTime: 2000}, s) //nolint:gosec // small
		require.NoError(t, err)
		w.blocks = append(w.blocks, b)
	}
	return w
}

func floats(t testing.TB, times []int64, values []float64) blockgen.Chunk {
	t.Helper()
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	require.NoError(t, err)
	for i, ts := range times {
		app.Append(0, ts, values[i])
	}
	return blockgen.Chunk{
		MinTime: times[0], MaxTime: times[len(times)-1], Encoding: chunkenc.EncXOR, Data: c.Bytes(), Samples: len(times),
	}
}

// attempt is Run with a merger that may be changed.
func attempt(ctx context.Context, cfg Config, bkt bucket.Bucket, j Job, sabotage func(*merger)) (*Result, error) {
	return (&run{ctx: ctx, cfg: cfg.withDefaults(), bkt: bkt, tenant: tenantID, job: j, sabotage: sabotage}).do()
}

// requireNothing makes sure that nobody sees an output, and that the scratch folder is empty.
func requireNothing(t testing.TB, bkt bucket.Bucket, j Job, cfg Config) {
	t.Helper()
	_, err := bkt.Stat(context.WithoutCancel(t.Context()), block.Key(tenantID, j.ULID, block.MetaName))
	require.ErrorIs(t, err, bucket.ErrNotFound)
	requireNoScratch(t, cfg)
}

func requireNoScratch(t testing.TB, cfg Config) {
	t.Helper()
	entries, err := os.ReadDir(cfg.Scratch)
	require.NoError(t, err)
	require.Empty(t, entries)
}

// saboteur does something wrong on the way to the output.
type saboteur struct {
	sink

	onChunk  func(n int, r record, mint, maxt int64, next sink) error
	onSeries func(n int, lset labels.Labels, next sink) error
	n, s     int
}

func (x *saboteur) chunk(r record, mint, maxt int64) error {
	x.n++
	if x.onChunk != nil {
		return x.onChunk(x.n, r, mint, maxt, x.sink)
	}
	return x.sink.chunk(r, mint, maxt)
}

func (x *saboteur) series(lset labels.Labels) error {
	x.s++
	if x.onSeries != nil {
		return x.onSeries(x.s, lset, x.sink)
	}
	return x.sink.series(lset)
}

// again returns the chunk with its last sample changed by fn.
func again(r record, fn func(samples []chunkSample) []chunkSample) record {
	c, _ := chunkenc.FromData(r.encoding(), r.data())
	var all []chunkSample
	for it := c.Iterator(nil); it.Next() != chunkenc.ValNone; {
		t, v := it.At()
		all = append(all, chunkSample{t, v})
	}
	made := chunkenc.NewXORChunk()
	app, _ := made.Appender()
	for _, s := range fn(all) {
		app.Append(0, s.t, s.v)
	}
	return newRecord(made)
}

type chunkSample struct {
	t int64
	v float64
}

// TestEachLossIsCaught: whatever is lost or changed between an input and the bucket, even a single sample, with all
// checksums right, there is no output.
func TestEachLossIsCaught(t *testing.T) {
	dropSample := func(n int) func(int, record, int64, int64, sink) error {
		return func(k int, r record, mint, maxt int64, next sink) error {
			if k == n {
				r = again(r, func(s []chunkSample) []chunkSample { return append(s[:5:5], s[6:]...) })
			}
			return next.chunk(r, mint, maxt)
		}
	}
	var held *record
	for name, sabotage := range map[string]func(*merger){
		"a sample of a chunk that is copied":  func(m *merger) { m.out = &saboteur{sink: m.out, onChunk: dropSample(1)} },
		"a sample of a chunk that is encoded": func(m *merger) { m.out = &saboteur{sink: m.out, onChunk: dropSample(7)} },
		"a value": func(m *merger) {
			m.out = &saboteur{sink: m.out, onChunk: func(k int, r record, mint, maxt int64, next sink) error {
				if k == 4 {
					r = again(r, func(s []chunkSample) []chunkSample { s[3].v++; return s })
				}
				return next.chunk(r, mint, maxt)
			}}
		},
		"a chunk": func(m *merger) {
			m.out = &saboteur{sink: m.out, onChunk: func(k int, r record, mint, maxt int64, next sink) error {
				if k == 4 {
					return nil
				}
				return next.chunk(r, mint, maxt)
			}}
		},
		"chunks change places within a series": func(m *merger) {
			m.out = &saboteur{sink: m.out, onChunk: func(k int, r record, mint, maxt int64, next sink) error {
				if k == 1 {
					held = &record{append([]byte(nil), r.all...), r.body}
					return nil
				}
				if k == 2 {
					return errors.Join(next.chunk(r, mint, maxt), next.chunk(*held, 0, 900))
				}
				return next.chunk(r, mint, maxt)
			}}
		},
		"chunks change places between series": func(m *merger) {
			m.out = &saboteur{sink: m.out, onChunk: func(k int, r record, mint, maxt int64, next sink) error {
				if k == 1 {
					held = &record{append([]byte(nil), r.all...), r.body}
				}
				if k == 3 {
					r = *held
				}
				return next.chunk(r, mint, maxt)
			}}
		},
		"a series": func(m *merger) {
			m.out = &saboteur{
				sink: m.out,
				onChunk: func(k int, r record, mint, maxt int64, next sink) error {
					if k == 5 || k == 6 {
						return nil
					}
					return next.chunk(r, mint, maxt)
				},
				onSeries: func(k int, lset labels.Labels, next sink) error {
					if k == 3 {
						return nil
					}
					return next.series(lset)
				},
			}
		},
		"labels of a series": func(m *merger) {
			m.out = &saboteur{sink: m.out, onSeries: func(k int, lset labels.Labels, next sink) error {
				if k == 1 {
					lset = labels.FromStrings(labels.MetricName, "i", "i", "m")
				}
				return next.series(lset)
			}}
		},
		"an input": func(m *merger) { m.inputs = m.inputs[:1] },
		"a sample in the encoder": func(m *merger) {
			m.encode = func(s storage.Series, e chunkenc.Encoding) ([]chunks.Meta, error) {
				return encodeChunks(&storage.SeriesEntry{
					SampleIteratorFn: func(chunkenc.Iterator) chunkenc.Iterator {
						return &hiding{s.Iterator(nil), func(ts int64) bool { return ts == 700 }}
					},
				}, e)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := replicas(t)
			bkt, j, cfg := w.put(t), w.job(1), Config{Scratch: t.TempDir()}
			_, err := attempt(t.Context(), cfg, bkt, j, sabotage)
			var lost *Lost
			require.ErrorAs(t, err, &lost)
			require.NotEmpty(t, lost.Reasons)
			requireNothing(t, bkt, j, cfg)
		})
	}
	w := replicas(t)
	bkt, j, cfg := w.put(t), w.job(1), Config{Scratch: t.TempDir()}
	r, err := attempt(t.Context(), cfg, bkt, j, nil)
	require.NoError(t, err)
	require.Equal(t, uint64(1), r.ChunksEncoded, "one of the chunks above is encoded")
	requireNoScratch(t, cfg)
}
