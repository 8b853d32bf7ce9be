package load

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/internal/cli"
	"github.com/duramendb/duramen/internal/loadledger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// receiver takes all writes, but for what its answer decides about the n-th of them, from 1.
type receiver struct {
	*httptest.Server
	requests atomic.Int64
}

func newReceiver(t *testing.T, answer func(n int64) int) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		n := r.requests.Add(1)
		status := http.StatusNoContent
		if answer != nil {
			status = answer(n)
		}
		if req.URL.Path != "/api/v1/push" {
			status = http.StatusNotFound
		}
		w.Header().Set("X-Prometheus-Remote-Write-Samples-Written", "100")
		w.WriteHeader(status)
	}))
	t.Cleanup(r.Close)
	return r
}

// run runs the command with a small load.
func run(ctx context.Context, t *testing.T, url string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	args = append([]string{"-url=" + url}, args...)
	code = cli.Main(ctx, Command(), args, cli.Env{Stdout: &out, Stderr: &errs, Getenv: os.Getenv})
	return code, out.String(), errs.String()
}

func small(more ...string) []string {
	return append([]string{"-series=200", "-request=100", "-samples=2000"}, more...)
}

func TestLoad(t *testing.T) {
	r := newReceiver(t, nil)
	code, out, errs := run(t.Context(), t, r.URL, small("-pid="+strconv.Itoa(os.Getpid()), "-connections=2")...)
	require.Equal(t, cli.ExitDone, code, errs)
	require.EqualValues(t, 20, r.requests.Load())
	for _, want := range []string{
		"1 tenants × 200 series × 10 scrapes = 2.00k samples", "2000 acknowledged, 0 refused, 0 unknown", "204 × 20", "p99 ",
		"process    CPU ", "duramenctl verify -url=" + r.URL + " -seed=1 -series=200 -from=2",
	} {
		require.Contains(t, out, want)
	}
}

func TestRefusedSamplesAreWrong(t *testing.T) {
	r := newReceiver(t, func(n int64) int {
		if n == 4 {
			return http.StatusBadRequest
		}
		return http.StatusNoContent
	})
	code, out, errs := run(t.Context(), t, r.URL, small()...)
	require.Equal(t, cli.ExitWrong, code)
	require.Contains(t, errs, "100 samples were refused and 0 given up")
	require.Contains(t, out, "refusal    refused: answered 400")
}

func TestAttempts(t *testing.T) {
	r := newReceiver(t, func(int64) int { return http.StatusServiceUnavailable })
	code, _, errs := run(t.Context(), t, r.URL, small("-attempts=1")...)
	require.Equal(t, cli.ExitWrong, code)
	require.Contains(t, errs, "0 samples were refused and 2000 given up")
}

// TestNobodyAnswers: a server that is away is not one that loses samples.
func TestNobodyAnswers(t *testing.T) {
	r := newReceiver(t, nil)
	r.Close()
	code, out, errs := run(t.Context(), t, r.URL, small("-attempts=1")...)
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, errs, r.URL+" answered none of 20 requests")
	require.NotContains(t, out, "verify it with")

	var seen atomic.Bool
	r = newReceiver(t, func(int64) int {
		if seen.Swap(true) {
			panic(http.ErrAbortHandler)
		}
		return http.StatusNoContent
	})
	code, _, errs = run(t.Context(), t, r.URL, small("-attempts=1")...)
	require.Equal(t, cli.ExitWrong, code)
	require.Contains(t, errs, "1900 given up")
}

func TestTurnedAway(t *testing.T) {
	r := newReceiver(t, nil)
	code, out, errs := run(t.Context(), t, r.URL, small("-push-path=/elsewhere", "-connections=1")...)
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, errs, "answered 404")
	require.EqualValues(t, 1, r.requests.Load())
	require.NotContains(t, out, "verify it with")
}

func TestUsage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "exists")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"more"}, "no arguments"},
		{[]string{"-series=7"}, "7 series"},
		{[]string{"-connections=0"}, "0 connections"},
		{[]string{"-rate=NaN"}, "rate NaN"},
		{[]string{"-rate=Inf"}, "rate +Inf"},
		{[]string{"-rate=-1"}, "rate -1"},
		{[]string{"-tenant=a\nb"}, "-tenant: tenant ID"},
		{[]string{"-tenant=a b", "-tenants=2"}, "-tenant: tenant ID"},
		{[]string{"-resume"}, "needs -ledger"},
		{[]string{"-resume", "-ledger=" + file, "-seed=2"}, "-seed: with -resume"},
		{[]string{"-ledger=" + file}, "-resume, or name another file"},
		{[]string{"-pid=1073741824"}, "-pid"},
		{[]string{"-url=elsewhere"}, "-url"},
	} {
		r := newReceiver(t, nil)
		code, _, errs := run(t.Context(), t, r.URL, tc.args...)
		require.Equal(t, cli.ExitUsage, code, "%v: %s", tc.args, errs)
		require.Contains(t, errs, tc.want)
		require.Zero(t, r.requests.Load())
	}
	code, _, errs := run(t.Context(), t, "http://localhost:1", "-resume", "-ledger="+file)
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, errs, "not a ledger")
}

// TestResume: a load that is interrupted goes on where it was, and the ledger in the end knows everything.
func TestResume(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := newReceiver(t, func(n int64) int {
		if n >= 8 && ctx.Err() == nil {
			cancel()
			time.Sleep(50 * time.Millisecond)
		}
		return http.StatusNoContent
	})
	file := filepath.Join(t.TempDir(), "ledger")
	code, out, errs := run(ctx, t, r.URL, small("-ledger="+file, "-connections=2", "-spread=0s")...)
	require.Equal(t, cli.ExitFailed, code, out)
	require.Contains(t, errs, "-resume -ledger="+file)
	first := r.requests.Load()
	require.Less(t, first, int64(20))

	code, out, errs = run(t.Context(), t, r.URL, "-resume", "-ledger="+file)
	require.Equal(t, cli.ExitDone, code, errs)
	require.Contains(t, out, "duramenctl verify -url="+r.URL+" -ledger="+file)
	require.Less(t, r.requests.Load(), 20+first)
	ledger, err := loadledger.Read(file)
	require.NoError(t, err)
	require.True(t, ledger.Closed())
	for chunk := range 2 {
		for scrape := range 10 {
			require.Equal(t, loadledger.Acknowledged, ledger.Fate(0, chunk, scrape))
		}
	}
	code, out, _ = run(t.Context(), t, r.URL, "-resume", "-ledger="+file)
	require.Equal(t, cli.ExitDone, code)
	require.NotContains(t, out, "took", "nothing was left to send")
}

func TestTroubleIsToldNowAndThen(t *testing.T) {
	var errs bytes.Buffer
	tr := trouble{env: cli.Env{Stderr: &errs}}
	for range 5 {
		tr.say("away")
	}
	tr.last = tr.last.Add(-troubleEvery)
	tr.say("still away")
	require.Equal(t, "away\nstill away (and 4 others)\n", errs.String())
	require.Equal(t, 2, strings.Count(errs.String(), "\n"))
}
