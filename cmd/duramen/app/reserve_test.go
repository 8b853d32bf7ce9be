package app

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCompactorsGiveWayToWrites: whatever the ingester keeps free, a compactor on the same volume keeps more.
func TestCompactorsGiveWayToWrites(t *testing.T) {
	require.Equal(t, int64(128<<20), reserve(t.TempDir(), 64<<20))
	require.GreaterOrEqual(t, reserve(t.TempDir(), 0), int64(4<<30), "0 is automatic, not nothing")
	require.GreaterOrEqual(t, reserve("/nowhere", 0), int64(4<<30))
}
