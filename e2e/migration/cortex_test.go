package migration

import (
	"fmt"
	"net"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/e2e/process"
)

// cortex starts all of Cortex in one process, with its data below dir and its bucket at another place.
func cortex(t *testing.T, dir, bucket string, args ...string) *process.Process {
	t.Helper()
	http, grpc := address(t), address(t)
	_, httpPort, err := net.SplitHostPort(http)
	require.NoError(t, err)
	_, grpcPort, err := net.SplitHostPort(grpc)
	require.NoError(t, err)
	defaults := []string{
		"-target=distributor,ingester,querier,query-frontend,store-gateway,compactor", "-auth.enabled=true", "-log.level=warn",
		"-server.http-listen-address=127.0.0.1", "-server.http-listen-port=" + httpPort,
		"-server.grpc-listen-address=127.0.0.1", "-server.grpc-listen-port=" + grpcPort,
		"-ring.store=inmemory", "-distributor.ring.store=inmemory", "-compactor.ring.store=inmemory",
		"-store-gateway.sharding-enabled=true", "-store-gateway.sharding-ring.wait-stability-min-duration=0s",
		"-store-gateway.sharding-ring.store=inmemory",
		"-ingester.lifecycler.addr=127.0.0.1", "-distributor.ring.instance-addr=127.0.0.1", "-compactor.ring.instance-addr=127.0.0.1",
		"-store-gateway.sharding-ring.instance-addr=127.0.0.1", "-querier.instance-addr=127.0.0.1",
		"-distributor.replication-factor=1", "-ingester.num-tokens=8", "-ingester.join-after=0s", "-ingester.min-ready-duration=0s",
		"-ingester.final-sleep=0s",
		"-blocks-storage.backend=filesystem", "-blocks-storage.filesystem.dir=" + bucket,
		"-blocks-storage.tsdb.dir=" + filepath.Join(dir, "tsdb"), "-blocks-storage.bucket-store.sync-dir=" + filepath.Join(dir, "sync"),
		"-compactor.data-dir=" + filepath.Join(dir, "compactor"), "-blocks-storage.tsdb.ship-interval=1s",
		"-blocks-storage.bucket-store.sync-interval=1s", "-blocks-storage.bucket-store.bucket-index.enabled=true",
		"-compactor.cleanup-interval=1s", "-blocks-storage.tsdb.enable-native-histograms=true",
	}
	return start(t, process.Spec{
		Name: "cortex", Binary: peer(t, "cortex"), Dir: dir, URL: "http://" + http, Ready: "/ready", Args: append(defaults, args...),
	})
}

// askCortex starts a Cortex that has nothing but a bucket.
func askCortex(t *testing.T, dir, bucket, tenant string, args ...string) *client.Client {
	t.Helper()
	p := cortex(t, dir, bucket, append([]string{"-querier.query-ingesters-within=1h", "-compactor.enabled-tenants=nobody"}, args...)...)
	c := at(t, p.URL+"/prometheus", tenant)
	eventually(t, func() error {
		var got []client.Series
		err := c.Query(t.Context(), `{__name__=~".+"}[6h]`, begin+span-1, &got)
		if err == nil && len(got) == 0 {
			err = fmt.Errorf("cortex sees no series of %s", tenant)
		}
		return err
	})
	return c
}
