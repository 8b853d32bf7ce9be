package salvage

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
)

// TestSalvageLeavesRoom: a salvage that would take what others need on the disk fails before it takes anything, and may be
// repeated.
func TestSalvageLeavesRoom(t *testing.T) {
	for what, r := range map[string]Request{
		"the block":     {Damaged: manifest.Block{SizeBytes: 1 << 60}},
		"another index": {Others: []manifest.Block{{IndexBytes: 1 << 60}}},
	} {
		dir := t.TempDir()
		_, err := Run(t.Context(), Config{Scratch: dir, MinFreeBytes: 1}, bucket.NewInMemory(), r)
		require.Equal(t, errkind.Unavailable, errkind.Of(err), what)
		require.ErrorContains(t, err, "1 are to stay free")
		left, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, left)
	}
}
