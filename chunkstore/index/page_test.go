package index

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestAPageHasNotTooManySeries: readers number them in 16 bits.
func TestAPageHasNotTooManySeries(t *testing.T) {
	for _, n := range []int{maxSeriesRead, maxSeriesRead + 1} {
		raw := append(binary.AppendUvarint(nil, uint64(n)), 0) // no labels
		raw = append(raw, make([]byte, 9*n)...)                // hashes, and no chunks
		_, err := decodePage(raw, 0, n, nil)
		if n == maxSeriesRead {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, ErrDamaged)
		}
	}
}
