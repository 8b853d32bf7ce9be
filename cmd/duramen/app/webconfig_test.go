package app

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/certtest"
)

// hashOfSecret is bcrypt's of "secret", at the least cost.
const hashOfSecret = "$2a$04$yRCt2SGk.bXJ3lBwV/kAD.vhvaDOFP0qphLVEw.DfJ9wHELZwpwa."

// TestAWebConfigFileGuardsEveryPath, as that of a Prometheus does: TLS, a password and headers, the probes included.
func TestAWebConfigFileGuardsEveryPath(t *testing.T) {
	authority := certtest.New(t)
	cert, key := authority.Issue(t, "server")
	file := writeFile(t, "tls_server_config: {cert_file: "+cert+", key_file: "+key+"}\nbasic_auth_users: {prom: "+hashOfSecret+"}\n"+
		"http_server_config: {headers: {X-Frame-Options: deny}}\n")
	a := runGuarded(t, testConfig(t.TempDir(), "-server.web-config-file="+file))

	get := func(path, user, password string) (int, http.Header) {
		transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: authority.ClientConfig(t)}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+a.http.address()+path, nil)
		require.NoError(t, err)
		if user != "" {
			req.SetBasicAuth(user, password)
		}
		res, err := (&http.Client{Transport: transport}).Do(req)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, res.Body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		return res.StatusCode, res.Header
	}
	require.Eventually(t, func() bool {
		status, header := get("/ready", "prom", "secret")
		return status == http.StatusOK && header.Get("X-Frame-Options") == "deny"
	}, 30*time.Second, 10*time.Millisecond)
	for _, path := range []string{"/", "/ready", "/healthz", "/metrics", "/prometheus/api/v1/query?query=1", "/nowhere"} {
		for _, user := range []string{"", "prom", "nobody"} {
			status, _ := get(path, user, "wrong")
			require.Equal(t, http.StatusUnauthorized, status, "%s as %q", path, user)
		}
	}
	status, _ := get("/prometheus/api/v1/query?query=1", "prom", "secret")
	require.Equal(t, http.StatusOK, status)

	require.NoError(t, os.WriteFile(file, []byte("tls_server_config: {cert_file: "+cert+", key_file: "+key+"}\nbasic_auth_users: {other: "+
		hashOfSecret+"}\n"), 0o600))
	status, _ = get("/ready", "prom", "secret")
	require.Equal(t, http.StatusUnauthorized, status, "the file is read anew")
	status, _ = get("/ready", "other", "secret")
	require.Equal(t, http.StatusOK, status)
	plain, err := tls.Dial("tcp", a.http.address(), &tls.Config{MinVersion: tls.VersionTLS12})
	if err == nil {
		_ = plain.Close()
	}
	require.Error(t, err, "the certificate is of the test's own authority")
}

// runGuarded runs a process that does not answer everybody, until the test ends. It listens.
func runGuarded(t *testing.T, cfg Config) *App {
	t.Helper()
	a, err := New(cfg, &logBuffer{})
	require.NoError(t, err)
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	go func() { ended <- a.Run(ctx) }()
	require.Eventually(t, func() bool { return a.http.address() != "" }, 30*time.Second, time.Millisecond)
	return a
}

func TestAWebConfigFileThatCannotBe(t *testing.T) {
	authority := certtest.New(t)
	cert, key := authority.Issue(t, "one")
	_, otherKey := authority.Issue(t, "two")
	for name, tc := range map[string]struct{ file, want string }{
		"an unknown field":   {"basic_auth: {}", "basic_auth"},
		"a plain password":   {"basic_auth_users: {prom: secret}", "hash"},
		"no certificate":     {"tls_server_config: {cert_file: /nowhere, key_file: " + key + "}", "/nowhere"},
		"another's key":      {"tls_server_config: {cert_file: " + cert + ", key_file: " + otherKey + "}", "does not match"},
		"half a certificate": {"tls_server_config: {cert_file: " + cert + "}", "key_file"},
	} {
		file := writeFile(t, tc.file)
		cmd, err := Parse([]string{"-config.check", "-server.web-config-file=" + file}, nil)
		require.NoError(t, err, name)
		err = Answer(cmd, &strings.Builder{})
		require.ErrorContains(t, err, "server.web_config_file "+file, name)
		require.ErrorContains(t, err, tc.want, name)
		_, err = New(testConfig(t.TempDir(), "-server.web-config-file="+file), io.Discard)
		require.ErrorContains(t, err, "server.web_config_file "+file, name)
	}
	_, err := New(testConfig(t.TempDir(), "-server.web-config-file="+filepath.Join(t.TempDir(), "nowhere")), io.Discard)
	require.ErrorContains(t, err, "server.web_config_file")
	_, err = Parse([]string{"-server.web-config-file=x", "-server.http-tls.cert-file=x", "-server.http-tls.key-file=x"}, nil)
	require.ErrorContains(t, err, `server.web_config_file is "x" and http_tls is set as well; use one`)
}
