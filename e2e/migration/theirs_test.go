package migration

import (
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/e2e/process"
)

// open starts a node on somebody else's bucket and waits until it sees the samples of a tenant up to the time asked for.
func open(t *testing.T, dir, bucket, tenant string, series int, args ...string) *client.Client {
	t.Helper()
	c := client.Duramen(duramen(t, dir, bucket, args...).URL, tenant)
	t.Cleanup(c.CloseIdle)
	seen(t, c, tenant, series)
	return c
}

// seen waits until a node sees that many series.
func seen(t *testing.T, c *client.Client, tenant string, series int) {
	t.Helper()
	eventually(t, func() error {
		var got []client.Series
		err := c.Query(t.Context(), fmt.Sprintf(`{__name__=~".+"}[%dms]`, asked), begin+asked-interval, &got)
		if err == nil && len(got) < series {
			err = fmt.Errorf("tenant %s has %d series instead of %d", tenant, len(got), series)
		}
		return err
	})
}

// TestOpenThanosReceive opens the bucket of a Thanos receive, which lies below a prefix. The prefix is the tenant; the tenants
// of Thanos are a label of the series, as they are for Thanos.
func TestOpenThanosReceive(t *testing.T) {
	peer(t, "thanos")
	dir := t.TempDir()
	bucket := filepath.Join(dir, "bucket")
	receive(t, filepath.Join(dir, "receive"), bucket, "metrics")
	want := askThanos(t, dir, bucket, "metrics")
	record(t, "thanos-receive", filepath.Join(bucket, "metrics"), want)
	got := open(t, filepath.Join(dir, "duramen"), bucket, "metrics", 2*len(sources()))
	n := requireSame(t, want, got, begin, begin+asked)
	require.Equal(t, 2*len(sources()), n)

	// Thanos takes nothing amiss of what we have put beside its blocks.
	require.NotContains(t, run(t, peer(t, "thanos"), "tools", "bucket", "verify", objstore(t, bucket, "metrics")), "level=error")
	again := askThanos(t, filepath.Join(dir, "again"), bucket, "metrics")
	requireSame(t, again, got, begin, begin+asked)

	// Thanos answers nothing to a selector of external labels alone; we do.
	require.Len(t, series(t, got, `{tenant_id="team-a"}`, begin, begin+asked), len(sources()))
}

// TestOpenThanosSidecar opens the bucket into which the sidecars of two replicas have shipped, at its root. Replicas stay
// apart, as they are for a Thanos that was told of no replica label.
func TestOpenThanosSidecar(t *testing.T) {
	peer(t, "thanos")
	dir := t.TempDir()
	bucket := filepath.Join(dir, "bucket")
	for i, replica := range []string{"a", "b"} {
		at := filepath.Join(dir, "prometheus-"+replica)
		p := prometheus(t, at, "{cluster: eu-1, replica: "+replica+"}")
		c := client.Prometheus(p.URL)
		push(t, c)
		c.CloseIdle()
		eventually(t, func() error { return hasBlocks(filepath.Join(at, "data"), 2) })
		sidecar, _ := thanos(t, filepath.Join(dir, "sidecar-"+replica), "sidecar", "--prometheus.url="+p.URL,
			"--tsdb.path="+filepath.Join(at, "data"), objstore(t, bucket, ""))
		eventually(t, func() error { return hasBlocks(bucket, 2*(i+1)) })
		require.NoError(t, sidecar.Terminate(30*time.Second))
	}
	want := askThanos(t, dir, bucket, "")
	record(t, "thanos-sidecar", bucket, want)
	got := open(t, filepath.Join(dir, "duramen"), bucket, "anonymous", 2*len(sources()), "-bucket.root-tenant=anonymous")
	n := requireSame(t, want, got, begin, begin+asked)
	require.Equal(t, 2*len(sources()), n)
	require.NotContains(t, run(t, peer(t, "thanos"), "tools", "bucket", "verify", objstore(t, bucket, "")), "level=error")
	again := askThanos(t, filepath.Join(dir, "again"), bucket, "")
	requireSame(t, again, got, begin, begin+asked)
}

// TestOpenCortex opens the bucket of a Cortex that has compacted some of its blocks: with its index, and with marks on the
// blocks that it will delete.
func TestOpenCortex(t *testing.T) {
	peer(t, "cortex")
	dir := t.TempDir()
	bucket := filepath.Join(dir, "bucket")
	cortex := fillCortex(t, filepath.Join(dir, "fill"), bucket, "-compactor.block-ranges=2h,4h", "-compactor.compaction-interval=1s",
		"-compactor.cleanup-interval=1s")
	for _, tenant := range []string{"team-a", "team-b"} {
		eventually(t, func() error { return has(filepath.Join(bucket, tenant, "markers", "*-deletion-mark.json"), 2) })
		eventually(t, func() error { return has(filepath.Join(bucket, tenant, "bucket-index.json.gz"), 1) })
	}
	cortex.Kill()
	want := askCortex(t, filepath.Join(dir, "ask"), bucket, "team-a")
	record(t, "cortex", filepath.Join(bucket, "team-a"), want)
	got := open(t, filepath.Join(dir, "duramen"), bucket, "team-a", len(sources()))
	n := requireSame(t, want, got, begin, begin+asked)
	require.Equal(t, len(sources()), n)
	listed := run(t, ctlBinary, "manifest", "show", "-bucket="+bucket, "team-a")
	require.NotContains(t, listed, "__org_id__")
	marked, err := filepath.Glob(filepath.Join(bucket, "team-a", "markers", "*-deletion-mark.json"))
	require.NoError(t, err)
	for _, name := range marked {
		require.NotContains(t, listed, filepath.Base(name)[:26], "a block that is marked for deletion")
	}

	// What Duramen adds is seen by a Cortex on the same bucket, by the index that Duramen keeps for it.
	w := prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
		Labels:  []prompb.Label{{Name: "__name__", Value: "added"}},
		Samples: []prompb.Sample{{Timestamp: begin + interval, Value: 1}, {Timestamp: begin + 2*interval, Value: 2}},
	}}}
	raw, err := w.Marshal()
	require.NoError(t, err)
	a, err := got.Push(t.Context(), client.V1, raw)
	require.NoError(t, err)
	require.True(t, a.OK(), a)
	a, err = got.Post(t.Context(), "/ingester/flush?wait=true&tenant=team-a")
	require.NoError(t, err)
	require.True(t, a.OK(), a)
	again := askCortex(t, filepath.Join(dir, "again"), bucket, "team-a")
	seen(t, again, "team-a", len(sources())+1)
	require.Equal(t, len(sources())+1, requireSame(t, got, again, begin, begin+asked))
}

// receive has a Thanos receive take all samples for two tenants and put its blocks into a bucket.
func receive(t *testing.T, dir, bucket, prefix string) {
	t.Helper()
	write := address(t)
	p, _ := thanos(t, dir, "receive", "--tsdb.path="+filepath.Join(dir, "data"), objstore(t, bucket, prefix),
		"--remote-write.address="+write, `--label=replica="a"`, `--label=cluster="eu-1"`, "--tsdb.enable-native-histograms",
		"--tsdb.retention=1000d")
	for _, tenant := range []string{"team-a", "team-b"} {
		c := client.Prometheus("http://" + write)
		c.PushURL = "http://" + write + "/api/v1/receive"
		c.HTTP.Transport = withHeader{"THANOS-TENANT", tenant, c.HTTP.Transport}
		push(t, c)
		c.CloseIdle()
	}
	require.NoError(t, p.Terminate(time.Minute)) // it cuts and ships what it has
}

// fillCortex has Cortex take all samples for two tenants and put its blocks into a bucket.
func fillCortex(t *testing.T, dir, bucket string, args ...string) *process.Process {
	t.Helper()
	p := cortex(t, dir, bucket, args...)
	for _, tenant := range []string{"team-a", "team-b"} {
		c := at(t, p.URL, tenant)
		c.PushURL = p.URL + "/api/v1/push"
		push(t, c)
	}
	c := at(t, p.URL, "team-a")
	a, err := c.Post(t.Context(), "/ingester/flush?wait=true")
	require.NoError(t, err)
	require.True(t, a.OK(), a)
	for _, tenant := range []string{"team-a", "team-b"} {
		eventually(t, func() error { return hasBlocks(filepath.Join(bucket, tenant), 3) })
	}
	return p
}

// hasBlocks returns an error until a folder has n complete blocks.
func hasBlocks(dir string, n int) error { return has(filepath.Join(dir, "01*", "meta.json"), n) }

// has returns an error until n files match.
func has(pattern string, n int) error {
	found, err := filepath.Glob(pattern)
	if err == nil && len(found) < n {
		err = fmt.Errorf("%d files instead of %d are %s", len(found), n, pattern)
	}
	return err
}

// withHeader adds a header to each request.
type withHeader struct {
	name, value string
	http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (h withHeader) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set(h.name, h.value)
	return h.RoundTripper.RoundTrip(r)
}
