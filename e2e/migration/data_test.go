package migration

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
)

// The samples of all stories lie in the past, so that what testdata has stays right: three blocks of two hours. A Prometheus
// keeps the last of them in its head, so the questions are about the first two.
const (
	interval = 60_000
	span     = 6 * 3_600_000
	asked    = 4 * 3_600_000
)

var begin = time.Date(2024, 1, 8, 0, 0, 0, 0, time.UTC).UnixMilli()

// source is a series and its samples by their number.
type source struct {
	labels    map[string]string
	float     func(i int) (v float64, ok bool)
	histogram func(i int) *histogram.Histogram
}

// sources are counters with resets, gauges with odd values, series that come and go, and native histograms.
func sources() (all []source) {
	for i := range 4 {
		all = append(all, source{
			labels: map[string]string{"__name__": "requests_total", "job": "api", "instance": fmt.Sprintf("api-%d:80", i), "path": "/ü"},
			// Not near zero where the rates that are asked for begin: Thanos flattens resets of counters before it extrapolates.
			float: func(n int) (float64, bool) { return float64((n+37)%(100+i)) * float64(i+1), true },
		})
	}
	for i := range 2 {
		all = append(all, source{
			labels: map[string]string{"__name__": "temperature", "job": "sensor", "room": fmt.Sprint(i)},
			float: func(n int) (float64, bool) {
				switch {
				case n%50 == 40:
					return math.Float64frombits(value.StaleNaN), true
				case n%50 > 40:
					return 0, false
				case n == 7:
					return math.Inf(1), true
				}
				return 20 + math.Sin(float64(n)/9)*float64(i+1), true
			},
		})
	}
	all = append(all, source{
		labels: map[string]string{"__name__": "shortlived", "job": "batch", "cluster": "own"},
		float:  func(n int) (float64, bool) { return float64(n), n >= 130 && n < 150 },
	}, source{
		labels:    map[string]string{"__name__": "latency_seconds", "job": "api"},
		histogram: func(n int) *histogram.Histogram { return tsdbutil.GenerateTestHistogram(int64(n)) },
	})
	return all
}

// push sends all samples in the order of time.
func push(t *testing.T, c *client.Client) {
	t.Helper()
	const steps = 30
	for from := 0; from < span/interval; from += steps {
		var w prompb.WriteRequest
		for _, s := range sources() {
			ts := prompb.TimeSeries{}
			for _, name := range slices.Sorted(maps.Keys(s.labels)) {
				ts.Labels = append(ts.Labels, prompb.Label{Name: name, Value: s.labels[name]})
			}
			for n := from; n < from+steps; n++ {
				at := begin + int64(n)*interval
				if s.histogram != nil {
					ts.Histograms = append(ts.Histograms, prompb.FromIntHistogram(at, s.histogram(n)))
				} else if v, ok := s.float(n); ok {
					ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: at, Value: v})
				}
			}
			if len(ts.Samples)+len(ts.Histograms) > 0 {
				w.Timeseries = append(w.Timeseries, ts)
			}
		}
		raw, err := w.Marshal()
		require.NoError(t, err)
		eventually(t, func() error { // a peer that is ready may refuse its first writes all the same
			a, err := c.Push(t.Context(), client.V1, raw)
			if err == nil && !a.OK() {
				err = fmt.Errorf("%d %s", a.Status, a.Body)
			}
			return err
		})
	}
}
