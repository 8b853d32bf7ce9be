package app

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestABucketWithNothingInIt(t *testing.T) {
	dir := t.TempDir()
	require.True(t, nothingIn(dir))
	require.True(t, nothingIn(filepath.Join(dir, "missing")))
	require.NoError(t, os.Mkdir(filepath.Join(dir, ".temp~"), 0o755))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "lost+found"), 0o755))
	require.True(t, nothingIn(dir))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "~duramen"), 0o755))
	require.False(t, nothingIn(dir), "the first start leaves its probe")
}

func TestADataDirectoryKnowsWhetherItWasUsed(t *testing.T) {
	dir := t.TempDir()
	for _, used := range []bool{false, true} {
		d, err := openDataDir(dir)
		require.NoError(t, err)
		require.Equal(t, used, d.used)
		require.NoError(t, d.close())
	}
}
