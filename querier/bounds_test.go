package querier

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/manifest"
)

// Each of these took from many seconds to hours, and no timeout ended it.
func TestDeepExpressionsAreRefusedAtOnce(t *testing.T) {
	q := newQuerier(t, &tsdbRecent{db: openDB(t)}, brokenStore{}, &fakeManifests{current: &manifest.Manifest{Version: 1}})
	h := q.Handler("/prometheus")
	const n = 400_000
	deep := []string{
		strings.Repeat("(", n) + "1" + strings.Repeat(")", n),
		strings.Repeat("-", n) + "x",
		"1" + strings.Repeat("+1", n),
		"x" + strings.Repeat("[5m:1m]", n),
		strings.Repeat("sum(", maxOperators+1) + "x" + strings.Repeat(")", maxOperators+1),
	}
	for _, path := range []string{"query", "query_range", "format_query", "parse_query", "query_exemplars"} {
		for _, query := range deep {
			r := httptest.NewRequestWithContext(as(t, tenantID), http.MethodPost, "/prometheus/api/v1/"+path,
				strings.NewReader(form("query="+query, "start=0", "end=1", "step=1").Encode()))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			w := httptest.NewRecorder()
			begin := time.Now()
			h.ServeHTTP(w, r)
			require.Less(t, time.Since(begin), 20*time.Second)
			require.Equal(t, http.StatusBadRequest, w.Code, path)
			require.Contains(t, w.Body.String(), `"errorType":"bad_data"`)
			require.Contains(t, w.Body.String(), "operators, parentheses and square brackets; at most ")
		}
	}
}

func TestOperators(t *testing.T) {
	for query, want := range map[string]int{
		"":                             0,
		"up":                           0,
		`up{a="((((", b!="+", c=~"-"}`: 0,
		`sum by (a) (rate(x[5m]))`:     4,
		"a + b * -c":                   3,
		"# ((((\n1":                    0,
		"x[5m:1m] @ 1":                 1,
		"((":                           2,
	} {
		require.LessOrEqual(t, operators(query), want+1, query)
		require.GreaterOrEqual(t, operators(query), want, query)
	}
	many := "x" + strings.Repeat(" or x", maxOperators-1)
	require.Less(t, operators(many), maxOperators)
	require.Zero(t, operators(`{__name__=~"`+strings.Repeat("a|", 100_000)+`b"}`))
}

func TestParametersThatCannotBeReadAreNamed(t *testing.T) {
	q := newQuerier(t, &tsdbRecent{db: openDB(t)}, brokenStore{}, &fakeManifests{current: &manifest.Manifest{Version: 1}})
	h := q.Handler("/prometheus")
	ask := func(contentType, path, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(as(t, tenantID), http.MethodPost, "/prometheus/api/v1/"+path,
			strings.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	const urlencoded = "application/x-www-form-urlencoded"
	for _, tc := range []struct{ contentType, path, body, want string }{
		{urlencoded, "query", "query=%zz", "read the parameters"},
		{urlencoded, "query", "query=" + strings.Repeat("a", maxFormBytes+1), "too large"},
		{
			"multipart/form-data; boundary=B", "query",
			"--B\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\n" + strings.Repeat("(", maxFormBytes), "too large",
		},
		{urlencoded, "query_range", "query=1&start=0&end=0&step=0.0001", "step"},
	} {
		w := ask(tc.contentType, tc.path, tc.body)
		require.Equal(t, http.StatusBadRequest, w.Code, "%.40s: %.300s", tc.body, w.Body)
		require.Contains(t, w.Body.String(), tc.want)
	}
	w := ask("multipart/form-data; boundary=B", "query",
		"--B\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\n1+1\r\n--B--\r\n")
	require.Equal(t, http.StatusOK, w.Code, w.Body)
}
