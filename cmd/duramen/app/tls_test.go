package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/certtest"
)

// TestTheHTTPServerSpeaksTLS, and nothing else then, to those who show a certificate.
func TestTheHTTPServerSpeaksTLS(t *testing.T) {
	authority := certtest.New(t)
	cert, key := authority.Issue(t, "server")
	a, err := New(testConfig(t.TempDir(), "-server.http-tls.cert-file="+cert, "-server.http-tls.key-file="+key,
		"-server.http-tls.client-ca-file="+authority.File), &logBuffer{})
	require.NoError(t, err)
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer func() {
		cancel()
		require.NoError(t, <-ended)
	}()
	go func() { ended <- a.Run(ctx) }()
	require.Eventually(t, func() bool { return a.http.address() != "" }, 10*time.Second, time.Millisecond)

	pem, err := os.ReadFile(authority.File)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(pem))
	pair, err := tls.LoadX509KeyPair(authority.Issue(t, "client"))
	require.NoError(t, err)
	get := func(scheme string, pairs ...tls.Certificate) (int, error) {
		client := &http.Client{Transport: &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{RootCAs: roots, Certificates: pairs, MinVersion: tls.VersionTLS12},
		}}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, scheme+"://"+a.http.address()+"/ready", nil)
		require.NoError(t, err)
		res, err := client.Do(req)
		if err != nil {
			return 0, err
		}
		_, err = io.Copy(io.Discard, res.Body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		return res.StatusCode, nil
	}
	require.Eventually(t, func() bool {
		status, err := get("https", pair)
		return err == nil && status == http.StatusOK
	}, 10*time.Second, 10*time.Millisecond)
	_, err = get("https")
	require.Error(t, err, "without a certificate")
	status, err := get("http")
	require.True(t, err != nil || status == http.StatusBadRequest, "without TLS")

	_, err = New(testConfig(t.TempDir(), "-server.http-tls.cert-file=/nowhere", "-server.http-tls.key-file=/nowhere"), io.Discard)
	require.ErrorContains(t, err, "server.http_tls")
}
