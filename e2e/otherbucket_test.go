package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
)

// TestTheBucketIsAnotherOne: a node does not start over an empty folder in the place of its bucket. One that runs meanwhile
// answers queries of older samples with 503 and ships nothing, and goes on with recent ones. Put back, all is there.
func TestTheBucketIsAnotherOne(t *testing.T) {
	n := startNode(t, t.TempDir())
	c := client.Duramen(n.URL, "team-a")
	defer c.CloseIdle()
	now := client.Now()
	old := now - (20 * time.Hour).Milliseconds()
	push := func(name string, at int64) {
		a, err := c.Push(t.Context(), client.V1, request(t, map[string]string{"__name__": name}, at, 42))
		require.NoError(t, err)
		require.True(t, a.OK(), a)
	}
	serves := func() bool {
		got, err := c.Samples(t.Context(), "old", old, 1000)
		return err == nil && len(got) == 1 && len(got[0].Values) == 1
	}
	push("old", old)
	require.True(t, flush(t.Context(), c))
	require.True(t, serves())

	bucket, aside := n.bucketDir(""), filepath.Join(n.Dir, "aside")
	require.NoError(t, n.Terminate(startTimeout))
	require.NoError(t, os.Rename(bucket, aside))
	require.Error(t, n.start())
	require.Contains(t, n.LogTail(3000), "bucket.accept_new_identity=")
	require.Contains(t, n.LogTail(3000), "bucket.filesystem.directory")
	require.NoError(t, os.RemoveAll(bucket))
	require.NoError(t, os.Rename(aside, bucket))
	require.NoError(t, n.start())

	// All objects go while it runs, before it has read anything.
	move(t, bucket, aside)
	requireHealth(t, c, http.StatusServiceUnavailable, "it has no identity")
	var result []any
	err := c.Query(t.Context(), "old", old, &result)
	var answer *client.QueryError
	require.ErrorAs(t, err, &answer)
	require.Equal(t, http.StatusServiceUnavailable, answer.Status)
	require.Contains(t, answer.Text, "bucket.filesystem.directory")
	recent := client.Now()
	push("recent", recent)
	require.False(t, flush(t.Context(), c))
	got, err := c.Samples(t.Context(), "recent", recent, 1)
	require.NoError(t, err)
	require.Len(t, got, 1)
	entries, err := os.ReadDir(bucket)
	require.NoError(t, err)
	for _, e := range entries {
		require.Equal(t, ".temp~", e.Name(), "nothing is written into it")
	}
	requireReady(t, c)

	move(t, aside, bucket)
	requireHealth(t, c, http.StatusOK, "bucket")
	require.True(t, serves())
	require.True(t, flush(t.Context(), c))
}

// move brings all that is in one folder to another.
func move(t *testing.T, from, to string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(to, 0o755))
	entries, err := os.ReadDir(from)
	require.NoError(t, err)
	for _, e := range entries {
		if e.Name() != ".temp~" {
			require.NoError(t, os.Rename(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())))
		}
	}
}
