package blockcheck

import (
	"path/filepath"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"
)

// BenchmarkCheck reads a block of 20,000 series from disk.
func BenchmarkCheck(b *testing.B) {
	dir := writeBlock(b, b.TempDir(), shape{series: 20_000, samples: 120, step: 15_000})
	id := ulid.MustParse(filepath.Base(dir))
	samples := uint64(0)
	for b.Loop() {
		faults, sum, err := Gather(b.Context(), InDirectory(dir), id, 1)
		require.NoError(b, err)
		require.Empty(b, faults)
		b.SetBytes(sum.Bytes)
		samples += sum.Samples()
	}
	b.ReportMetric(float64(samples)/b.Elapsed().Seconds(), "samples/s")
}
