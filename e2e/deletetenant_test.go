package e2e

import (
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
)

// deletion is how far the deletion of a tenant is.
type deletion struct {
	State         string `json:"state"`
	BlocksDeleted bool   `json:"blocks_deleted"`
	DeletedBlocks int    `json:"deleted_blocks"`
}

// askDeletion sends one request about the deletion of a tenant.
func askDeletion(ctx context.Context, t *testing.T, n *node, tenant, method, path string) (status int, d deletion) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, n.URL+"/compactor/"+path, http.NoBody)
	require.NoError(t, err)
	req.Header.Set("X-Scope-OrgID", tenant)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer http.DefaultClient.CloseIdleConnections()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	if resp.StatusCode == http.StatusOK {
		require.NoError(t, json.Unmarshal(body, &d), "%s", body)
	}
	return resp.StatusCode, d
}

// objects returns the tenant's files in the bucket, below its folder.
func objects(t *testing.T, n *node, tenant string) []string {
	t.Helper()
	var found []string
	root := n.bucketDir(tenant)
	require.NoError(t, filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			found = append(found, strings.TrimPrefix(path, root+string(filepath.Separator)))
		}
		return err
	}))
	return found
}

// TestTenantIsDeleted: a tenant that is to be deleted is refused everywhere and comes back whole when that is taken back;
// then it is deleted in earnest over a kill, a receipt is left, its name is free, and the tenant with the longer name has
// lost nothing.
func TestTenantIsDeleted(t *testing.T) {
	n := startNode(t, t.TempDir(), "-manifest.tenant-deletion-grace=10s", "-manifest.reconcile-interval=1s")
	now := client.Now()
	push := func(tenant string, at int64) int {
		c := client.Duramen(n.URL, tenant)
		defer c.CloseIdle()
		a, err := c.Push(t.Context(), client.V1, request(t, map[string]string{"__name__": "kept", "of": tenant}, at, float64(at%1000)))
		require.NoError(t, err)
		return a.Status
	}
	read := func(tenant string) []client.Point {
		c := client.Duramen(n.URL, tenant)
		defer c.CloseIdle()
		got, err := c.Samples(t.Context(), "kept", now+1000, 60_000)
		require.NoError(t, err)
		if len(got) == 0 {
			return nil
		}
		require.Len(t, got, 1)
		return got[0].Values
	}
	both := []client.Point{{T: now - 2000, V: float64((now - 2000) % 1000)}, {T: now - 1000, V: float64((now - 1000) % 1000)}}
	for _, tenant := range []string{"a", "ab"} {
		require.Less(t, push(tenant, now-2000), 300)
		c := client.Duramen(n.URL, tenant)
		require.True(t, flush(t.Context(), c))
		c.CloseIdle()
		require.Less(t, push(tenant, now-1000), 300) // in memory
		require.Equal(t, both, read(tenant))
	}
	gone := func() bool { return push("a", now-1000) == http.StatusGone }
	within := func(what string, f func() bool) { require.Eventually(t, f, 40*time.Second, 50*time.Millisecond, what) }

	status, d := askDeletion(t.Context(), t, n, "a", http.MethodPost, "delete_tenant")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "grace", d.State)
	within("refused", gone)
	c := client.Duramen(n.URL, "a")
	defer c.CloseIdle()
	var queryErr *client.QueryError
	require.ErrorAs(t, c.Query(t.Context(), "kept", now, &struct{}{}), &queryErr)
	require.Equal(t, http.StatusGone, queryErr.Status, queryErr.Text)
	require.Equal(t, both, read("ab"))
	status, d = askDeletion(t.Context(), t, n, "a", http.MethodPost, "undelete_tenant")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "none", d.State)
	within("accepted again", func() bool { return push("a", now-1000) < 300 }) // one that it has
	require.Equal(t, both, read("a"), "nothing was lost")

	status, _ = askDeletion(t.Context(), t, n, "a", http.MethodPost, "delete_tenant")
	require.Equal(t, http.StatusOK, status)
	within("refused", gone)
	n.crash()
	within("refused after a kill, too", gone)
	within("deleted", func() bool {
		status, d := askDeletion(t.Context(), t, n, "a", http.MethodGet, "delete_tenant_status")
		return status == http.StatusOK && d.State == "deleted" && d.BlocksDeleted && d.DeletedBlocks > 0
	})
	status, _ = askDeletion(t.Context(), t, n, "a", http.MethodPost, "undelete_tenant")
	require.Equal(t, http.StatusGone, status)
	within("the receipt alone", func() bool {
		left := objects(t, n, "a")
		return len(left) == 1 && strings.HasPrefix(left[0], "duramen")
	})
	mark, err := os.ReadFile(filepath.Join(n.bucketDir("__markers__"), "a", "tenant-deletion-mark.json"))
	require.NoError(t, err)
	require.Contains(t, string(mark), `"finished_time"`)

	within("a new life", func() bool { return push("a", now) < 300 })
	require.Equal(t, []client.Point{{T: now, V: float64(now % 1000)}}, read("a"))
	require.Equal(t, both, read("ab"))
}
