package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// TestMain lets the test binary be the command: a test starts itself with this variable set.
func TestMain(m *testing.M) {
	if os.Getenv("BE_DURAMEN") != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

func command(t *testing.T, args ...string) (*exec.Cmd, string) {
	t.Helper()
	stderr, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, stderr.Close()) })
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = []string{"BE_DURAMEN=1"}
	cmd.Stderr = stderr
	return cmd, stderr.Name()
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	return string(data)
}

var listening = regexp.MustCompile(`msg=listening .*address=(\S+)`)

// ready waits until the process answers /ready and returns its URL.
func ready(t *testing.T, log string) string {
	t.Helper()
	var url string
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}
	require.Eventually(t, func() bool {
		match := listening.FindStringSubmatch(read(t, log))
		if match == nil {
			return false
		}
		url = "http://" + match[1]
		req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodGet, url+"/ready", nil)
		require.NoError(t, err)
		res, err := client.Do(req)
		if err != nil {
			return false
		}
		require.NoError(t, res.Body.Close())
		return res.StatusCode == http.StatusOK
	}, 20*time.Second, 5*time.Millisecond, "the process does not become ready")
	return url
}

func TestSignalsEndTheProcessInOrder(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		cmd, log := command(t, "-data-dir="+t.TempDir(), "-server.http-listen-address=127.0.0.1:0")
		require.NoError(t, cmd.Start())
		ready(t, log)
		require.NoError(t, cmd.Process.Signal(sig))
		require.NoError(t, cmd.Wait(), read(t, log))
		require.Contains(t, read(t, log), "msg=stopped")
	}
}

// TestKilledAndRestartedItKeepsWhatItAcknowledged is the promise in small; package e2e has it with a real Prometheus.
func TestKilledAndRestartedItKeepsWhatItAcknowledged(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	const rounds, series = 3, 500
	for round := range rounds {
		cmd, log := command(t, "-data-dir="+dir, "-server.http-listen-address=127.0.0.1:0")
		require.NoError(t, cmd.Start())
		url := ready(t, log) // the lock of the killed process is gone
		require.Equal(t, fmt.Sprint(round*series), total(t, url, now))
		push(t, url, round*series, series, now)
		require.NoError(t, cmd.Process.Kill())
		require.Error(t, cmd.Wait())
	}
	cmd, log := command(t, "-data-dir="+dir, "-server.http-listen-address=127.0.0.1:0")
	require.NoError(t, cmd.Start())
	require.Equal(t, fmt.Sprint(rounds*series), total(t, ready(t, log), now))
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait(), read(t, log))
}

// push writes one sample of value 1 for each of n series and expects them to be acknowledged.
func push(t *testing.T, url string, first, n int, at time.Time) {
	t.Helper()
	var w prompb.WriteRequest
	for i := range n {
		w.Timeseries = append(w.Timeseries, prompb.TimeSeries{
			Labels:  []prompb.Label{{Name: "__name__", Value: "m"}, {Name: "i", Value: fmt.Sprint(first + i)}},
			Samples: []prompb.Sample{{Timestamp: at.UnixMilli(), Value: 1}},
		})
	}
	body, err := w.Marshal()
	require.NoError(t, err)
	res := do(t, http.MethodPost, url+"/api/v1/push", bytes.NewReader(snappy.Encode(nil, body)))
	require.Equal(t, http.StatusOK, res.status, res.body)
}

// total returns the sum over all series, "0" without any.
func total(t *testing.T, url string, at time.Time) string {
	t.Helper()
	path := fmt.Sprintf("/prometheus/api/v1/query?query=sum(m)+or+vector(0)&time=%d", at.Unix()+1)
	res := do(t, http.MethodGet, url+path, nil)
	require.Equal(t, http.StatusOK, res.status, res.body)
	match := regexp.MustCompile(`"value":\[[0-9.]+,"([0-9]+)"\]`).FindStringSubmatch(res.body)
	require.NotNil(t, match, res.body)
	return match[1]
}

type answer struct {
	status int
	body   string
}

func do(t *testing.T, method, url string, body io.Reader) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	require.NoError(t, err)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	require.NoError(t, err)
	data, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	return answer{res.StatusCode, string(data)}
}

func TestExitCodes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a-file")
	require.NoError(t, os.WriteFile(file, []byte("overrides: {a: {max_series: -1}}"), 0o600))
	for _, tc := range []struct {
		name           string
		args           []string
		code           int
		stdout, stderr string
	}{
		{"wrong setting", []string{"-log.level=loud"}, exitUsage, "", `log.level is "loud"; use debug`},
		{"argument", []string{"serve"}, exitUsage, "", "unexpected argument"},
		{"help", []string{"-h"}, 0, "-data-dir  (text, default ./data)", ""},
		{"version", []string{"-version"}, 0, "duramen ", ""},
		{"check", []string{"-config.check"}, 0, "the settings are right", ""},
		{"check finds a fault", []string{"-config.check", "-target=x"}, exitUsage, "", `target is "x"`},
		{
			"check reads the overrides",
			[]string{"-config.check", "-limits.overrides-file=" + file},
			exitUsage, "", "overrides.a: max_series is -1",
		},
		{"print", []string{"-config.print", "-log.level=warn"}, 0, "  level: warn\n", ""},
		{"cannot start", []string{"-data-dir=" + file + "/x"}, exitFailed, "", "data directory"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cmd, log := command(t, tc.args...)
			var stdout bytes.Buffer
			cmd.Stdout = &stdout
			err := cmd.Run()
			require.Equal(t, tc.code, cmd.ProcessState.ExitCode(), "%v", err)
			require.Contains(t, stdout.String(), tc.stdout)
			require.Contains(t, read(t, log), tc.stderr)
			if tc.code == 0 {
				require.Empty(t, strings.TrimSpace(read(t, log)))
			}
		})
	}
}
