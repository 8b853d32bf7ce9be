package app

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	secretKey = "hunter2-key"
	token     = "hunter2-token"
)

// s3Args name a server that is not there.
func s3Args() []string {
	return []string{
		"-bucket.backend=s3", "-bucket.s3.endpoint=127.0.0.1:1", "-bucket.s3.insecure", "-bucket.s3.region=x",
		"-bucket.s3.bucket-name=metrics", "-bucket.s3.access-key-id=somebody",
	}
}

func TestASecretComesFromEachPlace(t *testing.T) {
	args := s3Args()
	file := writeFile(t, "bucket: {s3: {secret_access_key: "+secretKey+", session_token: "+token+"}}")
	for name, given := range map[string]struct{ args, env []string }{
		"flags": {args: []string{"-bucket.s3.secret-access-key=" + secretKey, "-bucket.s3.session-token", token}},
		"file":  {args: []string{"-config.file=" + file}},
		"environment": {env: []string{
			"DURAMEN_BUCKET_S3_SECRET_ACCESS_KEY=" + secretKey, "DURAMEN_BUCKET_S3_SESSION_TOKEN=" + token,
		}},
	} {
		cmd, err := Parse(append(given.args, args...), given.env)
		require.NoError(t, err, name)
		require.Equal(t, secretKey, string(cmd.Config.Bucket.S3.SecretAccessKey), name)
		require.Equal(t, token, string(cmd.Config.Bucket.S3.SessionToken), name)
	}
}

func TestSecretsAreNotShown(t *testing.T) {
	secrets := []string{"-bucket.s3.secret-access-key=" + secretKey, "-bucket.s3.session-token=" + token}
	args := append(s3Args(), secrets...)
	hidden := func(where, text string) {
		t.Helper()
		require.NotContains(t, text, "hunter2", where)
	}

	cmd, err := Parse(append(args, "-config.print"), nil)
	require.NoError(t, err)
	var printed strings.Builder
	require.NoError(t, Answer(cmd, &printed))
	require.Contains(t, printed.String(), "secret_access_key: <secret>")
	require.Contains(t, printed.String(), "session_token: <secret>")
	hidden("-config.print", printed.String())

	for _, wrong := range []string{"-bucket.s3.sse=x", "-bucket.s3.secret-access-kay=hunter2", "-log.level=x"} {
		_, err = Parse(append([]string{wrong}, args...), nil)
		require.Error(t, err)
		hidden("an error of "+wrong, err.Error())
	}

	n := startNode(t, testConfig(t.TempDir(), args...))
	for _, path := range []string{"/config", "/healthz", "/metrics", "/", "/debug/pprof/cmdline"} {
		hidden(path, n.do(http.MethodGet, path, nil).body)
	}
	require.Contains(t, n.do(http.MethodGet, "/config", nil).body, "secret_access_key: <secret>")
	n.stop()
	require.Contains(t, n.log.String(), "bucket does not work")
	hidden("the log", n.log.String())
}

func TestTheCommandLineIsShownWithoutSecrets(t *testing.T) {
	require.Equal(t, []string{
		"duramen", "-data-dir=x", "--bucket.s3.secret-access-key=<secret>", "-bucket.s3.session-token", "<secret>",
		"-log.level", "info",
	}, maskArgs([]string{
		"duramen", "-data-dir=x", "--bucket.s3.secret-access-key=a=b", "-bucket.s3.session-token", "-c",
		"-log.level", "info",
	}))
	require.Equal(t, []string{"-bucket.s3.session-token"}, maskArgs([]string{"-bucket.s3.session-token"}))
}
