package app

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func startGateway(t *testing.T, bucket string, args ...string) *node {
	t.Helper()
	return startNode(t, testConfig(t.TempDir(), append([]string{
		"-target=store-gateway", "-server.grpc-listen-address=127.0.0.1:0", "-bucket.filesystem.directory=" + bucket,
	}, args...)...))
}

// TestAStoreGatewayReadsForAQuerier: what only the bucket has is asked of the gateway, and only of it.
func TestAStoreGatewayReadsForAQuerier(t *testing.T) {
	bucket, old := filepath.Join(t.TempDir(), "bucket"), time.Now().Add(-20*time.Hour)
	gateway := startGateway(t, bucket)
	n := startNode(t, testConfig(t.TempDir(), "-bucket.filesystem.directory="+bucket,
		"-querier.store-gateway-addresses="+gateway.grpc.address()))
	require.Less(t, n.push("/api/v1/push", "team-a", "up", 7, old).status, 300)
	require.Equal(t, http.StatusOK, n.do("POST", "/ingester/flush?wait=true", nil).status)
	require.Equal(t, "7", n.query("team-a", "up", old))
	require.Empty(t, n.query("team-b", "up", old))
	require.Equal(t, http.StatusOK, n.do("GET", "/healthz", nil).status)

	metrics := gateway.do("GET", "/metrics", nil).body
	require.Contains(t, metrics, `duramen_gateway_sent_series_total 1`)
	require.Contains(t, metrics, `duramen_grpc_requests_total{code="`)
	require.NotContains(t, n.do("GET", "/metrics", nil).body, "duramen_chunkstore_pool", "it reads no block itself")
	require.Contains(t, n.do("GET", "/store-gateway/status", nil).body, `"connection": "ready"`)
	require.Equal(t, "{}\n", gateway.do("GET", "/store-gateway/status", nil).body)

	address := gateway.grpc.address()
	gateway.stop()
	res := n.do("GET", "/prometheus/api/v1/query?query=up&time="+old.Add(time.Second).UTC().Format(time.RFC3339), nil, "X-Scope-OrgID", "team-a")
	require.Equal(t, http.StatusServiceUnavailable, res.status, res.body)
	require.Contains(t, res.body, "store-gateway "+address)
	require.Equal(t, http.StatusOK, n.do("GET", "/ready", nil).status, "of the own state only")
	startGateway(t, bucket, "-server.grpc-listen-address="+address)
	require.Eventually(t, func() bool {
		res := n.do("GET", "/prometheus/api/v1/query?query=up&time="+old.Add(time.Second).UTC().Format(time.RFC3339), nil, "X-Scope-OrgID", "team-a")
		return res.status == http.StatusOK
	}, 10*time.Second, 10*time.Millisecond)
}

// TestAStoreGatewayIsReadyWithoutTheBucket, and serves what belongs to its role.
func TestAStoreGatewayIsReadyWithoutTheBucket(t *testing.T) {
	n := startNode(t, testConfig(t.TempDir(), "-target=store-gateway", "-server.grpc-listen-address=127.0.0.1:0",
		"-bucket.backend=s3", "-bucket.s3.bucket-name=b", "-bucket.s3.endpoint=127.0.0.1:1", "-bucket.s3.region=x",
		"-bucket.s3.access-key-id=a", "-bucket.s3.secret-access-key=b"))
	require.NotContains(t, n.do("GET", "/metrics", nil).body, "duramen_bucket_operations_total{")
	require.Equal(t, http.StatusServiceUnavailable, n.do("GET", "/healthz", nil).status)
	for _, path := range []string{"/api/v1/push", "/prometheus/api/v1/query", "/ingester/flush", "/federate"} {
		require.Equal(t, http.StatusNotFound, n.do("POST", path, nil).status, path)
	}
	index := n.do("GET", "/", nil).body
	require.Contains(t, index, "store-gateway")
	require.NotContains(t, index, "remote_write")
}

// TestAllWithAGateway: a node that does everything and reads for others, too.
func TestAllWithAGateway(t *testing.T) {
	bucket, old := filepath.Join(t.TempDir(), "bucket"), time.Now().Add(-20*time.Hour)
	n := startNode(t, testConfig(t.TempDir(), "-target=all,store-gateway", "-server.grpc-listen-address=127.0.0.1:0",
		"-bucket.filesystem.directory="+bucket))
	other := startNode(t, testConfig(t.TempDir(), "-bucket.filesystem.directory="+bucket,
		"-querier.store-gateway-addresses="+n.grpc.address()))
	require.Less(t, n.push("/api/v1/push", "", "up", 7, old).status, 300)
	require.Equal(t, http.StatusOK, n.do("POST", "/ingester/flush?wait=true", nil).status)
	require.Equal(t, "7", n.query("", "up", old))
	require.Equal(t, "7", other.query("", "up", old))
}

func TestThePartsOfARole(t *testing.T) {
	names := func(args ...string) string {
		var list []string
		for _, p := range wiring(testConfig(t.TempDir(), args...)) {
			list = append(list, p.name)
		}
		return strings.Join(list, ", ")
	}
	require.Equal(t, "data directory, http server, tracing, bucket, manifests, reconciler, limits, ingester, compactor, store, "+
		"querier, distributor", names())
	require.Equal(t, "data directory, http server, tracing, bucket, manifests, limits, store, store gateway, grpc server",
		names("-target=store-gateway"))
	require.Equal(t, "data directory, http server, tracing, bucket, manifests, reconciler, limits, ingester, "+
		"compactor, store-gateways, querier, distributor", names("-querier.store-gateway-addresses=a:1,b:1"))
	require.Equal(t, "data directory, http server, tracing, bucket, manifests, ring, peers, reconciler, limits, ingester, "+
		"compactor, store, fan-out, querier, replicator, distributor, store gateway, grpc server, membership, "+
		"ingester membership",
		names("-memberlist.join=a:1"))
	require.Equal(t, "data directory, http server, tracing, ring, peers, limits, replicator, distributor, membership",
		names("-target=distributor"))
	require.Equal(t, "data directory, http server, tracing, bucket, manifests, ring, peers, limits, store-gateways, fan-out, "+
		"querier, membership", names("-target=querier"))
	require.Equal(t, "data directory, http server, tracing, bucket, manifests, ring, reconciler, limits, compactor, "+
		"membership", names("-target=compactor"))
}
