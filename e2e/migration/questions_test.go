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

// answers are what a server said, by the question.
type answers map[string][]string

// raw is the question for the samples of a selector, all of which is the first of them.
func raw(selector string) string { return "samples of " + selector }

// series returns how many series there are.
func (a answers) series() int { return len(a[raw(selectors[0])]) }

// requireSame asks both the same questions about [from, to), and compares. It returns how many series they have.
func requireSame(t *testing.T, want, got *client.Client, from, to int64) int {
	t.Helper()
	w := ask(t, want, from, to)
	w.requireEqual(t, ask(t, got, from, to))
	return w.series()
}

// requireEqual compares the answers to each question.
func (a answers) requireEqual(t *testing.T, got answers) {
	t.Helper()
	for _, question := range slices.Sorted(maps.Keys(a)) {
		require.Equal(t, a[question], got[question], question)
	}
	require.Len(t, got, len(a))
}

// ask asks all questions about [from, to).
func ask(t *testing.T, c *client.Client, from, to int64) answers {
	t.Helper()
	last := to - interval // the time of the last sample
	a := answers{}
	for _, expr := range expressions {
		a[expr] = instant(t, c, expr, last)
	}
	for _, s := range selectors {
		a[raw(s)] = instant(t, c, fmt.Sprintf("%s[%dms]", s, to-from), last) // (last-(to-from), last]
		a["series of "+s] = series(t, c, s, from, to)
		a["names of labels of "+s] = names(t, c, s, from, to)
	}
	a["names of labels"] = names(t, c, "", from, to)
	for _, name := range labelNames {
		if name != "cluster" { // of all series Thanos lists also the values that external labels have replaced
			a["values of "+name] = values(t, c, name, "", from, to)
		}
		for _, s := range selectors[:5] {
			a["values of "+name+" in "+s] = values(t, c, name, s, from, to)
		}
	}
	return a
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
