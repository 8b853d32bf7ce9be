package ctl

import (
	"encoding/csv"
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
)

// TestQuery asks a server for what was written to it, in every format and with every exit code.
func TestQuery(t *testing.T) {
	n := startNode(t, t.TempDir())
	c := client.Duramen(n.URL, "team-a")
	defer c.CloseIdle()
	now := time.Now().Truncate(time.Second)
	var samples []prompb.Sample
	for i := range 61 {
		samples = append(samples, prompb.Sample{Timestamp: now.Add(time.Duration(i-60) * time.Minute).UnixMilli(), Value: float64(i)})
	}
	push(t, c, map[string]string{"__name__": "ramp", "job": "a, \"b\""}, samples)
	push(t, c, map[string]string{"__name__": "flat_total", "job": "x"}, []prompb.Sample{{Timestamp: now.UnixMilli(), Value: 7}})
	h := prompb.FromFloatHistogram(now.UnixMilli(), tsdbutil.GenerateTestFloatHistogram(1))
	push(t, c, map[string]string{"__name__": "native"}, nil, h)

	at := "-time=" + strconv.FormatInt(now.Unix(), 10)
	query := func(args ...string) said {
		return ctl(t, nil, append([]string{"query", "-url=" + n.URL, "-tenant=team-a"}, args...)...)
	}

	s := query(at, `ramp`)
	require.Equal(t, said{0, "at " + now.UTC().Format(time.RFC3339) + "\nramp{job=\"a, \\\"b\\\"\"}  60\n", ""}, s)
	s = query("-format=plot", "-width=70", "-start=-1h", "-step=1m", "ramp")
	require.Zero(t, s.code, s.errors)
	require.Contains(t, s.out, "╭")
	require.Contains(t, s.out, "─ ramp{")
	s = query("-format=csv", "-start="+strconv.FormatInt(now.Unix()-3600, 10), "-end="+strconv.FormatInt(now.Unix(), 10), "-step=60", "ramp")
	require.Zero(t, s.code, s.errors)
	rows, err := csv.NewReader(strings.NewReader(s.out)).ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 62)
	require.Equal(t, []string{"ramp", `a, "b"`, now.UTC().Format(time.RFC3339), "60"}, rows[61])
	s = query(at, "-format=json", "ramp")
	require.Zero(t, s.code, s.errors)
	require.True(t, json.Valid([]byte(s.out)))
	s = query(at, "native")
	require.Zero(t, s.code, s.errors)
	require.Contains(t, s.out, "native  histogram: count 21, sum 36.8")
	require.Contains(t, s.out, "█")
	s = query(at, "count_over_time(native[5m]) and native")
	require.Zero(t, s.code, s.errors)

	s = query(at, "rate(ramp[5m])")
	require.Zero(t, s.code)
	require.Contains(t, s.errors, "info: PromQL info: metric might not be a counter")
	s = query("-fail-empty", "nothing_of_that_name")
	require.Equal(t, said{3, "no series\n", "duramenctl query: the answer has no series\n"}, s)
	require.Equal(t, "no series\n", ctl(t, nil, "query", "-url="+n.URL, "-tenant=team-b", at, "ramp").out, "tenants do not meet")
	s = query("ramp{")
	require.Equal(t, 1, s.code)
	require.Contains(t, s.errors, `duramenctl query: bad_data: invalid parameter "query": 1:6: parse error`)
	s = query("-tenant=../x", "ramp")
	require.Equal(t, 2, s.code)
	require.Contains(t, s.errors, "tenant")
	require.Equal(t, 2, query().code)
	n.Kill()
	s = query("ramp")
	require.Equal(t, 1, s.code)
	require.Contains(t, s.errors, "connection refused")
}
