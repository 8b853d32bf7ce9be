package distributor

import (
	"context"
	"math"
	"net/http"
	"testing"

	"github.com/prometheus/prometheus/prompb"
	v1 "github.com/prometheus/prometheus/web/api/v1"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/duramenpb"
)

// A sample at the lower end of the integers must not reach a TSDB: there maxt minus a window wraps around, and a
// tenant whose first sample it was took no sample any more.
func TestTimesThatNoQueryCanNameAreRefused(t *testing.T) {
	require.Equal(t, v1.MinTime.UnixMilli(), int64(oldestTimestamp))
	var got []int64
	keep := func(ctx context.Context, id string, b *duramenpb.Batch, r *duramenpb.PushResult) error {
		for _, f := range b.Floats {
			got = append(got, f.T)
		}
		for _, h := range b.Histograms {
			got = append(got, h.T)
		}
		return acceptAll(ctx, id, b, r)
	}
	d, _ := newTest(t, pusherFunc(keep), openLimits())
	for _, ts := range []int64{math.MinInt64, math.MinInt64 + 1, oldestTimestamp - 1, oldestTimestamp, -1} {
		w := &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{
			{Labels: lset("__name__", "a"), Samples: []prompb.Sample{{Timestamp: ts}, {Timestamp: 5}}},
			{Labels: lset("__name__", "b"), Histograms: []prompb.Histogram{{
				Timestamp: ts, Count: &prompb.Histogram_CountInt{}, ZeroCount: &prompb.Histogram_ZeroCountInt{},
			}}},
		}}
		for _, message := range []any{w, toFormat2(w)} {
			got = got[:0]
			answer := post(t, d, message)
			if ts >= oldestTimestamp {
				require.Equal(t, 2, answer.Code/100, answer.Body)
				require.Equal(t, []int64{ts, 5, ts}, got)
				continue
			}
			require.Equal(t, http.StatusBadRequest, answer.Code)
			require.Contains(t, answer.Body.String(), "2 of 3 samples are refused for good, the rest is stored")
			require.Contains(t, answer.Body.String(), `too_old: 2 samples, for example {__name__="a"}: -9223`)
			require.Equal(t, []int64{5}, got)
		}
	}
}
