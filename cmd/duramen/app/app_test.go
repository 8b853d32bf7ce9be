package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/tenant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a running App on a port of its own.
type node struct {
	*App
	t      *testing.T
	url    string
	log    *logBuffer
	cancel context.CancelFunc
	ended  chan error
	client *http.Client
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func testConfig(dir string, args ...string) Config {
	common := []string{"-data-dir=" + dir, "-server.http-listen-address=127.0.0.1:0", "-log.level=debug"}
	if strings.Contains(strings.Join(args, " "), "-target=") || strings.Contains(strings.Join(args, " "), "-memberlist.join=") {
		common = append(common, "-bucket.filesystem.directory="+filepath.Join(dir, "bucket")) // a cluster has one in common
	}
	args = append(common, args...)
	cmd, err := Parse(args, nil)
	if err != nil {
		panic(err)
	}
	return cmd.Config
}

func startNode(t *testing.T, cfg Config) *node {
	t.Helper()
	log := &logBuffer{}
	a, err := New(cfg, log)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	n := &node{
		App: a, t: t, log: log, cancel: cancel, ended: make(chan error, 1),
		client: &http.Client{Transport: &http.Transport{}},
	}
	go func() { n.ended <- a.Run(ctx) }()
	t.Cleanup(func() {
		n.stop()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	require.Eventually(t, func() bool { return a.http.address() != "" }, 10*time.Second, time.Millisecond)
	n.url = "http://" + a.http.address()
	require.Eventually(t, func() bool { return n.do(http.MethodGet, "/ready", nil).status == http.StatusOK },
		10*time.Second, time.Millisecond)
	return n
}

// stop ends the node as SIGTERM does. It may be called again.
func (n *node) stop() {
	n.client.CloseIdleConnections()
	n.cancel()
	if err, ok := <-n.ended; ok {
		require.NoError(n.t, err)
		close(n.ended)
	}
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (n *node) do(method, path string, body io.Reader, header ...string) answer {
	n.t.Helper()
	req, err := http.NewRequestWithContext(n.t.Context(), method, n.url+path, body)
	require.NoError(n.t, err)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := n.client.Do(req)
	require.NoError(n.t, err)
	data, err := io.ReadAll(res.Body)
	require.NoError(n.t, err)
	require.NoError(n.t, res.Body.Close())
	return answer{res.StatusCode, res.Header, string(data)}
}

func (n *node) push(path, tenantID, name string, value float64, at time.Time) answer {
	n.t.Helper()
	w := prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
		Labels:  []prompb.Label{{Name: "__name__", Value: name}, {Name: "job", Value: "test"}},
		Samples: []prompb.Sample{{Timestamp: at.UnixMilli(), Value: value}},
	}}}
	body, err := w.Marshal()
	require.NoError(n.t, err)
	header := []string{
		"Content-Type", "application/x-protobuf", "Content-Encoding", "snappy",
		"X-Prometheus-Remote-Write-Version", "0.1.0",
	}
	if tenantID != "" {
		header = append(header, tenant.HeaderName, tenantID)
	}
	return n.do(http.MethodPost, path, bytes.NewReader(snappy.Encode(nil, body)), header...)
}

// query returns the value of an instant query with one series, "" when there is none.
func (n *node) query(tenantID, expr string, at time.Time) string {
	n.t.Helper()
	header := []string{}
	if tenantID != "" {
		header = append(header, tenant.HeaderName, tenantID)
	}
	v := url.Values{"query": {expr}, "time": {fmt.Sprintf("%.3f", float64(at.UnixMilli())/1000)}}
	res := n.do(http.MethodGet, "/prometheus/api/v1/query?"+v.Encode(), nil, header...)
	require.Equal(n.t, http.StatusOK, res.status, res.body)
	var data struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	require.NoError(n.t, json.Unmarshal([]byte(res.body), &data))
	if len(data.Data.Result) == 0 {
		return ""
	}
	require.Len(n.t, data.Data.Result, 1)
	return data.Data.Result[0].Value[1].(string)
}

func TestWhatIsWrittenIsReadAfterAFlushAndARestart(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	n := startNode(t, testConfig(dir))
	for i, path := range []string{"/api/v1/push", "/api/v1/write", "/api/prom/push"} {
		res := n.push(path, "", fmt.Sprintf("m%d", i), float64(i+1), now)
		require.Less(t, res.status, 300, res.body)
		require.Equal(t, fmt.Sprint(i+1), n.query("", fmt.Sprintf("m%d", i), now))
	}
	n.push("/api/v1/push", "team-a", "m0", 42, now)
	require.Equal(t, "42", n.query("team-a", "m0", now))
	require.Equal(t, "1", n.query(tenant.Anonymous, "m0", now), "tenants are apart, and no header is anonymous")

	res := n.do(http.MethodPost, "/ingester/flush?tenant=anonymous&wait=true", nil)
	require.Equal(t, http.StatusOK, res.status, res.body)
	require.Equal(t, "1", n.query("", "m0", now))
	blocks, err := filepath.Glob(filepath.Join(dir, "bucket", tenant.Anonymous, "*", "meta.json"))
	require.NoError(t, err)
	require.NotEmpty(t, blocks, "no block in the bucket")

	n.push("/api/v1/push", "", "m0", 5, now.Add(time.Second))
	index := n.do(http.MethodGet, "/", nil)
	require.Contains(t, index.body, "<td>team-a</td>")
	require.Contains(t, index.body, `class="ok">ready`)
	n.stop()

	n = startNode(t, testConfig(dir))
	require.Equal(t, "5", n.query("", "m0", now.Add(time.Second)))
	require.Equal(t, "1", n.query("", "m0", now))
	require.Equal(t, "42", n.query("team-a", "m0", now))
}

func TestTheDataDirectoryIsForOneProcess(t *testing.T) {
	dir := t.TempDir()
	n := startNode(t, testConfig(dir))
	_, err := New(testConfig(dir), io.Discard)
	require.ErrorContains(t, err, fmt.Sprintf("in use by another process (pid %d", os.Getpid()))
	first := n.dataDir.instance
	n.stop()
	n = startNode(t, testConfig(dir))
	require.Equal(t, first, n.dataDir.instance, "the disk keeps its identity")
	n.stop()

	require.NoError(t, os.WriteFile(filepath.Join(dir, instanceName), []byte("{}"), 0o600))
	_, err = New(testConfig(dir), io.Discard)
	require.ErrorContains(t, err, "storage_id is missing")
	require.NoError(t, os.Remove(filepath.Join(dir, instanceName)))
	n = startNode(t, testConfig(dir))
	require.NotEqual(t, first, n.dataDir.instance, "the failed start released the lock")
}

func TestStartFails(t *testing.T) {
	n := startNode(t, testConfig(t.TempDir()))
	cfg := testConfig(t.TempDir())
	cfg.Server.HTTPListenAddress = n.http.address()
	second, err := New(cfg, io.Discard)
	require.NoError(t, err)
	err = second.Run(t.Context())
	require.ErrorContains(t, err, "server.http_listen_address")
	require.Equal(t, 1, strings.Count(err.Error(), "server.http_listen_address"), err)

	cfg = testConfig(t.TempDir(), "-limits.overrides-file=/nowhere")
	third, err := New(cfg, io.Discard)
	require.NoError(t, err)
	require.ErrorContains(t, third.Run(t.Context()), "overrides_file /nowhere")

	cfg.DataDir = filepath.Join(writeFile(t, ""), "below-a-file")
	_, err = New(cfg, io.Discard)
	require.ErrorContains(t, err, "data directory")
}

func TestStoppedDuringTheStart(t *testing.T) {
	a, err := New(testConfig(t.TempDir()), io.Discard)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, a.Run(ctx))

	// A member that waits for the others to claim its number ends the wait, and says so as no error.
	var log bytes.Buffer
	a, err = New(testConfig(t.TempDir(), "-target=ingester", "-memberlist.join=127.0.0.1:1", "-memberlist.bind-address=127.0.0.1:0",
		"-server.grpc-listen-address=127.0.0.1:0", "-ring.instance-id=without-a-number-x"), &log)
	require.NoError(t, err)
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	require.Eventually(t, func() bool { return a.http.address() != "" && a.ring.NotActive() != "" }, time.Minute, time.Millisecond)
	cancel()
	require.NoError(t, <-ended)
	require.NotContains(t, log.String(), "level=error")
	require.NotContains(t, log.String(), "claim")
}

func TestTheWiringTableIsInOrder(t *testing.T) {
	for _, args := range [][]string{
		nil,
		{"-target=store-gateway"},
		{"-target=all,store-gateway"},
		{"-querier.store-gateway-addresses=a:1"},
		{"-memberlist.join=a:1"},
		{"-memberlist.join=a:1", "-querier.store-gateway-addresses=a:1"},
		{"-target=distributor"},
		{"-target=ingester"},
		{"-target=querier"},
		{"-target=compactor"},
		{"-target=write"},
		{"-target=read"},
		{"-target=backend"},
		{"-target=store-gateway", "-memberlist.join=a:1"},
	} {
		seen := map[string]bool{}
		for _, p := range wiring(testConfig(t.TempDir(), args...)) {
			require.False(t, seen[p.name], "%s is there twice", p.name)
			for _, need := range p.needs {
				require.True(t, seen[need], "%s needs %s, which comes later or never", p.name, need)
			}
			seen[p.name] = true
		}
		cfg := testConfig(t.TempDir(), args...)
		for _, role := range cfg.roles() {
			for _, name := range roleParts(role) {
				require.True(t, seen[name], "%s needs %s, which is not in the table", role, name)
			}
		}
	}
}

func TestAPartThatEndsStopsTheProcess(t *testing.T) {
	n := startNode(t, testConfig(t.TempDir()))
	require.NoError(t, n.http.server.Close(), "as if the listener broke")
	for _, r := range n.running {
		if r.name == "limits" {
			require.NoError(t, r.service.Stop())
		}
	}
	require.ErrorContains(t, <-n.ended, "limits ended by itself")
	close(n.ended)
	require.Contains(t, n.log.String(), "part ended by itself")
}

func TestRequestsThatRunAreAnsweredBeforeTheStop(t *testing.T) {
	n := startNode(t, testConfig(t.TempDir()))
	body, send := io.Pipe()
	got := make(chan answer, 1)
	go func() {
		got <- n.do(http.MethodPost, "/log-level", body, "Content-Type", "application/x-www-form-urlencoded")
	}()
	_, err := io.WriteString(send, "level=")
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		return strings.Contains(n.do(http.MethodGet, "/metrics", nil).body, "duramen_http_requests_in_flight 2")
	}, 10*time.Second, 10*time.Millisecond)
	n.cancel()
	require.Eventually(t, n.draining.Load, 10*time.Second, time.Millisecond)
	_, err = io.WriteString(send, "info")
	require.NoError(t, err)
	require.NoError(t, send.Close())
	res := <-got
	require.Equal(t, http.StatusOK, res.status)
	require.Equal(t, "info\n", res.body)
	n.stop()
	require.Contains(t, n.log.String(), "msg=stopped")
}
