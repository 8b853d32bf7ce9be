package salvage

import (
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

// FuzzIndex reads any bytes as an index. What comes out has a checksum; nothing panics.
func FuzzIndex(f *testing.F) {
	w := newWorld(f, 1)
	whole := w.file(f, block.IndexName)
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add(flipped(whole, len(whole)-20))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		x := layOutIndex(b, func(int64, string, string, ...any) {})
		require.Less(t, x.needed(&manifest.Block{}), int64(len(b)+1)*(symbolBytes+listBytes))
		x.open()
		want := map[int64]int{}
		var last int64 = -1
		require.NoError(t, x.entries(func(e entry) error {
			require.Greater(t, e.off, last)
			last = e.off
			want[e.off] = -1
			if e.content != nil {
				symbols, _, err := decodeEntry(e.content, nil, nil)
				require.NoError(t, err)
				_, _ = x.labels(symbols)
			}
			return nil
		}))
		for _, lset := range x.named(want) {
			require.NotEqual(t, labels.EmptyLabels(), lset)
		}
	})
}
