package salvage

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
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

// TestSalvageStaysWithinItsMemory: what would take more is refused before it is read, and says how much it needs.
func TestSalvageStaysWithinItsMemory(t *testing.T) {
	w := newWorld(t, 5)
	w.damage(t)
	before := keys(t, w.bkt)
	r := w.request()
	r.Damaged.Chunks = 1 << 30
	_, err := Run(t.Context(), Config{Scratch: w.dir}, w.bkt, r)
	require.ErrorIs(t, err, ErrTooLarge)
	require.Equal(t, errkind.Unprocessable, errkind.Of(err))
	require.ErrorContains(t, err, "16384 MiB")
	require.Equal(t, before, keys(t, w.bkt))
	_, err = Run(t.Context(), Config{Scratch: w.dir, MaxMemoryBytes: 32 << 30}, w.bkt, r)
	require.NoError(t, err)

	x := layOutIndex(w.file(t, block.IndexName), func(int64, string, string, ...any) {})
	x.open()
	least := int64(len(x.symbols))*symbolBytes + int64(len(x.lists))*listBytes + int64(w.block.Entry.Chunks)*chunkBytes
	require.Greater(t, x.needed(&w.block.Entry), least)
	require.Less(t, x.needed(&w.block.Entry), least+int64(len(x.b))+int64(w.block.Entry.Series)*seriesBytes)
}

// TestNeededOfAnything panics at nothing, and a count that cannot be true costs nothing.
func TestNeededOfAnything(t *testing.T) {
	w := newWorld(t, 5)
	whole := w.file(t, block.IndexName)
	for at := range whole {
		x := layOutIndex(flipped(whole, at), func(int64, string, string, ...any) {})
		require.Less(t, x.needed(&w.block.Entry), int64(len(whole))*(symbolBytes+listBytes))
		x = layOutIndex(whole[:at], func(int64, string, string, ...any) {})
		require.Less(t, x.needed(&w.block.Entry), int64(len(whole))*(symbolBytes+listBytes))
	}
}
