package reader

import (
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/duramendb/duramen/chunkstore/blockgen"
	"github.com/duramendb/duramen/internal/samplemerge"
)

// BenchmarkSamples reads all samples of a metric over ten daily blocks that are on the local disk: by way of the disk
// cache, and with Prometheus' own reader.
func BenchmarkSamples(b *testing.B) {
	g := newGrid(b, blockgen.Grid{Metrics: 2, Series: 200, Interval: 60_000, Start: 19_675 * 86_400_000}, 10)
	name := equal(labels.MetricName, g.grid.Metric(1))
	b.Run("duramen", func(b *testing.B) {
		r := g.setup(b, func(o *setting) { o.disk = openDisk(b) })
		g.read(b, r, nil, name)
		b.ReportAllocs()
		for b.Loop() {
			g.read(b, r, nil, name)
		}
	})
	b.Run("prometheus", func(b *testing.B) {
		f, dir := &fixture{}, b.TempDir()
		_, err := g.grid.Write(dir, g.days)
		if err != nil {
			b.Fatal(err)
		}
		for _, block := range g.blocks {
			local, err := tsdb.OpenBlock(nopLog, dir+"/"+block.ULID.String(), nil, nil)
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = local.Close() })
			f.local = append(f.local, local)
		}
		b.ReportAllocs()
		for b.Loop() {
			var qs []storage.Querier
			for _, local := range f.local {
				q, err := tsdb.NewBlockQuerier(local, 0, 1<<60)
				if err != nil {
					b.Fatal(err)
				}
				qs = append(qs, q)
			}
			q := storage.NewMergeQuerier(qs, nil, samplemerge.Series)
			readSet(b, q.Select(b.Context(), true, nil, name))
			_ = q.Close()
		}
	})
}
