package e2e

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/e2e/cluster"
	"github.com/duramendb/duramen/internal/tracing/collector"
)

// TestTracesOfWritesCrossACluster: below the push of a distributor are the spans of each ingester that stores a replica, of
// those in other processes, too.
func TestTracesOfWritesCrossACluster(t *testing.T) {
	spans, err := collector.Start(nil)
	require.NoError(t, err)
	t.Cleanup(spans.Stop)
	c, err := cluster.New(cluster.Config{
		Binary: duramenBinary, Dir: t.TempDir(),
		Args: []string{
			"-tracing.otlp-endpoint=" + spans.Address(), "-tracing.otlp-insecure", "-tracing.sample-ratio=0",
			"-ingester.wal-sync=commit", "-log.level=warn",
		},
		Members: []cluster.Member{
			{Name: "node-a-0", Target: "all", Zone: "a"},
			{Name: "node-b-0", Target: "all", Zone: "b"},
			{Name: "node-c-0", Target: "all", Zone: "c"},
		},
	})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	require.NoError(t, c.Start(ctx, c.Nodes...))

	// The first writes find the others, and learn which frames they read. They belong to no trace.
	front := client.Duramen(c.Nodes[0].URL(), "team-a")
	defer front.CloseIdle()
	others := []*client.Client{client.Duramen(c.Nodes[1].URL(), ""), client.Duramen(c.Nodes[2].URL(), "")}
	for _, other := range others {
		defer other.CloseIdle()
	}
	lset := map[string]string{"__name__": "up", "job": "x"}
	at := client.Now()
	require.Eventually(t, func() bool {
		at++
		a, err := front.Push(ctx, client.V1, request(t, lset, at, 1))
		if err != nil || !a.OK() {
			return false
		}
		open, err := front.Metric(ctx, "duramen_ingest_client_inflight_bytes")
		for _, other := range others {
			stored, err := other.Metric(ctx, "duramen_ingest_server_stored_sections_total")
			if err != nil || stored == 0 {
				return false
			}
		}
		return err == nil && open == 0 // both have answered
	}, time.Minute, 50*time.Millisecond)

	traced, as := tracedClient(t, c.Nodes[0].URL(), 31)
	a, err := traced.Push(ctx, client.V1, request(t, lset, at+1, 2))
	require.NoError(t, err)
	require.True(t, a.OK(), a)
	const section = "POST /api/v1/push > distributor.push > replicate.push > ingester.section"
	var all []collector.Span
	all, err = spans.Trace(ctx, as.trace, func(got []collector.Span) bool {
		return len(processes(got, "ingester.section")) == 3 && slices.ContainsFunc(got, func(s collector.Span) bool { return s.Parent == as.span })
	})
	require.NoError(t, err, paths(all))
	require.Subset(t, paths(all), []string{
		"POST /api/v1/push > distributor.push > replicate.push",
		section,
		section + " > ingester.push",
		section + " > ingester.push > ingester.append",
		section + " > ingester.push > ingester.wal_sync",
	})
	require.Len(t, processes(all, "ingester.append"), 3)
	require.Len(t, processes(all, "ingester.wal_sync"), 3)
	require.Len(t, processes(all, "replicate.push"), 1)
}

// processes returns which processes the spans of a name come from.
func processes(spans []collector.Span, name string) (ids []string) {
	for _, s := range spans {
		if s.Name == name && !slices.Contains(ids, s.Resource["service.instance.id"]) {
			ids = append(ids, s.Resource["service.instance.id"])
		}
	}
	return ids
}
