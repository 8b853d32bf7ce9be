package e2e

import (
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
)

// TestTenantsDoNotMeet: two tenants write the same series with different values and see their own only, from memory, from
// the bucket, and after a kill. Without the header, where it is demanded, nobody sees anything.
func TestTenantsDoNotMeet(t *testing.T) {
	n := startNode(t, t.TempDir(), "-tenancy.header-required")
	now := client.Now()
	values := map[string]float64{"team-a": 1, "team-b": 2}
	for tenant, v := range values {
		c := client.Duramen(n.URL, tenant)
		defer c.CloseIdle()
		a, err := c.Push(t.Context(), client.V1, request(t, map[string]string{"__name__": "shared", "job": "x"}, now, v))
		require.NoError(t, err)
		require.True(t, a.OK(), a)
		a, err = c.Push(t.Context(), client.V1, request(t, map[string]string{"__name__": "own", "of": tenant}, now, v))
		require.NoError(t, err)
		require.True(t, a.OK(), a)
	}
	check := func(t *testing.T) {
		for tenant, v := range values {
			c := client.Duramen(n.URL, tenant)
			defer c.CloseIdle()
			got, err := c.Samples(t.Context(), `{__name__=~".+"}`, now, 60_000)
			require.NoError(t, err)
			require.Len(t, got, 2)
			for _, s := range got {
				require.Equal(t, []client.Point{{T: now, V: v}}, s.Values)
			}
			names, err := c.Values(t.Context(), "of", now-60_000, now)
			require.NoError(t, err)
			require.Equal(t, []string{tenant}, names)
		}
	}
	t.Run("from memory", check)
	for tenant := range values {
		c := client.Duramen(n.URL, tenant)
		defer c.CloseIdle()
		require.True(t, flush(t.Context(), c))
		blocks, err := filepath.Glob(filepath.Join(n.bucketDir(tenant), "*", "meta.json"))
		require.NoError(t, err)
		require.Len(t, blocks, 1, "a block of %s", tenant)
	}
	t.Run("from the bucket", check)
	n.crash()
	t.Run("after a kill", check)
}

func TestTenantHeaderIsDemanded(t *testing.T) {
	n := startNode(t, t.TempDir(), "-tenancy.header-required")
	for tenant, status := range map[string]int{
		"": http.StatusUnauthorized, "../../etc": http.StatusBadRequest, "..": http.StatusBadRequest, "a/b": http.StatusBadRequest,
	} {
		c := client.Duramen(n.URL, tenant)
		defer c.CloseIdle()
		a, err := c.Push(t.Context(), client.V1, request(t, map[string]string{"__name__": "x"}, client.Now(), 1))
		require.NoError(t, err)
		require.Equal(t, status, a.Status, "write as %q: %s", tenant, a.Body)

		var queryErr *client.QueryError
		require.ErrorAs(t, c.Query(t.Context(), "x", client.Now(), &struct{}{}), &queryErr)
		require.Equal(t, status, queryErr.Status, "query as %q: %s", tenant, queryErr.Text)
	}
}

// TestAnonymousByDefault: a node without any setting serves requests without the header.
func TestAnonymousByDefault(t *testing.T) {
	n := startNode(t, t.TempDir())
	c := client.Duramen(n.URL, "")
	defer c.CloseIdle()
	now := client.Now()
	a, err := c.Push(t.Context(), client.V1, request(t, map[string]string{"__name__": "x"}, now, 42))
	require.NoError(t, err)
	require.True(t, a.OK(), a)
	got, err := client.Duramen(n.URL, "anonymous").Samples(t.Context(), "x", now, 1000)
	require.NoError(t, err)
	require.Len(t, got, 1)
	require.Equal(t, []client.Point{{T: now, V: 42}}, got[0].Values)
}

// request is a remote write 1.0 request with one sample.
func request(t *testing.T, lset map[string]string, at int64, v float64) []byte {
	t.Helper()
	ts := prompb.TimeSeries{Samples: []prompb.Sample{{Timestamp: at, Value: v}}}
	for _, name := range slices.Sorted(maps.Keys(lset)) {
		ts.Labels = append(ts.Labels, prompb.Label{Name: name, Value: lset[name]})
	}
	raw, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{ts}}).Marshal()
	require.NoError(t, err)
	return raw
}
