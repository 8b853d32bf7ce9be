package querier

import (
	"net/http"
	"net/http/httptest"
	"regexp/syntax"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/tenant"
)

// TestInstructions: the estimate is about what Go makes of an expression.
func TestInstructions(t *testing.T) {
	for _, pattern := range []string{
		"abc", "(a|bc)*d+e?", "[a-z0-9_]{3,40}", "(a.){1000}", "((x{10}){10}y){10}", ".*foo.*", "(?i:abc)", "a{5,}", "",
		strings.Repeat("host-1|", 1000) + "x",
	} {
		re, err := syntax.Parse(pattern, syntax.Perl|syntax.DotNL)
		require.NoError(t, err)
		estimate := instructions(re)
		prog, err := syntax.Compile(re.Simplify())
		require.NoError(t, err)
		require.GreaterOrEqual(t, 2*estimate+10, len(prog.Inst), pattern)
		require.LessOrEqual(t, estimate, 2*len(prog.Inst)+10, pattern)
	}
}

func TestCostlyRegularExpressionsAreRefused(t *testing.T) {
	q := newQuerier(t, &tsdbRecent{db: openDB(t)}, brokenStore{}, &fakeManifests{current: &manifest.Manifest{Version: 1}})
	h := q.Handler("/prometheus")
	long := strings.Repeat("a{1000}", 60) + "." + strings.Repeat("b{1000}", 60)
	hosts := strings.Repeat("some-host.example.net:9100|", 10_000) + "x"
	start := "start=" + strconv.FormatInt(now.Unix(), 10)
	for text, refusal := range map[string]string{
		"m{a=~`(a.){1000}`}":                            "",
		"m{a=~`" + hosts + "`}":                         "",
		"m{a=~`" + long + "`}":                          "instructions; at most 100000 are accepted",
		"m{a!~`" + long + "`}":                          "instructions; at most 100000 are accepted",
		"{a=~`" + strings.Repeat(hosts, 4) + "`,b=`x`}": "bytes or more; at most 1048576 are accepted",
		"m{a=~`" + long[:400] + "`,b=~`" + long + "`}":  "at most 100000 are accepted",
		"m{a=~`(`}": "error parsing regexp",
		"{a=~`" + strings.Repeat("(a{900}|", 70) + "b`}": "error parsing regexp",
	} {
		for _, path := range []string{"query", "parse_query", "series"} {
			parameter := map[bool]string{true: "match[]=", false: "query="}[path == "series"]
			r := httptest.NewRequestWithContext(as(t, tenantID), http.MethodPost, "/prometheus/api/v1/"+path,
				strings.NewReader(form(parameter+text, start).Encode()))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if refusal == "" {
				require.Equal(t, http.StatusOK, w.Code, "%s %s", path, w.Body)
				continue
			}
			require.Equal(t, http.StatusBadRequest, w.Code, path)
			require.Contains(t, w.Body.String(), refusal, path)
		}
	}
	replace := form("query=label_replace(m, `a`, `$1`, `b`, `"+long+"`)", "time="+at(0))
	require.Equal(t, http.StatusBadRequest, do(t, h, http.MethodGet, "query", replace).Code)

	matcher := &prompb.LabelMatcher{Type: prompb.LabelMatcher_RE, Name: labels.MetricName, Value: long}
	w := read(t, h, readRequest(t, nil, &prompb.Query{EndTimestampMs: 1, Matchers: []*prompb.LabelMatcher{matcher}}))
	require.Equal(t, http.StatusBadRequest, w.Code, w.Body)
	require.Contains(t, w.Body.String(), "at most 100000 are accepted")

	r := httptest.NewRequestWithContext(tenant.WithID(t.Context(), tenantID), http.MethodGet,
		"/federate?"+form("match[]=m{a=~`"+long+"`}").Encode(), nil)
	rec := httptest.NewRecorder()
	q.Federate().ServeHTTP(rec, r)
	require.Equal(t, http.StatusBadRequest, rec.Code, rec.Body)
}
