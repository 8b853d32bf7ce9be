package reader

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/index"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

// addForeign adds a block with one series whose chunks hold the samples at these times, in this order, which the writers
// of Prometheus refuse by now. It has no index: the sidecar is there.
func (f *fixture) addForeign(t *testing.T, id ulid.ULID, times ...[]int64) {
	t.Helper()
	dir, lset := t.TempDir(), labels.FromStrings(labels.MetricName, "m")
	metas := make([]chunks.Meta, len(times))
	for i, list := range times {
		c := chunkenc.NewXORChunk()
		app := must(c.Appender())
		for _, ts := range list {
			app.Append(0, ts, float64(ts))
		}
		metas[i] = chunks.Meta{MinTime: list[0], MaxTime: list[len(list)-1], Chunk: c}
	}
	cw, err := chunks.NewWriter(filepath.Join(dir, "chunks"))
	require.NoError(t, err)
	require.NoError(t, cw.WriteChunks(metas...))
	require.NoError(t, cw.Close())
	segment := must(os.ReadFile(filepath.Join(dir, "chunks", "000001")))
	put(t, f.bkt, segmentKey(tenantID, id, 0), segment)
	var out bytes.Buffer
	builder, err := index.NewBuilder(&out, 0, 1000, []int64{int64(len(segment))})
	require.NoError(t, err)
	places := make([]index.Chunk, len(metas))
	for i, m := range metas {
		number, offset := chunks.BlockChunkRef(m.Ref).Unpack()
		places[i] = index.Chunk{
			Segment: uint32(number), Offset: uint32(offset), MinTime: m.MinTime, MaxTime: m.MaxTime,
			Length: uint32(len(encodeRecord(m.Chunk.Encoding(), m.Chunk.Bytes()))),
		}
	}
	require.NoError(t, builder.Add(lset, places))
	size, directory, err := builder.Finish()
	require.NoError(t, err)
	put(t, f.bkt, sidecarKey(tenantID, id), out.Bytes())
	f.blocks = append(f.blocks, manifest.Block{
		ULID: id, MinTime: 0, MaxTime: 1000, Sources: []ulid.ULID{id}, SidecarBytes: size, DirectoryBytes: directory,
	})
}

// TestChunksOutOfOrderInABlock: those of a foreign block are merged by time, and none is left out.
func TestChunksOutOfOrderInABlock(t *testing.T) {
	for name, times := range map[string][][]int64{
		"disorder":    {{10, 20}, {50, 60}, {30, 40}},
		"overlap":     {{10, 30, 50}, {20, 40, 60}},
		"same border": {{10, 20, 30}, {30, 40}, {40, 50, 60}},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fixture{bkt: bucket.NewInMemory()}
			f.addForeign(t, missingID(), times...)
			rd := f.reader(t, f.bkt)
			for mint := int64(0); mint <= 70; mint += 10 {
				for maxt := mint; maxt <= 70; maxt += 10 {
					want := labels.FromStrings(labels.MetricName, "m").String() + "\n"
					found := false
					for ts := max(mint, 10); ts <= min(maxt, 60); ts += 10 {
						want += fmt.Sprintf("%d %016x\n", ts, math.Float64bits(float64(ts)))
						found = true
					}
					if !found {
						continue
					}
					q := must(rd.Querier(tenantID, f.blocks, nil, mint, maxt))
					hints := &storage.SelectHints{Start: mint, End: maxt}
					got, err := dump(q.Select(t.Context(), true, hints, everything))
					require.NoError(t, err)
					require.Equal(t, want, got, "[%d, %d]", mint, maxt)
					require.NoError(t, q.Close())
					cq := must(rd.ChunkQuerier(tenantID, f.blocks, nil, mint, maxt))
					require.Equal(t, want, dumpChunks(t, cq.Select(t.Context(), true, hints, everything)), "[%d, %d]", mint, maxt)
					require.NoError(t, cq.Close())
				}
			}
		})
	}
}
