package migration

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
)

// selectors are asked for raw samples, series and label values. Some name labels that only a peer's blocks have.
// Each names a label of the series themselves too: Thanos answers nothing to one that names external labels alone.
var selectors = []string{
	`{__name__=~".+"}`, `requests_total`, `requests_total{instance="api-1:80"}`, `requests_total{instance!="api-1:80"}`,
	`{job=~"api|sensor"}`, `{job!~"api|sensor",__name__!=""}`, `temperature{room=""}`, `{path="/ü"}`, `latency_seconds`, `nothing`,
	`shortlived`, `shortlived{cluster="own"}`, `shortlived{cluster="eu-1"}`, `{cluster=~"eu.*",job="api"}`,
	`{cluster!="eu-1",__name__=~".+"}`, `{cluster="",__name__=~".+"}`, `{replica="a",job="api"}`, `{replica!="a",__name__=~".+"}`,
	`{replica=~"a|b",room="0"}`, `{tenant_id=~".+",room="1"}`, `{tenant_id="team-a",__name__=~".+"}`,
	`{tenant_id="",__name__=~".+"}`, `{__org_id__=~".+",job="api"}`, `{__org_id__="",__name__="shortlived"}`,
}

// expressions are evaluated at the last sample of the range.
var expressions = []string{
	`sum by (job) (count_over_time({__name__=~".+"}[4h]))`, `sum by (cluster, replica, tenant_id) (rate(requests_total[1h]))`,
	`count by (__name__) (last_over_time({__name__=~".+"}[4h]))`, `histogram_quantile(0.9, sum(rate(latency_seconds[2h])))`,
	`max_over_time(temperature[30m])`, `group by (replica) (requests_total)`, `absent(nothing)`,
}

// labelNames are asked for their values, of all series and of those of some selectors.
var labelNames = []string{"__name__", "job", "instance", "room", "cluster", "replica", "tenant_id", "__org_id__", "path"}

// requireSame asks both the same questions about [from, to), and compares. It returns how many series they have.
func requireSame(t *testing.T, want, got *client.Client, from, to int64) int {
	t.Helper()
	last := to - interval // the time of the last sample
	for _, expr := range expressions {
		require.Equal(t, instant(t, want, expr, last), instant(t, got, expr, last), expr)
	}
	n := 0
	for _, s := range selectors {
		raw := fmt.Sprintf("%s[%dms]", s, to-from) // (last-(to-from), last]
		w := instant(t, want, raw, last)
		require.Equal(t, w, instant(t, got, raw, last), raw)
		require.Equal(t, series(t, want, s, from, to), series(t, got, s, from, to), s)
		require.Equal(t, names(t, want, s, from, to), names(t, got, s, from, to), s)
		if s == selectors[0] {
			n = len(w)
		}
	}
	require.Equal(t, names(t, want, "", from, to), names(t, got, "", from, to))
	for _, name := range labelNames {
		for _, s := range append([]string{""}, selectors[:5]...) {
			require.Equal(t, values(t, want, name, s, from, to), values(t, got, name, s, from, to), "%s of %s", name, s)
		}
	}
	return n
}

// instant returns the answer to a query, a line a series.
func instant(t *testing.T, c *client.Client, expr string, at int64) []string {
	t.Helper()
	var result []struct {
		client.Series
		Value     *client.Point `json:"value"`
		Histogram *client.Point `json:"histogram"`
	}
	require.NoError(t, c.Query(t.Context(), expr, at, &result), expr)
	lines := make([]string, 0, len(result))
	for _, s := range result {
		points := slices.Concat(s.Values, s.Histograms)
		for _, p := range []*client.Point{s.Value, s.Histogram} {
			if p != nil {
				points = append(points, *p)
			}
		}
		var b strings.Builder
		b.WriteString(label(s.Metric))
		for _, p := range points {
			fmt.Fprintf(&b, " %d:%v", p.T, p.V)
			if p.H != nil {
				fmt.Fprintf(&b, "%v", *p.H)
			}
		}
		lines = append(lines, b.String())
	}
	slices.Sort(lines)
	return lines
}

// label writes a label set in one way.
func label(lset map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(lset)) {
		fmt.Fprintf(&b, "%s=%q ", name, lset[name])
	}
	return b.String()
}

func series(t *testing.T, c *client.Client, selector string, from, to int64) []string {
	t.Helper()
	var result []map[string]string
	require.NoError(t, c.Ask(t.Context(), "/api/v1/series?"+scope(selector, from, to), &result), selector)
	lines := make([]string, 0, len(result))
	for _, lset := range result {
		lines = append(lines, label(lset))
	}
	slices.Sort(lines)
	return lines
}

func names(t *testing.T, c *client.Client, selector string, from, to int64) []string {
	t.Helper()
	return list(t, c, "/api/v1/labels?"+scope(selector, from, to))
}

func values(t *testing.T, c *client.Client, name, selector string, from, to int64) []string {
	t.Helper()
	return list(t, c, "/api/v1/label/"+name+"/values?"+scope(selector, from, to))
}

func list(t *testing.T, c *client.Client, path string) []string {
	t.Helper()
	var result []string
	require.NoError(t, c.Ask(t.Context(), path, &result), path)
	require.True(t, slices.IsSorted(result), path)
	return append([]string{}, result...)
}

// scope is the part of a URL that says what series and times a call is about.
func scope(selector string, from, to int64) string {
	v := url.Values{"start": {fmt.Sprintf("%.3f", float64(from)/1000)}, "end": {fmt.Sprintf("%.3f", float64(to-1)/1000)}}
	if selector != "" {
		v.Set("match[]", selector)
	}
	return v.Encode()
}
