package verify

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/internal/cli"
	"github.com/duramendb/duramen/internal/loadledger"
	"github.com/duramendb/duramen/internal/loadplan"
	"github.com/duramendb/duramen/internal/loadverify"
	"github.com/duramendb/duramen/internal/remotewrite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// empty is a server that has nothing, with the paths of a Duramen.
func empty(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path, ok := strings.CutPrefix(r.URL.Path, "/prometheus/api/v1"); {
		case !ok:
			w.WriteHeader(http.StatusNotFound)
		case path == "/query":
			_, _ = io.WriteString(w, `{"status":"success","data":{"resultType":"matrix","result":[]}}`)
		case path == "/read":
			w.Header().Set("Content-Type", "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse")
		default:
			_, _ = io.WriteString(w, `{"status":"success","data":[]}`)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = cli.Main(t.Context(), Command(), args, cli.Env{Stdout: &out, Stderr: &errs, Getenv: os.Getenv})
	return code, out.String(), errs.String()
}

// newLedger writes the ledger of a run of which one request of 50 samples has each fate.
func newLedger(t *testing.T, closed bool, fates ...loadledger.Fate) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ledger")
	j, err := loadledger.Create(file, loadplan.Config{
		Seed: 7, Tenants: []string{"a"}, Series: 50, Start: 1_790_000_000_000, Interval: 15 * time.Second, Scrapes: 10,
		PerRequest: 50, Protocols: []remotewrite.Version{remotewrite.V1},
	})
	require.NoError(t, err)
	require.NoError(t, j.Claim(0))
	for scrape, fate := range fates {
		require.NoError(t, j.Note(0, 0, scrape, fate))
	}
	if closed {
		require.NoError(t, j.Close())
	}
	t.Cleanup(func() { _ = j.Close() })
	return file
}

func TestMissingSamplesAreWrong(t *testing.T) {
	url := empty(t)
	file := newLedger(t, true, loadledger.Acknowledged, loadledger.Refused, loadledger.Unknown, loadledger.Acknowledged)
	code, out, errs := run(t, "-url="+url, "-ledger="+file, "-show=2")
	require.Equal(t, cli.ExitWrong, code, out)
	require.Contains(t, errs, "does not have what it must have")
	require.Regexp(t, `query +acknowledged +100 +0 +(99|100) +0 +0`, out)
	require.Regexp(t, `remote-read +acknowledged +100 +0 +100 +0 +0`, out)
	require.Regexp(t, `refused or unknown +100 +0 +0 +0`, out)
	require.Equal(t, 2, strings.Count(out, "missing, acknowledged, by "), out)
	require.Contains(t, out, `load_run="7-`)
	require.Contains(t, out, "found    nothing")
}

// TestVerdict: the last line says what the table shows.
func TestVerdict(t *testing.T) {
	const lacks, has = "does not have what it must have", "has what it must not have"
	for _, tc := range []struct {
		found map[loadverify.Kind]int64
		want  string
	}{
		{map[loadverify.Kind]int64{loadverify.Missing: 2}, "the server " + lacks},
		{map[loadverify.Kind]int64{loadverify.Invented: 2, loadverify.Doubled: 1}, "the server " + has},
		{map[loadverify.Kind]int64{loadverify.Missing: 2, loadverify.Invented: 2}, "the server " + lacks + ", and " + has},
	} {
		r := &loadverify.Report{Ways: map[string]*loadverify.Tally{loadverify.Query: {Differences: tc.found}, loadverify.RemoteRead: {}}}
		require.EqualError(t, verdict(r), tc.want)
	}
}

func TestNothingHasToBeThere(t *testing.T) {
	url := empty(t)
	code, out, errs := run(t, "-url="+url, "-ledger="+newLedger(t, true, loadledger.Refused), "-via=query")
	require.Equal(t, cli.ExitDone, code, errs)
	require.Contains(t, out, "all is there")
	require.NotContains(t, out, "remote-read")

	code, _, errs = run(t, "-url="+url, "-ledger="+newLedger(t, false))
	require.Equal(t, cli.ExitDone, code)
	require.Contains(t, errs, "not closed")
}

// TestWithoutLedger: all of the run counts as acknowledged.
func TestWithoutLedger(t *testing.T) {
	code, out, _ := run(t, "-url="+empty(t), "-series=100", "-samples=1000", "-via=remote-read", "-show=0")
	require.Equal(t, cli.ExitWrong, code)
	require.Regexp(t, `remote-read +acknowledged +1000 +0 +1000 `, out)
	require.NotContains(t, out, "expected")
}

func TestCannotBeVerified(t *testing.T) {
	file := newLedger(t, true, loadledger.Acknowledged)
	code, out, errs := run(t, "-url="+empty(t), "-prefix=/elsewhere", "-ledger="+file)
	require.Equal(t, cli.ExitFailed, code, out)
	require.Contains(t, errs, "not everything could be verified")
	require.Contains(t, errs, "answered 404")
	code, _, errs = run(t, "-ledger="+file+"x")
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, errs, "read ledger")
}

func TestUsage(t *testing.T) {
	file := newLedger(t, true)
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"more"}, "which bucket?"},
		{[]string{"-via=hearsay"}, "hearsay"},
		{[]string{"-connections=0"}, "0 connections"},
		{[]string{"-ledger=" + file, "-seed=7", "-from=now"}, "-from, -seed: with -ledger"},
		{[]string{"-series=7"}, "7 series"},
		{[]string{"-url=x"}, "-url"},
		{[]string{"-tenant=a\nb"}, "-tenant: tenant ID"},
	} {
		code, _, errs := run(t, tc.args...)
		require.Equal(t, cli.ExitUsage, code, "%v: %s", tc.args, errs)
		require.Contains(t, errs, tc.want)
	}
}

// TestVerifyTellsTheTwoApart: a tenant means its blocks in a bucket, none a run of load.
func TestVerifyTellsTheTwoApart(t *testing.T) {
	dir := t.TempDir()
	code, _, errs := run(t, "-bucket="+dir, "team-a")
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, errs, "tenant team-a has nothing in filesystem "+dir)
	for want, args := range map[string][]string{
		"which bucket?":        {"team-a"},
		"which tenant's":       {"-bucket=" + dir},
		"give one tenant":      {"-bucket=" + dir, "a", "b"},
		"two things to verify": {"-bucket=" + dir, "-ledger=x", "a"},
		"neither table":        {"-bucket=" + dir, "-format=x", "a"},
		"tenant":               {"-bucket=" + dir, "../a"},
	} {
		code, _, errs := run(t, args...)
		require.Equal(t, cli.ExitUsage, code, errs)
		require.Contains(t, errs, want)
	}
}
