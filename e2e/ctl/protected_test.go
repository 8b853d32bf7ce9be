package ctl

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/e2e/process"
	"github.com/duramendb/duramen/internal/certtest"
)

// passwordHash is bcrypt's of "secret", at the least cost.
const passwordHash = "$2a$04$yRCt2SGk.bXJ3lBwV/kAD.vhvaDOFP0qphLVEw.DfJ9wHELZwpwa."

// knows is a client that knows the authority, and the password of prom.
type knows struct{ *http.Transport }

func (k knows) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.SetBasicAuth("prom", "secret")
	return k.Transport.RoundTrip(r)
}

// TestAProtectedServer: behind TLS and a password, a real Prometheus that knows both writes, and the tool that knows both reads;
// who lacks one of them does neither.
func TestAProtectedServer(t *testing.T) {
	authority := certtest.New(t)
	cert, key := authority.Issue(t, "server")
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	web := write("web.yml", "tls_server_config: {cert_file: "+cert+", key_file: "+key+"}\nbasic_auth_users: {prom: "+passwordHash+"}\n")
	password, wrong := write("password", "secret\n"), write("wrong", "guessed")
	transport := &http.Transport{TLSClientConfig: authority.ClientConfig(t)}
	defer transport.CloseIdleConnections()

	spec, err := process.Duramen(duramenBinary, filepath.Join(dir, "duramen"), "-server.web-config-file="+web)
	require.NoError(t, err)
	spec.URL = strings.Replace(spec.URL, "http:", "https:", 1)
	spec.Client = &http.Client{Transport: knows{transport}, Timeout: 10 * time.Second}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	n, _, err := process.StartReady(ctx, spec)
	require.NoError(t, err)
	defer n.Kill()

	binary, err := process.Tool("prometheus")
	require.NoError(t, err)
	job := func(name, passwordFile string) string {
		return fmt.Sprintf(`
  - url: %s/api/v1/push
    name: %s
    basic_auth: {username: prom, password_file: %s}
    tls_config: {ca_file: %s}
    headers: {X-Scope-OrgID: %[2]s}
    queue_config: {batch_send_deadline: 200ms}`, n.URL, name, passwordFile, authority.File)
	}
	config := "global: {scrape_interval: 1s}\nremote_write:" + job("right", password) + job("wrong", wrong) +
		"\nscrape_configs:\n  - job_name: prometheus\n    static_configs: [{targets: ['" + process.Self + "']}]\n"
	prometheus, err := process.Prometheus(binary, filepath.Join(dir, "prometheus"), config)
	require.NoError(t, err)
	p, _, err := process.StartReady(ctx, prometheus)
	require.NoError(t, err)
	defer p.Kill()

	access := []string{"-basic-auth.username=prom", "-basic-auth.password-file=" + password, "-tls.ca-file=" + authority.File}
	query := func(tenant string, access ...string) said {
		return ctl(t, nil, append([]string{"query", "-url=" + n.URL, "-tenant=" + tenant, "-fail-empty", `up{job="prometheus"}`}, access...)...)
	}
	require.Eventually(t, func() bool { return query("right", access...).code == 0 }, 60*time.Second, 200*time.Millisecond)
	require.Contains(t, query("right", access...).out, `up{`)
	own := client.Prometheus(p.URL)
	defer own.CloseIdle()
	require.Eventually(t, func() bool {
		failed, err := own.Metric(ctx, "prometheus_remote_storage_samples_failed_total", `remote_name="wrong"`)
		return err == nil && failed > 0
	}, 60*time.Second, 100*time.Millisecond)
	require.Equal(t, 3, query("wrong", access...).code, "nothing was written with another password")

	s := query("right", access[2])
	require.Equal(t, 1, s.code)
	require.Contains(t, s.errors, "401")
	require.Contains(t, query("right", access[:2]...).errors, "certificate")
	s = query("right", append(access, "-basic-auth.password-file="+wrong)...)
	require.Contains(t, s.errors, "401")
	require.Equal(t, 0, ctl(t, nil, append([]string{"tenants", "-url=" + n.URL}, access...)...).code)
}
