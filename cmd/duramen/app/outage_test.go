package app

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestStartsWithoutTheBucket: as with a full volume, the bucket's folder is there and nothing can be created in it.
func TestStartsWithoutTheBucket(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	cfg := testConfig(dir)
	cfg.Bucket.Filesystem.Directory = filepath.Join(dir, "bucket")
	obstacle := filepath.Join(dir, "bucket", "~duramen") // a file where the probe wants a folder
	require.NoError(t, os.MkdirAll(filepath.Dir(obstacle), 0o777))
	require.NoError(t, os.WriteFile(obstacle, nil, 0o666))

	n := startNode(t, cfg)
	require.Less(t, n.push("/api/v1/push", "", "up", 1, now).status, 300)
	require.Equal(t, "1", n.query("", "up", now))
	health := n.do(http.MethodGet, "/healthz", nil)
	require.Equal(t, http.StatusServiceUnavailable, health.status, health.body)
	require.Contains(t, health.body, "probe")
	res := n.do(http.MethodPost, "/ingester/flush?tenant=anonymous&wait=true", nil)
	require.Equal(t, http.StatusServiceUnavailable, res.status, res.body)
	require.Equal(t, "1", n.query("", "up", now), "cut and not shipped")

	require.NoError(t, os.Remove(obstacle))
	res = n.do(http.MethodPost, "/ingester/flush?tenant=anonymous&wait=true", nil)
	require.Equal(t, http.StatusOK, res.status, res.body)
	require.Equal(t, http.StatusOK, n.do(http.MethodGet, "/healthz", nil).status)
	require.Equal(t, "1", n.query("", "up", now))
}

// TestDeletedSamplesStayHiddenWithoutTheBucket: a start while it is away shows nothing of what was deleted before.
func TestDeletedSamplesStayHiddenWithoutTheBucket(t *testing.T) {
	dir := t.TempDir()
	n := startNode(t, testConfig(dir, "-querier.enable-admin-api"))
	require.Less(t, n.push("/api/v1/push", "", "first", 1, time.Now()).status, 300)
	now := time.Now() // the tenant is older than that
	for _, name := range []string{"kept", "deleted"} {
		require.Less(t, n.push("/api/v1/push", "", name, 1, now).status, 300)
	}
	res := n.do(http.MethodPost, "/prometheus/api/v1/admin/tsdb/delete_series?match[]=deleted", nil)
	require.Equal(t, http.StatusNoContent, res.status, res.body)
	n.stop()

	n = startNode(t, testConfig(dir, "-bucket.backend=s3", "-bucket.s3.bucket-name=metrics",
		"-bucket.s3.endpoint=127.0.0.1:1", "-bucket.s3.region=x", "-querier.lookback-delta=1ms", // not before the disk was new
		"-bucket.s3.access-key-id=a", "-bucket.s3.secret-access-key=b"))
	require.Equal(t, "1", n.query("", "kept", now))
	require.Empty(t, n.query("", "deleted", now))
}
