package e2e

import (
	"cmp"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
)

// vector is the answer to an instant query.
type vector []struct {
	Metric map[string]string `json:"metric"`
	Value  client.Point      `json:"value"`
}

func instant(t *testing.T, c *client.Client, expr string, at int64) (vector, error) {
	t.Helper()
	var v vector
	err := c.Query(t.Context(), expr, at, &v)
	slices.SortFunc(v, func(a, b struct {
		Metric map[string]string `json:"metric"`
		Value  client.Point      `json:"value"`
	},
	) int {
		return cmp.Compare(labels.FromMap(a.Metric).String(), labels.FromMap(b.Metric).String())
	})
	return v, err
}

// TestStartTimestampsOfAPrometheus: a Prometheus that stores start timestamps writes them in remote write 2.0; with the
// switch on, the node answers what that Prometheus answers, from memory, after a kill and from the bucket. A node
// without it, which is the default, takes the same samples and knows of none.
func TestStartTimestampsOfAPrometheus(t *testing.T) {
	const experimental = "-querier.enable-promql-experimental-functions"
	n := startNode(t, t.TempDir(), "-ingester.start-timestamps", experimental)
	target := startTarget(t)
	prom := startPrometheus(t, n.URL, target,
		"--enable-feature=st-storage,use-start-timestamps,promql-experimental-functions")
	own, c, old := client.Prometheus(prom.URL), client.Duramen(n.URL, "rw2"), client.Duramen(n.URL, "rw1")
	for _, c := range []*client.Client{own, c, old} {
		defer c.CloseIdle()
	}

	// Names are dropped, so the metrics are chosen to differ in their labels.
	const starts = `start_timestamp({__name__=~"target_native_seconds|target_scrapes_total"}) > 0`
	require.Eventually(t, func() bool {
		got, err := instant(t, c, starts, client.Now())
		return err == nil && len(got) >= 3
	}, startTimeout, 100*time.Millisecond, "start timestamps arrive")
	at := client.Now()
	require.NoError(t, wait(t.Context(), 2*time.Second)) // what is scraped by then is sent soon
	same := func(when string) {
		t.Helper()
		for _, expr := range []string{
			starts, `start_timestamp(target_classic_seconds_bucket)`, `increase(target_scrapes_total[10s])`,
			`resets({__name__=~"target_scrapes_total|target_native_seconds"}[10s])`,
			`histogram_count(rate(target_native_seconds[10s]))`,
		} {
			want, err := instant(t, own, expr, at)
			require.NoError(t, err)
			require.NotEmpty(t, want, expr)
			var got vector
			require.Eventually(t, func() bool {
				got, err = instant(t, c, expr, at)
				return err == nil && len(got) == len(want)
			}, startTimeout, 100*time.Millisecond, "%s: %s", when, expr)
			require.Equal(t, want, got, "%s: %s", when, expr)
		}
	}
	same("in memory")
	n.crash()
	same("after a kill")
	require.True(t, flush(t.Context(), c))
	same("from the bucket")

	none, err := instant(t, old, starts, at)
	require.NoError(t, err)
	require.Empty(t, none, "remote write 1.0 has no start timestamps")
	prom.Kill()

	off := startNode(t, t.TempDir(), experimental)
	startPrometheus(t, off.URL, target, "--enable-feature=st-storage")
	plain := client.Duramen(off.URL, "rw2")
	defer plain.CloseIdle()
	require.Eventually(t, func() bool {
		got, err := instant(t, plain, "target_scrapes_total", client.Now())
		return err == nil && len(got) == 1
	}, startTimeout, 100*time.Millisecond)
	none, err = instant(t, plain, starts, client.Now())
	require.NoError(t, err)
	require.Empty(t, none)
	dropped, err := plain.Metric(t.Context(), "duramen_ingester_start_timestamps_dropped_total")
	require.NoError(t, err)
	require.Positive(t, dropped, "they are counted")
}
