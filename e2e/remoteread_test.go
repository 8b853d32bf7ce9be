package e2e

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
)

const (
	// longSamples random floats take 1.3 MB in chunks, which is more than Prometheus would put into one frame.
	longSamples = 150_000
	longStep    = 1000 // milliseconds; the series spans 41 h and so both tiers
)

// TestPrometheusReads: a real Prometheus without data answers queries with what a tenant of Duramen holds, in the bucket
// and in memory, through streamed remote read with and without recent samples.
func TestPrometheusReads(t *testing.T) {
	n := startNode(t, t.TempDir())
	c := client.Duramen(n.URL, "reader")
	defer c.CloseIdle()
	end := client.Now() / longStep * longStep
	begin := end - (longSamples-1)*longStep
	pushLong(t, c, random(t), begin, end-20*60*longStep)
	require.True(t, flush(t.Context(), c))
	pushLong(t, c, random(t), end-20*60*longStep+longStep, end)
	other := client.Duramen(n.URL, "other")
	defer other.CloseIdle()
	a, err := other.Push(t.Context(), client.V1, request(t, map[string]string{"__name__": "theirs"}, end, 1))
	require.NoError(t, err)
	require.True(t, a.OK(), a)

	for name, settings := range map[string]string{
		"recent as well":   "read_recent: true",
		"older than local": "read_recent: false",
	} {
		t.Run(name, func(t *testing.T) {
			config := fmt.Sprintf("remote_read:\n  - url: %s/prometheus/api/v1/read\n    headers: {X-Scope-OrgID: reader}\n    %s\n",
				n.URL, settings)
			prom := client.Prometheus(startConfigured(t, config).URL)
			defer prom.CloseIdle()
			compareReads(t, c, prom, begin, end)
			chunked, err := prom.Metric(t.Context(), "prometheus_remote_read_client_queries_total", `response_type="chunked"`)
			require.NoError(t, err)
			require.Positive(t, chunked, "nothing was streamed")
		})
	}
}

// compareReads asks both servers the same.
func compareReads(t *testing.T, c, prom *client.Client, begin, end int64) {
	t.Helper()
	for _, expr := range []string{
		`long`, `count_over_time(long[2d])`, `sum_over_time(long[2d])`, `sum(rate(counter[5m]))`, `avg_over_time(long[30m] offset 30h)`,
		`histogram_quantile(0.9, native)`, `histogram_count(rate(native[1h]))`, `{__name__=~".+"}`, `nothing`, `theirs`,
	} {
		for _, at := range []int64{end, end - 60*60*longStep, (begin + end) / 2} {
			var want, got []instantSeries
			require.NoError(t, c.Query(t.Context(), expr, at, &want), expr)
			require.NoError(t, prom.Query(t.Context(), expr, at, &got), expr)
			require.ElementsMatch(t, want, got, "%s at %d", expr, at)
		}
	}
	for _, selector := range []string{"long", "native", "counter"} {
		want, err := c.Samples(t.Context(), selector, end, end-begin+1)
		require.NoError(t, err)
		got, err := prom.Samples(t.Context(), selector, end, end-begin+1)
		require.NoError(t, err)
		client.Sort(want)
		client.Sort(got)
		require.Empty(t, client.Difference(want, got), selector)
		require.NotEmpty(t, want)
	}
	all, err := prom.Samples(t.Context(), "long", end, end-begin+1)
	require.NoError(t, err)
	require.Equal(t, longSamples, countPoints(all))
}

type instantSeries struct {
	Metric    map[string]string
	Value     any
	Histogram any
}

// pushLong writes one long series of random floats, and beside it counters and native histograms every minute.
func pushLong(t *testing.T, c *client.Client, rnd *rand.Rand, begin, end int64) {
	t.Helper()
	name := func(n string) []prompb.Label { return []prompb.Label{{Name: "__name__", Value: n}} }
	for at := begin; at <= end; {
		var req prompb.WriteRequest
		long := prompb.TimeSeries{Labels: name("long")}
		counter, native := prompb.TimeSeries{Labels: name("counter")}, prompb.TimeSeries{Labels: name("native")}
		for i := 0; i < 10_000 && at <= end; i++ {
			long.Samples = append(long.Samples, prompb.Sample{Timestamp: at, Value: rnd.NormFloat64()})
			if minute := at / longStep; minute%60 == 0 {
				counter.Samples = append(counter.Samples, prompb.Sample{Timestamp: at, Value: float64(minute % 70_000)})
				h := tsdbutil.GenerateTestHistogram(minute / 60 % 1000)
				native.Histograms = append(native.Histograms, prompb.FromIntHistogram(at, h))
			}
			at += longStep
		}
		req.Timeseries = append(req.Timeseries, long)
		for _, ts := range []prompb.TimeSeries{counter, native} {
			if len(ts.Samples)+len(ts.Histograms) > 0 {
				req.Timeseries = append(req.Timeseries, ts)
			}
		}
		raw, err := req.Marshal()
		require.NoError(t, err)
		a, err := c.Push(t.Context(), client.V1, raw)
		require.NoError(t, err)
		require.True(t, a.OK(), a)
	}
}
