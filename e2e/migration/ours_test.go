package migration

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
)

// fillOurs has a node take all samples for two tenants and put its blocks into a bucket, and returns it.
func fillOurs(t *testing.T, dir, bucket string) *client.Client {
	t.Helper()
	p := duramen(t, dir, bucket)
	for _, tenant := range []string{"team-a", "team-b"} {
		c := client.Duramen(p.URL, tenant)
		push(t, c)
		a, err := c.Post(t.Context(), "/ingester/flush?wait=true&tenant="+tenant)
		require.NoError(t, err)
		require.True(t, a.OK(), a)
		c.CloseIdle()
	}
	return at(t, p.URL+"/prometheus", "team-a")
}

// reference is a Prometheus that took all samples by itself.
func reference(t *testing.T) *client.Client {
	t.Helper()
	p := prometheus(t, t.TempDir(), "")
	c := client.Prometheus(p.URL)
	t.Cleanup(c.CloseIdle)
	push(t, c)
	return c
}

// TestThanosOpensOurs: a tenant's folder of our bucket is a bucket for Thanos' tools, its store and its querier.
func TestThanosOpensOurs(t *testing.T) {
	binary := peer(t, "thanos")
	dir := t.TempDir()
	bucket := filepath.Join(dir, "bucket")
	ours := fillOurs(t, filepath.Join(dir, "duramen"), bucket)

	flag := objstore(t, bucket, "team-a")
	out := run(t, binary, "tools", "bucket", "verify", flag)
	require.NotContains(t, out, "level=error")
	require.NotContains(t, out, "level=warn")
	require.Equal(t, 3, strings.Count(run(t, binary, "tools", "bucket", "ls", flag), "\n01"), "blocks")
	out = run(t, binary, "tools", "bucket", "inspect", flag)
	require.Contains(t, out, "duramen", "the source")

	theirs := askThanos(t, dir, bucket, "team-a")
	n := requireSame(t, ours, theirs, begin, begin+asked)
	require.Equal(t, len(sources()), n)
	requireSame(t, ours, theirs, begin, begin+span)
}

// TestCortexOpensOurs: our bucket is one for Cortex, by the index that is kept for it, and when Cortex lists for itself.
func TestCortexOpensOurs(t *testing.T) {
	peer(t, "cortex")
	dir := t.TempDir()
	bucket := filepath.Join(dir, "bucket")
	ours := fillOurs(t, filepath.Join(dir, "duramen"), bucket)
	listing := askCortex(t, filepath.Join(dir, "listing"), bucket, "team-a", "-blocks-storage.bucket-store.bucket-index.enabled=false")
	require.Equal(t, len(sources()), requireSame(t, ours, listing, begin, begin+span))
	eventually(t, func() error { return has(filepath.Join(bucket, "team-a", "bucket-index.json.gz"), 1) })
	theirs := askCortex(t, filepath.Join(dir, "cortex"), bucket, "team-a")
	require.Equal(t, len(sources()), requireSame(t, ours, theirs, begin, begin+span))
}

// TestPrometheusOpensOurs: a tenant's folder of our bucket is one of blocks for Prometheus and promtool, and the answers are
// those of a Prometheus that took the samples by itself.
func TestPrometheusOpensOurs(t *testing.T) {
	dir := t.TempDir()
	bucket := filepath.Join(dir, "bucket")
	ours := fillOurs(t, filepath.Join(dir, "duramen"), bucket)
	want := reference(t)
	n := requireSame(t, want, ours, begin, begin+span)
	require.Equal(t, len(sources()), n)

	promtool := tool(t, "promtool")
	blocks := filepath.Join(bucket, "team-a")
	require.Contains(t, run(t, promtool, "tsdb", "analyze", blocks), "Total Series: 7") // of the newest block

	data := filepath.Join(dir, "prometheus", "data")
	require.NoError(t, copyBlocks(blocks, data))
	p := prometheus(t, filepath.Join(dir, "prometheus"), "")
	requireSame(t, want, at(t, p.URL, ""), begin, begin+span)
	require.NoError(t, p.Terminate(30*time.Second))
	dump := run(t, promtool, "tsdb", "dump", "--match=requests_total", "--sandbox-dir-root="+dir, data)
	require.Equal(t, 4*span/interval, strings.Count(dump, "requests_total"))
}
