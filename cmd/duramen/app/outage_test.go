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
