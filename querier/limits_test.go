package querier

import (
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/tenant"
)

// limited is the API over three recent series of the tenant, with these limits.
func limited(t *testing.T, v tenant.Values) (*Querier, http.Handler) {
	t.Helper()
	recent := &fakeRecent{t: t, answer: func(duramenpb.View, int64, int64) (*listQuerier, duramenpb.Held, error) {
		return &listQuerier{points: recentPoints(3, 5)}, duramenpb.Held{}, nil
	}}
	q, err := New(testConfig(t), recent, &tsdbExtras{t: t}, brokenStore{}, &fakeManifests{}, tenant.StaticLimits(v), clock,
		nopLog, nil)
	require.NoError(t, err)
	return q, q.Handler("/prometheus")
}

func TestSeriesLimitCountsAllSelectors(t *testing.T) {
	start := at(11 * time.Hour)
	oneSelector, twoSelectors := form(`query={__name__=~".+"}`, "time="+start), form("query=m+m", "time="+start)
	for _, c := range []struct {
		limit    int
		one, two int // statuses
	}{{0, 200, 200}, {6, 200, 200}, {5, 200, 422}, {3, 200, 422}, {2, 422, 422}} {
		_, h := limited(t, tenant.Values{MaxFetchedSeriesPerQuery: c.limit})
		require.Equal(t, c.one, do(t, h, http.MethodGet, "query", oneSelector).Code, c)
		require.Equal(t, c.two, do(t, h, http.MethodGet, "query", twoSelectors).Code, c)
		require.Equal(t, c.two, do(t, h, http.MethodGet, "series", form("match[]=m", "match[]=m", "start="+start)).Code, c)
		read1 := readRequest(t, nil, readQuery(usualCut, now.UnixMilli(), everything))
		require.Equal(t, c.one, read(t, h, read1).Code, c)
		read1 = readRequest(t, []prompb.ReadRequest_ResponseType{streamed}, readQuery(usualCut, now.UnixMilli(), everything))
		if c.one == http.StatusOK {
			require.Equal(t, c.one, read(t, h, read1).Code, c)
		}
	}
	_, h := limited(t, tenant.Values{MaxFetchedSeriesPerQuery: 2})
	w := do(t, h, http.MethodGet, "query", oneSelector)
	require.JSONEq(t, `{"status":"error","errorType":"execution","error":"expanding series: tenant t1: the query selects 3 series or more; `+
		`the limit max_fetched_series_per_query is 2"}`, w.Body.String())
}

func TestLengthLimit(t *testing.T) {
	q, h := limited(t, tenant.Values{MaxQueryLength: time.Hour})
	for _, c := range []struct {
		path   string
		form   []string
		status int
	}{
		{"query", []string{"query=m"}, 200},
		{"query", []string{"query=rate(m[1h])"}, 200},
		{"query", []string{"query=rate(m[66m])"}, 422},
		{"query", []string{"query=m - m offset 7h"}, 200}, // each selector reaches over a moment
		{"query", []string{"query=max_over_time(m[2h:1m])"}, 422},
		{"query_range", []string{"query=m", "start=" + at(time.Hour), "end=" + at(0), "step=60"}, 200},
		{"query_range", []string{"query=m", "start=" + at(61*time.Minute), "end=" + at(0), "step=60"}, 422},
		{"series", []string{"match[]=m", "start=" + at(10*time.Hour)}, 200},
		{"labels", []string{"start=" + at(10*time.Hour)}, 200},
	} {
		if c.path == "query" {
			c.form = append(c.form, "time="+at(0))
		}
		w := do(t, h, http.MethodGet, c.path, form(c.form...))
		require.Equal(t, c.status, w.Code, "%v: %s", c, w.Body)
	}
	w := do(t, h, http.MethodGet, "query", form("query=rate(m[90m])", "time="+at(0)))
	require.JSONEq(t, `{"status":"error","errorType":"execution","error":"expanding series: tenant t1: a selector of the `+
		`query reaches over 1h30m0s, from 2026-03-01T10:30:00Z to 2026-03-01T12:00:00Z; the limit max_query_length is 1h0m0s"}`,
		w.Body.String())
	w = read(t, h, readRequest(t, nil, readQuery(usualCut, now.UnixMilli(), everything)))
	require.Equal(t, http.StatusUnprocessableEntity, w.Code, w.Body)
	require.Contains(t, w.Body.String(), "max_query_length is 1h0m0s")

	err := checkLength(q.limits, tenantID, 0, -1<<63, 1<<63-1, nil)
	require.ErrorContains(t, err, "over more than 290 years")
}
