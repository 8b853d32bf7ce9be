package cluster

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/internal/certtest"
)

// TestAllPortsOverTLS: three processes that demand certificates of one another and of their clients, on every port, keep and
// find samples as others do. One whose gossip speaks no TLS stays outside, and says why.
func TestAllPortsOverTLS(t *testing.T) {
	authority := certtest.New(t)
	cert, key := authority.Issue(t, "member")
	pair := func(prefix string) []string {
		return []string{prefix + ".cert-file=" + cert, prefix + ".key-file=" + key}
	}
	var args []string
	for _, prefix := range []string{"-server.http-tls", "-server.grpc-tls"} {
		args = append(append(args, pair(prefix)...), prefix+".client-ca-file="+authority.File)
	}
	for _, prefix := range []string{"-grpc-client.tls", "-memberlist.tls"} {
		args = append(append(args, pair(prefix)...), prefix+".ca-file="+authority.File, prefix+".enabled")
	}
	c, err := New(Config{Binary: duramenBinary, Dir: t.TempDir(), Args: args, Members: []Member{
		{Name: "a-0", Target: "all", Zone: "a"},
		{Name: "b-0", Target: "all", Zone: "b"},
		{Name: "c-0", Target: "all", Zone: "c"},
		{Name: "x-0", Target: "querier", Zone: "x", Args: []string{
			"-memberlist.tls.enabled=false", "-memberlist.tls.cert-file=", "-memberlist.tls.key-file=", "-memberlist.tls.ca-file=",
		}},
	}})
	require.NoError(t, err)
	defer c.Close()
	secure := &http.Transport{TLSClientConfig: authority.ClientConfig(t)}
	defer secure.CloseIdleConnections()
	for _, n := range c.Nodes {
		n.spec.URL = "https://" + n.http
		n.spec.Client = &http.Client{Transport: secure, Timeout: 10 * time.Second}
	}
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	require.NoError(t, c.Start(ctx, c.Nodes[:3]...))
	require.NoError(t, c.Launch(c.Nodes[3]))

	talk := func(n *Node) *client.Client {
		cl := client.Duramen(n.spec.URL, "team")
		cl.HTTP = n.spec.Client
		return cl
	}
	request := prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
		Labels: []prompb.Label{{Name: "__name__", Value: "secret"}}, Samples: []prompb.Sample{{Value: 42, Timestamp: client.Now()}},
	}}}
	raw, err := request.Marshal()
	require.NoError(t, err)
	at := request.Timeseries[0].Samples[0].Timestamp
	members := c.Nodes[:3]
	for _, n := range members {
		require.Eventually(t, func() bool { // all three are known to it
			a, err := talk(n).Push(ctx, client.V1, raw)
			return err == nil && a.OK()
		}, startTimeout, 20*time.Millisecond)
	}
	for _, n := range members {
		got, err := talk(n).Samples(ctx, "secret", at, 60_000)
		require.NoError(t, err)
		require.Len(t, got, 1)
		require.Equal(t, []client.Point{{T: at, V: 42}}, got[0].Values)
		plain := client.Duramen("https://"+n.http, "team")
		_, noCertificate := plain.Push(ctx, client.V1, raw)
		require.Error(t, noCertificate)
		plain.CloseIdle()
	}
	outsider := c.Nodes[3]
	require.Eventually(t, func() bool {
		return strings.Contains(outsider.LogTail(1<<20), "gossips with TLS and this member without")
	}, startTimeout, 20*time.Millisecond)
	require.Eventually(t, func() bool {
		refused, err := talk(members[0]).Metric(ctx, "duramen_ring_dropped_messages_total", `reason="tls"`)
		return err == nil && refused > 0
	}, startTimeout, 20*time.Millisecond)
	seen, err := talk(members[0]).Metric(ctx, "duramen_ring_gossip_members")
	require.NoError(t, err)
	require.Equal(t, 3.0, seen, "all members but the one without TLS")
	require.Empty(t, c.FaultsInLogs())
}
