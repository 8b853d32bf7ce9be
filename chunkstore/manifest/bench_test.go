package manifest

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
)

// BenchmarkAdd is the cost of one announcement without that of the bucket: what grows with the manifest.
func BenchmarkAdd(b *testing.B) {
	for _, size := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("blocks=%d", size), func(b *testing.B) {
			bkt := bucket.NewInMemory()
			var blocks []Block
			for n := range size {
				blocks = append(blocks, testBlock(n))
			}
			base, _ := (&Manifest{Tenant: "acme"}).withBlocks(blocks, 0, "x")
			data, err := Encode(base)
			require.NoError(b, err)
			require.NoError(b, bkt.PutIfAbsent(b.Context(), Key("acme", 1), data))
			o := newTestOwner(bkt, time.Now)
			b.ReportAllocs()
			b.ReportMetric(float64(len(data)), "bytes/version")
			for n := 0; b.Loop(); n++ {
				_, err := o.Add(b.Context(), "acme", testBlock(size+n))
				require.NoError(b, err)
			}
		})
	}
}
