package reader

import (
	"fmt"
	"math"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/countbucket"
	"github.com/duramendb/duramen/chunkstore/budget"
)

// TestMetricsThatAlternateAreReadOnce: a label that sorts before the metric's name mixes the pages of a block. Chunks are
// fetched in the order in which they are asked for all the same, whether they fit in memory together or not.
func TestMetricsThatAlternateAreReadOnce(t *testing.T) {
	const series = 600
	dir := t.TempDir()
	w, err := tsdb.NewBlockWriter(nopLog, dir, 1<<40)
	require.NoError(t, err)
	app := w.AppenderV2(t.Context())
	for i := range series {
		lset := labels.FromStrings("A", fmt.Sprintf("%04d", i), labels.MetricName, fmt.Sprintf("m%d", i%5))
		for ts := range int64(50) {
			_, err := app.Append(0, lset, 0, ts*1000, math.Sqrt(float64(ts*int64(i))), nil, nil, storage.AOptions{})
			require.NoError(t, err)
		}
	}
	require.NoError(t, app.Commit())
	id, err := w.Flush(t.Context())
	require.NoError(t, err)
	require.NoError(t, w.Close())
	f := &fixture{bkt: bucket.NewInMemory()}
	f.add(t, dir+"/"+id.String())
	want := f.answer(t)
	bkt := countbucket.New(f.bkt)
	for _, most := range []int64{200_000, 64 << 20} {
		rd := f.reader(t, bkt, func(o *setting) { o.pool = budget.PoolConfig{Bytes: most} })
		q := must(rd.Querier(tenantID, f.blocks, nil, 0, math.MaxInt64))
		bkt.Reset()
		got, err := dump(q.Select(t.Context(), true, nil, everything))
		require.NoError(t, err)
		require.Equal(t, want, got)
		is, err := f.bkt.Stat(t.Context(), segmentKey(tenantID, f.blocks[0].ULID, 0))
		require.NoError(t, err)
		require.Greater(t, is.Size, int64(100_000))
		ops := bkt.Ops().Kind("chunks")
		require.LessOrEqual(t, len(ops), 10, "%d bytes of memory", most)
		require.NoError(t, q.Close())
	}
}
