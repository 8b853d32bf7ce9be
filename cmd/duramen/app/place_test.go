package app

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/ring"
)

// TestPlaceOfADataDirectory: an ingester with samples that the bucket may not have begins nowhere else than where it was.
func TestPlaceOfADataDirectory(t *testing.T) {
	path := t.TempDir()
	open := func() *dataDir {
		d, err := openDataDir(path)
		require.NoError(t, err)
		t.Cleanup(func() { _ = d.close() })
		return d
	}
	d := open()
	id := d.instance.StorageID
	require.NoError(t, d.checkPlace("a", 1), "a new one")
	require.NoError(t, d.takePlace("a", 1))
	require.NoError(t, os.MkdirAll(filepath.Join(d.ingester(), "team-a"), 0o755))
	require.NoError(t, d.close())

	d = open()
	require.Equal(t, id, d.instance.StorageID)
	require.NoError(t, d.checkPlace("a", 1))
	require.NoError(t, d.checkPlace("a", ring.NoOrdinal), "it will be found where it was claimed")
	for _, at := range []place{{"b", 1}, {"a", 2}, {"", 1}, {"b", ring.NoOrdinal}} {
		err := d.checkPlace(at.Zone, at.Ordinal)
		require.ErrorContains(t, err, "ordinal 1 of zone a")
		require.ErrorContains(t, err, "team-a")
		require.ErrorContains(t, err, "prepare-shutdown")
	}
	idle := filepath.Join(d.ingester(), "team-a", "idle")
	require.NoError(t, os.WriteFile(idle, nil, 0o644))
	require.NoError(t, d.checkPlace("b", 1), "the bucket has everything")
	require.NoError(t, os.Remove(idle))
	require.Error(t, d.checkPlace("b", 1))

	require.NoError(t, d.leavePlace())
	require.NoError(t, d.close())
	d = open()
	require.Equal(t, id, d.instance.StorageID)
	require.NoError(t, d.checkPlace("b", 1), "it left with everything in the bucket")
}
