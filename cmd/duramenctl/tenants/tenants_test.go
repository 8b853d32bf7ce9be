package tenants

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/cli"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func invoke(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = cli.Main(t.Context(), Command(), args, cli.Env{Stdout: &out, Stderr: &errs})
	return code, out.String(), errs.String()
}

// server answers one body. The stories in e2e/ctl ask real servers.
func server(t *testing.T, status int, body string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ingester/tenants" {
			status = http.StatusNotFound
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body)) // the client checks
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestTenantsOfAServer(t *testing.T) {
	const body = `{"tenants":[
 {"tenant":"a","state":"open","damaged":false,"series":12,"samples_per_second":0.25,"local_blocks":3,"unshipped_blocks":1},
 {"tenant":"b","state":"closed","damaged":false,"series":0,"samples_per_second":0,"local_blocks":0,"unshipped_blocks":0}]}`
	code, out, errs := invoke(t, "-url="+server(t, 200, body))
	require.Equal(t, cli.ExitDone, code, errs)
	require.Equal(t, ""+
		"TENANT  STATE   SERIES  SAMPLES/S  LAST WRITE  LAST FLUSH  OLDEST IN MEMORY  LOCAL BLOCKS  NOT IN BUCKET\n"+
		"a       open        12        0.2           –           –                 –             3              1\n"+
		"b       closed       0        0.0           –           –                 –             0              0\n", out)
	_, out, _ = invoke(t, "-url="+server(t, 200, body), "-format=json")
	require.Equal(t, body, out) //nolint:testifylint // the bytes are meant
	code, out, errs = invoke(t, "-url="+server(t, 200, `{"tenants":[{"tenant":"a","state":"open","damaged":true}]}`))
	require.Equal(t, cli.ExitWrong, code)
	require.Contains(t, out, "open, damaged")
	require.Contains(t, errs, "tenant a:")
	for _, url := range []string{server(t, 200, "<html>"), server(t, 200, "{}"), server(t, 503, "starting"), "http://127.0.0.1:1"} {
		code, _, _ = invoke(t, "-url="+url)
		require.Equal(t, cli.ExitFailed, code, url)
	}
	for _, args := range [][]string{{"x"}, {"-format=csv"}, {"-url=x"}, {"-bucket=a", "-config=b"}} {
		code, _, _ = invoke(t, args...)
		require.Equal(t, cli.ExitUsage, code, args)
	}
	now := time.Unix(1000, 0)
	require.Equal(t, "1m40s ago", ago(time.Unix(900, 0), now))
	require.Equal(t, "0s ago", ago(time.Unix(1001, 0), now), "a clock that is a little ahead")
}

func TestTenantsOfABucket(t *testing.T) {
	dir := t.TempDir()
	bkt, err := bucket.NewFilesystem(dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, bkt.Close()) }()
	owner := manifest.NewOwner(bkt, time.Now, slog.New(slog.DiscardHandler), nil)
	for i, end := range []int64{7_200_000, 14_400_000} {
		_, err = owner.Add(t.Context(), "a", manifest.Block{
			ULID: ulid.MustNew(uint64(i), ulid.DefaultEntropy()), MinTime: end - 7_200_000, MaxTime: end, Level: 1, Samples: 1500, SizeBytes: 1 << 20,
		})
		require.NoError(t, err)
	}
	code, out, errs := invoke(t, "-bucket="+dir)
	require.Equal(t, cli.ExitDone, code, errs)
	require.Equal(t, ""+
		"TENANT  BLOCKS  SAMPLES      SIZE  FROM              TO                MANIFEST\n"+
		"a            2    3.00k  2.00 MiB  1970-01-01 00:00  1970-01-01 04:00         2\n", out)

	require.NoError(t, bkt.PutIfAbsent(t.Context(), manifest.Key("b", 1), []byte("broken")))
	code, out, errs = invoke(t, "-bucket="+dir, "-format=json")
	require.Equal(t, cli.ExitWrong, code)
	require.Contains(t, errs, "tenant b")
	var answer struct{ Tenants []inBucket }
	require.NoError(t, json.Unmarshal([]byte(out), &answer))
	require.Len(t, answer.Tenants, 2)
	require.EqualValues(t, 3000, answer.Tenants[0].Samples)
	require.Contains(t, answer.Tenants[1].Error, "decode manifest")
	code, _, _ = invoke(t, "-bucket="+dir+"/missing")
	require.Equal(t, cli.ExitFailed, code)
}
