package query

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/cli"
)

var hour = span{start: time.Unix(1785412800, 0), end: time.Unix(1785416400, 0), step: time.Minute}

// stream is a series with a value for each minute of hour; NaN leaves the minute out.
func stream(name string, f func(minute int) float64) *model.SampleStream {
	s := &model.SampleStream{Metric: model.Metric{"__name__": model.LabelValue(name)}}
	for i := range 61 {
		if v := f(i); !math.IsNaN(v) {
			t := model.TimeFromUnix(hour.start.Unix() + int64(i)*60)
			s.Values = append(s.Values, model.SamplePair{Timestamp: t, Value: model.SampleValue(v)})
		}
	}
	return s
}

func plot(t *testing.T, m model.Matrix, asked span, width, height int) (out, notes string) {
	t.Helper()
	var o, e bytes.Buffer
	env := cli.Env{Stdout: &o, Stderr: &e, Getenv: func(string) string { return "" }}
	require.NoError(t, writePlot(env, m, asked, width, height))
	return o.String(), e.String()
}

func TestPlotOfOneSeries(t *testing.T) {
	out, notes := plot(t, model.Matrix{stream("ramp", func(i int) float64 {
		if i >= 20 && i < 30 {
			return math.NaN()
		}
		return float64(i)
	})}, hour, 60, 6)
	require.Empty(t, notes)
	require.Equal(t, strings.TrimPrefix(`
 60.0 ┤                                            ╭────
 50.0 ┤                                    ╭───────╯
 40.0 ┤                            ╭───────╯
 30.0 ┤                        ╶───╯
 20.0 ┤           ╭────╴
 10.0 ┤   ╭───────╯
  0.0 ┼───╯
      └┬───────────┬────────────┬───────────┬───────────┬
     12:00       12:15        12:30       12:45       13:00

2026-07-30T12:00:00Z to 2026-07-30T13:00:00Z, 1m12s a column
─ ramp
`, "\n"), out)
	for line := range strings.SplitSeq(out, "\n") {
		require.LessOrEqual(t, utf8.RuneCountInString(line), 60)
	}
}

func TestPlotTellsLinesApart(t *testing.T) {
	m := model.Matrix{stream("low", func(int) float64 { return 0 }), stream("high", func(int) float64 { return 100 })}
	out, _ := plot(t, m, hour, 60, 4)
	require.Contains(t, out, "aaaa")
	require.Contains(t, out, "bbbb")
	require.Contains(t, out, "a low\nb high\n")
	colours, charsets := marks(3, true)
	require.Len(t, colours, 3)
	require.Nil(t, charsets)
	_, charsets = marks(20, true)
	require.Len(t, charsets, 20, "letters when there are too few colours")
}

func TestPlotSaysWhatItLeavesOut(t *testing.T) {
	m := model.Matrix{stream("inf", func(i int) float64 { return []float64{1, math.Inf(1)}[i%2] })}
	for i := range 30 {
		m = append(m, stream(fmt.Sprint("s", i), func(int) float64 { return 1 }))
	}
	m = append(m, &model.SampleStream{Histograms: []model.SampleHistogramPair{{Histogram: &model.SampleHistogram{}}}})
	_, notes := plot(t, m, hour, 80, 5)
	require.Contains(t, notes, "note: 1 native histograms are not drawn")
	require.Contains(t, notes, "note: 30 infinite values are not drawn")
	require.Contains(t, notes, "note: 5 more series are not drawn")
	out, _ := plot(t, m[31:], hour, 80, 5)
	require.Equal(t, "no series\n", out)
}

// TestPlotOfAnything: no value that a server can answer stops the plot.
func TestPlotOfAnything(t *testing.T) {
	values := []float64{
		0, 1, -1, 1e19, 1e300, 1.7e308, -1.7e308, 5e-324, -5e-324, 1e-290, 1.0000001e-290, 1e18, 1e18 + 128, 1e15, 1e15 + 0.125, 0.1,
		math.Inf(1), math.Inf(-1), 123456.789,
	}
	for _, a := range values {
		for _, b := range values {
			for _, width := range []int{minWidth, 80} {
				out, _ := plot(t, model.Matrix{stream("x", func(i int) float64 { return []float64{a, b}[i%2] })}, hour, width, 5)
				require.NotEmpty(t, out)
			}
		}
	}
}

func TestPlotOfAnInstantRange(t *testing.T) {
	out, _ := plot(t, model.Matrix{stream("x", func(i int) float64 { return float64(i) })}, span{}, 80, 5)
	require.Contains(t, out, "2026-07-30T12:00:00Z to 2026-07-30T13:00:00Z")
	one := &model.SampleStream{Values: []model.SamplePair{{Timestamp: 1785412800000, Value: 3}}}
	out, _ = plot(t, model.Matrix{one}, span{}, 80, 5)
	require.Contains(t, out, "┼", "one sample")
	err := writePlot(cli.Env{}, model.Vector{}, span{}, 80, 5)
	require.ErrorIs(t, err, cli.ErrUsage)
	require.ErrorContains(t, err, "-start=-1h")
}

func TestRaster(t *testing.T) {
	nan := math.NaN()
	pairs := func(values ...float64) (s []model.SamplePair) {
		for i, v := range values {
			if !math.IsNaN(v) {
				s = append(s, model.SamplePair{Timestamp: model.Time(i * 1000), Value: model.SampleValue(v)})
			}
		}
		return s
	}
	asked := span{start: time.Unix(0, 0), end: time.Unix(4, 0), step: time.Second}
	for _, tt := range []struct {
		in      []model.SamplePair
		columns int
		want    []float64
	}{
		{pairs(1, 2, 3, 4, 5), 5, []float64{1, 2, 3, 4, 5}},
		{pairs(0, 2, 4, 6, 8), 9, []float64{0, 1, 2, 3, 4, 5, 6, 7, 8}},
		{pairs(1, nan, nan, 4, 5), 5, []float64{1, nan, nan, 4, 5}},
		{pairs(1, 3, 10, 20, 30), 2, []float64{2, 20}},
	} {
		got := raster(tt.in, asked, tt.columns)
		require.Len(t, got, len(tt.want))
		for i := range got {
			if math.IsNaN(tt.want[i]) {
				require.True(t, math.IsNaN(got[i]))
				continue
			}
			require.InDelta(t, tt.want[i], got[i], 1e-9, "%v column %d", tt, i)
		}
	}
}
