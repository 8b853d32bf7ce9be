package app

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/certtest"
	"github.com/duramendb/duramen/ring"
	"github.com/duramendb/duramen/tenant"
)

// freePort returns an address of loopback on which nobody listens.
func freePort(t *testing.T) string {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	return l.Addr().String()
}

// cluster is nodes in this process that have found one another over loopback and share a bucket.
type cluster struct {
	t     *testing.T
	dir   string
	seed  string
	nodes map[string]*node
}

func newCluster(t *testing.T) *cluster {
	return &cluster{t: t, dir: t.TempDir(), seed: freePort(t), nodes: map[string]*node{}}
}

// config is that of a member: the first one gossips where all the others look for it.
func (c *cluster) config(name, zone, target string, args ...string) Config {
	gossip := "127.0.0.1:0"
	if len(c.nodes) == 0 {
		gossip = c.seed
	}
	return testConfig(filepath.Join(c.dir, name), append([]string{
		"-target=" + target, "-ring.instance-id=" + name, "-ring.instance-zone=" + zone,
		"-server.grpc-listen-address=127.0.0.1:0", "-memberlist.bind-address=" + gossip, "-memberlist.join=" + c.seed,
		"-memberlist.gossip-interval=20ms", "-memberlist.rejoin-interval=100ms",
		"-replicate.push-timeout=2s", "-querier.quorum-wait=2s", // a busy machine needs more than nothing
		"-bucket.filesystem.directory=" + filepath.Join(c.dir, "bucket"),
	}, args...)...)
}

func (c *cluster) start(name, zone, target string, args ...string) *node {
	c.t.Helper()
	n := startNode(c.t, c.config(name, zone, target, args...))
	c.nodes[name] = n
	return n
}

// meet waits until every node sees all of them, ACTIVE.
func (c *cluster) meet() {
	c.t.Helper()
	for _, n := range c.nodes {
		require.Eventually(c.t, func() bool {
			active := 0
			for _, e := range n.ring.Ring().All() {
				if e.Forgotten == nil && e.Member.State == ring.Active {
					active++
				}
			}
			return active >= len(c.nodes)
		}, 20*time.Second, 5*time.Millisecond, "%s does not see all others", n.instanceID)
	}
}

// TestThreeProcessesAreACluster: what one takes all answer, and one that is away is not missed.
func TestThreeProcessesAreACluster(t *testing.T) {
	c := newCluster(t)
	for _, zone := range []string{"a", "b", "c"} {
		c.start("node-"+zone+"-0", zone, roleAll)
	}
	c.meet()
	now := time.Now()
	first, last := c.nodes["node-a-0"], c.nodes["node-c-0"]
	require.Equal(t, http.StatusUnauthorized, first.push("/api/v1/push", "", "m", 1, now).status, "a cluster has tenants")
	for i := range 50 {
		res := first.push("/api/v1/push", "team-a", fmt.Sprint("m", i), float64(i), now)
		require.Less(t, res.status, 300, res.body)
	}
	for name, n := range c.nodes {
		require.Equal(t, "50", n.query("team-a", `count({__name__=~"m.*"})`, now), name)
		require.Equal(t, "7", n.query("team-a", "m7", now), name)
		stats := n.do("GET", "/api/v1/user_stats", nil, tenant.HeaderName, "team-a")
		require.Contains(t, stats.body, `"numSeries":50`, "copies count once")
		require.Contains(t, n.do("GET", "/ingester/tenants", nil).body, `"series":50`, "%s has a copy", name)
		require.Equal(t, http.StatusOK, n.do("GET", "/healthz", nil).status, name)
		require.Equal(t, "{\n  \"local\": true\n}\n", n.do("GET", "/store-gateway/status", nil).body)
	}
	require.Equal(t, http.StatusOK, first.do("POST", "/ingester/flush?tenant=team-a&wait=true", nil).status)
	for name, n := range c.nodes {
		run := n.do("POST", "/compactor/run?tenant=team-a&wait=true", nil)
		require.Equal(t, http.StatusOK, run.status, "%s passes it on to the tenant's owner: %s", name, run.body)
		form := n.do("POST", "/compactor/run", strings.NewReader("tenant=team-a"), "Content-Type", "application/x-www-form-urlencoded")
		require.Equal(t, http.StatusAccepted, form.status, "%s: %s", name, form.body)
		require.Contains(t, n.do("GET", "/compactor?format=json&tenant=team-a", nil).body, `"blocks":1`, name)
	}

	last.stop()
	delete(c.nodes, "node-c-0")
	for i := range 50 {
		res := first.push("/api/v1/push", "team-a", fmt.Sprint("m", i), float64(i+1), now.Add(time.Second))
		require.Less(t, res.status, 300, res.body)
	}
	for name, n := range c.nodes {
		require.Equal(t, "8", n.query("team-a", "m7", now.Add(time.Second)), name)
		require.Equal(t, http.StatusOK, n.do("GET", "/ready", nil).status, "of the own state only")
	}

	c.nodes["node-b-0"].stop()
	delete(c.nodes, "node-b-0")
	res := first.push("/api/v1/push", "team-a", "m7", 9, now.Add(2*time.Second))
	require.Equal(t, http.StatusServiceUnavailable, res.status, res.body)
	require.NotEmpty(t, res.header.Get("Retry-After"))
	res = first.do("GET", "/prometheus/api/v1/query?query=m7", nil, tenant.HeaderName, "team-a")
	require.Equal(t, http.StatusServiceUnavailable, res.status, res.body)
}

// TestEachRoleStartsAlone, finds the others, and does its part. They speak TLS to one another, and show certificates.
func TestEachRoleStartsAlone(t *testing.T) {
	c := newCluster(t)
	authority := certtest.New(t)
	cert, key := authority.Issue(t, "member")
	common := []string{
		"-ring.replication-factor=1", "-grpc-client.tls.enabled", "-grpc-client.tls.ca-file=" + authority.File,
		"-grpc-client.tls.cert-file=" + cert, "-grpc-client.tls.key-file=" + key, "-server.grpc-tls.cert-file=" + cert,
		"-server.grpc-tls.key-file=" + key, "-server.grpc-tls.client-ca-file=" + authority.File,
	}
	roles := []string{roleIngester, roleDistributor, roleQuerier, roleStoreGateway, roleCompactor}
	for _, role := range roles {
		c.start(role+"-0", "", role, common...)
	}
	c.meet()
	old := time.Now().Add(-20 * time.Hour)
	ingester, querier := c.nodes["ingester-0"], c.nodes["querier-0"]
	res := c.nodes["distributor-0"].push("/api/v1/push", "team-a", "m", 7, old)
	require.Less(t, res.status, 300, res.body)
	require.Equal(t, "7", querier.query("team-a", "m", old))
	res = ingester.do("POST", "/ingester/flush?wait=true", nil)
	require.Equal(t, http.StatusOK, res.status, res.body)
	require.Eventually(t, func() bool { // the manifest is looked at every few seconds
		return querier.query("team-a", "m", old) == "7" &&
			strings.Contains(c.nodes["store-gateway-0"].do("GET", "/metrics", nil).body, "duramen_gateway_sent_series_total 1")
	}, 20*time.Second, 50*time.Millisecond)
	for _, wrong := range []struct{ role, method, path string }{
		{roleIngester, "POST", "/api/v1/push"},
		{roleQuerier, "POST", "/api/v1/push"},
		{roleDistributor, "GET", "/prometheus/api/v1/query"},
		{roleCompactor, "POST", "/ingester/flush"},
	} {
		require.Equal(t, http.StatusNotFound, c.nodes[wrong.role+"-0"].do(wrong.method, wrong.path, nil).status, "%v", wrong)
	}
	for _, role := range roles {
		n := c.nodes[role+"-0"]
		require.Equal(t, http.StatusOK, n.do("GET", "/ready", nil).status, role)
		require.Equal(t, http.StatusOK, n.do("GET", "/ring", nil).status, role)
		require.Equal(t, http.StatusOK, n.do("GET", "/healthz", nil).status, role)
	}
}
