package query

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/internal/cli"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server answers one body and keeps what it was asked. The stories in e2e/ctl ask real servers.
type server struct {
	*httptest.Server
	status int
	body   string
	path   string
	form   url.Values
	tenant []string
}

func newServer(t *testing.T, body string) *server {
	t.Helper()
	s := &server{status: http.StatusOK, body: body}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.path, s.tenant = r.URL.Path, r.Header.Values("X-Scope-OrgID")
		if err := r.ParseForm(); err == nil {
			s.form = r.PostForm
		}
		w.WriteHeader(s.status)
		_, err := io.WriteString(w, s.body)
		if err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// invoke runs the command as a shell would.
func invoke(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	env := cli.Env{Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" }}
	code = cli.Main(t.Context(), Command(), args, env)
	return code, out.String(), errs.String()
}

const vector = `{"status":"success","data":{"resultType":"vector","result":[
 {"metric":{"__name__":"up","job":"a"},"value":[1785412800,"1"]},
 {"metric":{"__name__":"up","job":"a, \"b\"","zone":"z"},"value":[1785412800,"1e-300"]}]},
 "warnings":["one zone is down"],"infos":["metric might not be a counter"]}
`

func TestInstantAsATable(t *testing.T) {
	s := newServer(t, vector)
	code, out, errs := invoke(t, "-url="+s.URL+"/", "-tenant=team-a", "-time=1785412800.5", "-timeout=5s", "up")
	require.Equal(t, cli.ExitDone, code, errs)
	require.Equal(t, `at 2026-07-30T12:00:00Z
up{job="a"}                   1
up{job="a, \"b\"", zone="z"}  1e-300
`, out)
	require.Equal(t, "warning: one zone is down\ninfo: metric might not be a counter\n", errs)
	require.Equal(t, "/prometheus/api/v1/query", s.path)
	require.Equal(t, url.Values{"query": {"up"}, "time": {"1785412800.500"}, "timeout": {"5s"}}, s.form)
	require.Equal(t, []string{"team-a"}, s.tenant)
	code, _, _ = invoke(t, "-url="+s.URL, "up")
	require.Equal(t, cli.ExitDone, code)
	require.Empty(t, s.tenant, "no header without -tenant")
}

func TestInstantAsCSVAndJSON(t *testing.T) {
	s := newServer(t, vector)
	_, out, _ := invoke(t, "-url="+s.URL, "-format=csv", "up")
	require.Equal(t, `__name__,job,zone,time,value
up,a,,2026-07-30T12:00:00Z,1
up,"a, ""b""",z,2026-07-30T12:00:00Z,1e-300
`, out)
	_, out, _ = invoke(t, "-url="+s.URL, "-format=json", "up")
	require.Equal(t, vector, out, "as it came") //nolint:testifylint // the bytes are meant, not what they say
}

const matrix = `{"status":"success","data":{"resultType":"matrix","result":[
 {"metric":{"__name__":"h"},"values":[[1785412860,"NaN"],[1785412920.25,"-Inf"]],"histograms":[[1785412800,
  {"count":"12","sum":"18.5","buckets":[[3,"-0.001","0.001","2"],[0,"0.5","1","8"],[1,"-1","-0.5","2"]]}]]}]}}`

func TestRangeAsATable(t *testing.T) {
	s := newServer(t, matrix)
	code, out, errs := invoke(t, "-url="+s.URL, "-start=1785412800", "-end=1785416400", "h")
	require.Equal(t, cli.ExitDone, code, errs)
	require.Equal(t, `h
  2026-07-30T12:00:00Z      {count:12, sum:18.5, [-0.001,0.001]:2, (0.5,1]:8, [-1,-0.5):2}
  2026-07-30T12:01:00Z      NaN
  2026-07-30T12:02:00.25Z   -Inf
`, out)
	require.Equal(t, "/prometheus/api/v1/query_range", s.path)
	require.Equal(t, url.Values{
		"query": {"h"}, "start": {"1785412800.000"}, "end": {"1785416400.000"}, "step": {"60.000"}, "timeout": {"2m0s"},
	}, s.form)
	_, out, _ = invoke(t, "-url="+s.URL, "-start=1785412800", "-end=1785416400", "-step=5m", "-format=csv", "h")
	require.Equal(t, `__name__,time,value
h,2026-07-30T12:00:00Z,"{count:12, sum:18.5, [-0.001,0.001]:2, (0.5,1]:8, [-1,-0.5):2}"
h,2026-07-30T12:01:00Z,NaN
h,2026-07-30T12:02:00.25Z,-Inf
`, out)
	require.Equal(t, []string{"300.000"}, s.form["step"])
}

func TestHistogramOfAnInstantIsDrawn(t *testing.T) {
	s := newServer(t, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"h"},"histogram":[1785412800,
  {"count":"12","sum":"18","buckets":[[3,"-0.001","0.001","0.01"],[0,"0.5","1","8"],[0,"1","2","4"],[0,"2","4","0"]]}]}]}}`)
	_, out, _ := invoke(t, "-url="+s.URL, "h")
	require.Equal(t, `at 2026-07-30T12:00:00Z
h  histogram: count 12, sum 18, mean 1.5
  [-0.001,0.001]  █ 0.01
  (0.5,1]         ████████████████████████████████████████ 8
  (1,2]           ████████████████████ 4
  (2,4]            0
`, out)
}

func TestScalarsAndStrings(t *testing.T) {
	s := newServer(t, `{"status":"success","data":{"resultType":"scalar","result":[1785412800,"42"]}}`)
	_, out, _ := invoke(t, "-url="+s.URL, "42")
	require.Equal(t, "at 2026-07-30T12:00:00Z\n42\n", out)
	_, out, _ = invoke(t, "-url="+s.URL, "-format=csv", "42")
	require.Equal(t, "time,value\n2026-07-30T12:00:00Z,42\n", out)
	s.body = `{"status":"success","data":{"resultType":"string","result":[1785412800,"x"]}}`
	_, out, _ = invoke(t, "-url="+s.URL, `"x"`)
	require.Equal(t, "at 2026-07-30T12:00:00Z\nx\n", out)
}

func TestEmptyAnswers(t *testing.T) {
	for _, body := range []string{
		`{"status":"success","data":{"resultType":"vector","result":[]}}`,
		`{"status":"success","data":{"resultType":"matrix","result":[]}}`,
	} {
		s := newServer(t, body)
		code, out, _ := invoke(t, "-url="+s.URL, "up")
		require.Equal(t, cli.ExitDone, code)
		require.Equal(t, "no series\n", out)
		code, _, errs := invoke(t, "-url="+s.URL, "-fail-empty", "up")
		require.Equal(t, cli.ExitWrong, code)
		require.Contains(t, errs, "no series")
	}
	s := newServer(t, vector)
	code, _, _ := invoke(t, "-url="+s.URL, "-fail-empty", "up")
	require.Equal(t, cli.ExitDone, code)
}

func TestErrorsAreTheServers(t *testing.T) {
	s := newServer(t, `{"status":"error","errorType":"bad_data","error":"parse error","warnings":["w"]}`)
	s.status = 400
	code, out, errs := invoke(t, "-url="+s.URL, "up{")
	require.Equal(t, cli.ExitFailed, code)
	require.Empty(t, out)
	require.Equal(t, "warning: w\nquery: bad_data: parse error\n", errs)

	s.status, s.body = 503, "starting: the log is being replayed\n"
	code, _, errs = invoke(t, "-url="+s.URL, "up")
	require.Equal(t, cli.ExitFailed, code)
	require.Equal(t, "query: the server answered 503 Service Unavailable: starting: the log is being replayed\n", errs)

	s.status, s.body = 200, "<html>"
	_, _, errs = invoke(t, "-url="+s.URL, "up")
	require.Contains(t, errs, "is the -url right?")

	s.body = `{"status":"success","data":{"resultType":"tensor","result":[]}}`
	code, _, errs = invoke(t, "-url="+s.URL, "up")
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, errs, "tensor")

	s.Close()
	code, _, errs = invoke(t, "-url="+s.URL, "up")
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, errs, "connection refused")
}

func TestWrongUsage(t *testing.T) {
	for _, args := range [][]string{
		{},
		{"up", "down"},
		{"-format=xml", "up"},
		{"-time=never", "up"},
		{"-start=-1h", "-time=-2h", "up"},
		{"-start=never", "up"},
		{"-end=never", "up"},
		{"-step=0", "up"},
		{"-start=-1h", "-end=-2h", "up"},
		{"-url=localhost:9009", "up"},
		{"-url=http://localhost:9009", "-tenant=a\nb", "up"},
		{"-width=5", "up"},
		{"-height=1000000", "up"},
		{"-timeout=0s", "up"},
	} {
		code, _, errs := invoke(t, args...)
		require.Equal(t, cli.ExitUsage, code, "%q: %s", args, errs)
	}
}

func TestRangeDefaults(t *testing.T) {
	now := time.Unix(1785412800, 0).UTC()
	s := settings{at: "now", step: "1m", timeout: time.Second}
	_, form, _, err := s.request("up", now)
	require.NoError(t, err)
	require.Equal(t, "1785409200.000", form.Get("start"), "an hour before the end")
	require.Equal(t, "1785412800.000", form.Get("end"))
	s = settings{at: "now", end: "-1d", format: "plot", width: 100, timeout: time.Second}
	_, form, _, err = s.request("up", now)
	require.NoError(t, err)
	require.Equal(t, "36.000", form.Get("step"), "one point for each column")
}
