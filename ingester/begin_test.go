package ingester

import (
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestFloorOfANewFolder: who has lost its disk says that it does not have what it shipped before, also when the first open
// of the tenant was cut off after it had made the folder.
func TestFloorOfANewFolder(t *testing.T) {
	now := time.Now()
	open := func(dir string) *localBlocks {
		l, err := openLocalBlocks(dir, func() time.Time { return now }, time.Hour)
		require.NoError(t, err)
		require.NoError(t, l.begin())
		return l
	}
	for what, files := range map[string][]string{
		"none": nil, "empty": {}, "noted": {"since"}, "cut off": {".since.tmp-17"},
	} {
		dir := filepath.Join(t.TempDir(), "tenant")
		if files != nil {
			require.NoError(t, os.Mkdir(dir, 0o700))
		}
		for _, name := range files {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
		}
		require.Equal(t, now.UnixMilli(), open(dir).floor(), what)
		require.NoError(t, os.Mkdir(filepath.Join(dir, "wal"), 0o700))
		at := now.UnixMilli()
		now = now.Add(time.Hour)
		require.Equal(t, at, open(dir).floor(), "it is no new folder any more")
	}
	old := filepath.Join(t.TempDir(), "tenant")
	require.NoError(t, os.MkdirAll(filepath.Join(old, "wal"), 0o700))
	require.EqualValues(t, math.MinInt64, open(old).floor(), "of a version that noted no floor")
}
