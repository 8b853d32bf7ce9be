package merge

import (
	"fmt"
	"math"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/blockgen"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

// BenchmarkDeletions merges three replicas of 100,000 series, with a thousand deletions of a metric each and without. One
// in 200 deletions is of a metric that is there.
func BenchmarkDeletions(b *testing.B) {
	const series, inputs, metrics = 100_000, 3, 200
	w := &world{series: make([][]blockgen.Series, inputs)}
	chunk := floats(b, []int64{0, 1000}, []float64{1, 2})
	for i := range series {
		lset := labels.FromStrings(labels.MetricName, fmt.Sprintf("metric_%03d", i/(series/metrics)), "pod", fmt.Sprintf("%06d", i))
		for k := range inputs {
			w.series[k] = append(w.series[k], blockgen.Series{Labels: lset, Chunks: []blockgen.Chunk{chunk}})
		}
	}
	for k, s := range w.series {
		block, err := blockgen.Build(blockgen.Options{ULID: blockgen.ULID(5000, uint64(k)), MaxTime: 2000}, s) //nolint:gosec // small
		require.NoError(b, err)
		w.blocks = append(w.blocks, block)
	}
	for _, deletions := range []uint64{0, 1000} {
		b.Run(fmt.Sprint(deletions), func(b *testing.B) {
			w.deletions = make([][]manifest.Deletion, inputs)
			for k := range w.deletions {
				for id := range deletions {
					w.deletions[k] = append(w.deletions[k], manifest.Deletion{
						ID: id + 1, Selectors: []string{fmt.Sprintf(`metric_%03d{pod=~".*7"}`, id)}, MinTime: 500, MaxTime: math.MaxInt64,
					})
				}
			}
			for i := uint64(1); b.Loop(); i++ {
				j := w.job(i)
				r, err := Run(b.Context(), Config{Scratch: b.TempDir()}, w.put(b), tenantID, j, nil)
				require.NoError(b, err)
				require.Equal(b, deletions > 0, r.Deleted > 0)
			}
		})
	}
}
