package app

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/ring"
)

// TestAnIngesterLeaves: a stop keeps the ingester's place in the cluster, a prepared one gives it up, and only then its
// data directory can be used elsewhere.
func TestAnIngesterLeaves(t *testing.T) {
	dir := t.TempDir()
	member := func(id string) Config {
		return testConfig(dir, "-target=write", "-ring.replication-factor=1", "-ring.instance-id="+id,
			"-ring.instance-zone=a", "-memberlist.bind-address=127.0.0.1:0", "-server.grpc-listen-address=127.0.0.1:0",
			"-tenancy.header-required=false")
	}
	const path = "/ingester/prepare-shutdown"
	n := startNode(t, member("i-1"))
	require.Less(t, n.push("/api/v1/push", "", "up", 1, time.Now()).status, 300)
	require.Contains(t, n.do(http.MethodGet, path, nil).body, `"state":"ACTIVE","emptied":false`)
	n.stop()
	require.Equal(t, ring.Active, n.ring.Self().State, "a restart")

	_, err := New(member("i-2"), n.log)
	require.ErrorContains(t, err, "ordinal 1 of zone a")

	n = startNode(t, member("i-1"))
	require.Equal(t, http.StatusOK, n.do(http.MethodPost, path, nil).status)
	require.Equal(t, http.StatusServiceUnavailable, n.push("/api/v1/push", "", "up", 2, time.Now()).status)
	n.stop()
	self := n.ring.Self()
	require.Equal(t, ring.Left, self.State)
	require.Positive(t, self.Floor)

	n = startNode(t, member("i-2"))
	require.Equal(t, 2, n.ring.Self().Ordinal)
	require.Less(t, n.push("/api/v1/push", "", "up", 3, time.Now()).status, 300)
	require.Contains(t, n.do(http.MethodGet, path, nil).body, `"prepared":false`)
}
