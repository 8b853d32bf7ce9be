package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/e2e/process"
)

// grafanaCall is one entry of testdata/grafana.txt.
type grafanaCall struct {
	line         int
	method, path string
	form         url.Values
	header       http.Header
	differs      []string // paths in the JSON
}

// TestGrafanasCallsAnswerAsPrometheus sends a dashboard's worth of calls to a Prometheus and to a node with equal samples,
// and /federate besides.
func TestGrafanasCallsAnswerAsPrometheus(t *testing.T) {
	n := startNode(t, t.TempDir())
	prom := startReceiver(t)
	end := client.Now() / 15_000 * 15_000
	for _, c := range []*client.Client{client.Duramen(n.URL, "grafana"), client.Prometheus(prom.URL)} {
		pushDashboard(t, c, end)
		c.CloseIdle()
	}
	web := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	defer web.CloseIdleConnections()
	t.Run("federate", func(t *testing.T) { // first: it looks at the last minutes
		federatesEqually(t, web, prom.URL, n.URL)
	})
	calls := readCalls(t, "testdata/grafana.txt", end/1000)
	require.Greater(t, len(calls), 70)
	for _, c := range calls {
		t.Run(fmt.Sprintf("line %d, %s %s", c.line, c.method, strings.TrimPrefix(c.path, "/api/v1/")), func(t *testing.T) {
			want, got := c.send(t, web, prom.URL), c.send(t, web, n.URL+"/prometheus")
			require.Equal(t, want.status, got.status, got.body)
			require.Equal(t, want.header, got.header)
			require.Equal(t, normalised(t, c, want.body), normalised(t, c, got.body))
		})
	}
}

// placeholder is {end}, {end-3600}, {end:rfc3339} or {end-3600:rfc3339}.
var placeholder = regexp.MustCompile(`\{end(-\d+)?(:rfc3339)?\}`)

func readCalls(t *testing.T, file string, end int64) (calls []grafanaCall) {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	open := false
	for i, line := range strings.Split(string(text), "\n") {
		line = placeholder.ReplaceAllStringFunc(line, func(p string) string {
			m := placeholder.FindStringSubmatch(p)
			ago, _ := strconv.ParseInt(m[1], 10, 64) // 0 when there is none
			if m[2] != "" {
				return time.Unix(end+ago, 0).UTC().Format(time.RFC3339)
			}
			return strconv.FormatInt(end+ago, 10)
		})
		switch name, value, _ := strings.Cut(line, "="); {
		case line == "":
			open = false
		case strings.HasPrefix(line, "#"):
		case !open:
			method, path, ok := strings.Cut(line, " ")
			require.True(t, ok, "line %d", i+1)
			calls = append(calls, grafanaCall{line: i + 1, method: method, path: path, form: url.Values{}, header: http.Header{}})
			open = true
		case strings.HasPrefix(line, "> "):
			k, v, _ := strings.Cut(line[2:], ": ")
			calls[len(calls)-1].header.Add(k, v)
		case strings.HasPrefix(line, "differs: "):
			path, reason, _ := strings.Cut(line[len("differs: "):], ": ")
			require.NotEmpty(t, reason, "line %d has no reason", i+1)
			calls[len(calls)-1].differs = append(calls[len(calls)-1].differs, path)
		default:
			calls[len(calls)-1].form.Add(name, value)
		}
	}
	return calls
}

type grafanaAnswer struct {
	status int
	header map[string]string
	body   string
}

// send asks like Grafana: parameters of POST as a form, compression allowed.
func (c grafanaCall) send(t *testing.T, web *http.Client, base string) grafanaAnswer {
	t.Helper()
	target, body := base+c.path, ""
	if c.method == http.MethodPost {
		body = c.form.Encode()
	} else if len(c.form) > 0 {
		target += "?" + c.form.Encode()
	}
	req, err := http.NewRequestWithContext(t.Context(), c.method, target, strings.NewReader(body))
	require.NoError(t, err)
	req.Header = c.header.Clone()
	req.Header.Set("Accept-Encoding", "gzip")
	req.Header.Set("X-Scope-OrgID", "grafana")
	if c.method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := web.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	a := grafanaAnswer{status: resp.StatusCode, header: map[string]string{}}
	for _, name := range []string{
		"Content-Type", "Content-Encoding", "Vary", "Allow", "Access-Control-Allow-Origin", "Access-Control-Allow-Methods",
		"Access-Control-Allow-Headers", "Access-Control-Expose-Headers",
	} {
		a.header[name] = strings.Join(resp.Header.Values(name), "; ")
	}
	methods := strings.Split(a.header["Allow"], ", ") // in any order
	slices.Sort(methods)
	a.header["Allow"] = strings.Join(methods, ", ")
	raw, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	if resp.Header.Get("Content-Encoding") == "gzip" && len(raw) > 0 {
		zr, err := gzip.NewReader(bytes.NewReader(raw))
		require.NoError(t, err)
		raw, err = io.ReadAll(zr)
		require.NoError(t, err)
	}
	a.body = string(raw)
	return a
}

// normalised is a body without what may differ.
func normalised(t *testing.T, c grafanaCall, body string) string {
	t.Helper()
	var v map[string]any
	if json.Unmarshal([]byte(body), &v) != nil {
		if slices.Contains(c.differs, "text") {
			return "differs"
		}
		return body
	}
	for _, path := range c.differs {
		require.Contains(t, v, path, "what may differ is not there: %s", body)
		v[path] = "differs"
	}
	text := func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) }
	if data, ok := v["data"].(map[string]any); ok {
		if list, ok := data["result"].([]any); ok && data["resultType"] == "vector" &&
			!strings.HasPrefix(c.form.Get("query"), "sort") {
			slices.SortFunc(list, text)
		}
		if stats, ok := data["stats"].(map[string]any); ok {
			for k := range stats["timings"].(map[string]any) {
				stats["timings"].(map[string]any)[k] = 0
			}
		}
	}
	for _, k := range []string{"warnings", "infos"} {
		if list, ok := v[k].([]any); ok {
			slices.SortFunc(list, text)
		}
	}
	out, err := json.MarshalIndent(v, "", " ")
	require.NoError(t, err)
	return string(out)
}

// federatesEqually compares what a Prometheus that scrapes /federate gets, in text and in protobuf.
func federatesEqually(t *testing.T, web *http.Client, promURL, duramenURL string) {
	t.Helper()
	const proto = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
	for _, accept := range []string{"", "text/plain;version=0.0.4", proto, "application/openmetrics-text;version=1.0.0", "*/*"} {
		for _, match := range []url.Values{
			nil,
			{"match[]": {`{__name__=~".+"}`}},
			{"match[]": {"up", `{job="api"}`}},
			{"match[]": {"up{"}},
			{"match[]": {"{}"}},
			{"match[]": {"native_seconds"}},
			{"match[]": {"nothing"}},
		} {
			c := grafanaCall{method: http.MethodGet, path: "/federate", form: match, header: http.Header{"Accept": {accept}}}
			want := c.send(t, web, promURL)
			for _, base := range []string{duramenURL, duramenURL + "/prometheus"} {
				got := c.send(t, web, base)
				require.Equal(t, want.status, got.status, "%s %v: %s", accept, match, got.body)
				require.Equal(t, want.header, got.header, "%s %v", accept, match)
				require.Equal(t, exposition(t, want), exposition(t, got), "%s %v", accept, match)
			}
		}
	}
}

// exposition returns the metrics of an answer, sorted: within a name Prometheus promises no order.
func exposition(t *testing.T, a grafanaAnswer) (out []string) {
	t.Helper()
	if a.status != http.StatusOK {
		return []string{a.body}
	}
	if strings.HasPrefix(a.header["Content-Type"], "text/plain") {
		out = strings.Split(a.body, "\n")
		slices.Sort(out)
		return out
	}
	dec := expfmt.NewDecoder(strings.NewReader(a.body), expfmt.Format(a.header["Content-Type"]))
	for {
		var family dto.MetricFamily
		err := dec.Decode(&family)
		if err == io.EOF { //nolint:errorlint // the decoder returns it as it is
			slices.Sort(out)
			return out
		}
		require.NoError(t, err)
		for _, m := range family.GetMetric() {
			out = append(out, strings.Join(strings.Fields(family.GetName()+" "+family.GetType().String()+" "+m.String()), " "))
		}
	}
}

// pushDashboard writes two hours of what a dashboard looks at.
func pushDashboard(t *testing.T, c *client.Client, end int64) {
	t.Helper()
	lset := func(name string, kv ...string) []prompb.Label {
		list := []prompb.Label{{Name: "__name__", Value: name}}
		for i := 0; i < len(kv); i += 2 {
			list = append(list, prompb.Label{Name: kv[i], Value: kv[i+1]})
		}
		return list
	}
	for begin := end - 2*3600_000; begin <= end; begin += 600_000 {
		var req prompb.WriteRequest
		float := func(labels []prompb.Label, f func(n int64) float64) {
			ts := prompb.TimeSeries{Labels: labels}
			for at := begin; at < min(begin+600_000, end+1); at += 15_000 {
				ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: at, Value: f((at - end) / 15_000)})
			}
			req.Timeseries = append(req.Timeseries, ts)
		}
		for i := range int64(3) {
			inst, job := fmt.Sprintf("i%d", i), []string{"api", "db"}[i%2]
			float(lset("memory_bytes", "instance", inst, "job", job), func(n int64) float64 { return 1e6 + float64((n*n+i)%997)*1.5 })
			for _, code := range []string{"200", "500"} {
				float(lset("requests_total", "code", code, "instance", inst, "job", job),
					func(n int64) float64 { return float64((n+1000)*(i+1)) / 3 })
			}
			for _, le := range []string{"+Inf", "0.1", "1"} {
				float(lset("latency_seconds_bucket", "instance", inst, "le", le),
					func(n int64) float64 { return float64(n+1000) * map[string]float64{"0.1": 1, "1": 2, "+Inf": 3}[le] })
			}
			float(lset("restarts_total", "instance", inst), func(n int64) float64 { return float64((n + 1000) / 100) })
			float(lset("up", "instance", inst, "job", job), func(n int64) float64 { return float64((n + 1000 + i) % 5 % 2) })
		}
		native := prompb.TimeSeries{Labels: lset("native_seconds", "job", "api")}
		custom := prompb.TimeSeries{Labels: lset("custom_seconds", "job", "api")}
		for at := begin; at < min(begin+600_000, end+1); at += 15_000 {
			n := (at-end)/15_000 + 1000
			native.Histograms = append(native.Histograms, prompb.FromIntHistogram(at, tsdbutil.GenerateTestHistogram(n)))
			custom.Histograms = append(custom.Histograms,
				prompb.FromIntHistogram(at, tsdbutil.GenerateTestCustomBucketsHistogram(n)))
		}
		req.Timeseries = append(req.Timeseries, native, custom)
		raw, err := req.Marshal()
		require.NoError(t, err)
		a, err := c.Push(t.Context(), client.V1, raw)
		require.NoError(t, err)
		require.True(t, a.OK(), "%+v", a)
	}
}

// startReceiver starts a Prometheus that scrapes nothing and takes remote write.
func startReceiver(t *testing.T) *process.Process {
	t.Helper()
	spec, err := process.Prometheus(tool(t, "prometheus"), t.TempDir(), "global: {}\n", "--web.enable-remote-write-receiver",
		"--enable-feature=exemplar-storage")
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	p, _, err := process.StartReady(ctx, spec)
	require.NoError(t, err)
	t.Cleanup(p.Kill)
	return p
}
