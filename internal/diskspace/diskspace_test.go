package diskspace

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/errkind"
)

func TestRequire(t *testing.T) {
	dir := t.TempDir()
	free, err := Free(dir)
	require.NoError(t, err)
	require.Positive(t, free)
	require.NoError(t, Require(dir, 1, 0))
	for need, keep := range map[int64]int64{1 << 60: 0, 1: 1 << 60} {
		err := Require(dir, need, keep)
		require.Equal(t, errkind.Unavailable, errkind.Of(err))
		require.ErrorContains(t, err, "are to stay free")
	}
	require.Equal(t, errkind.Unavailable, errkind.Of(Require(filepath.Join(dir, "missing"), 1, 0)))
}
