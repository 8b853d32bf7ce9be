package s3

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
	"github.com/duramendb/duramen/internal/certtest"
)

func TestUntrustedServer(t *testing.T) {
	t.Parallel()
	cert, key := certtest.New(t).Issue(t, "server")
	s := startServer(t, "--cert", cert, "--key", key)
	for name, change := range map[string]func(*Config){
		"system's authorities": func(c *Config) { c.Insecure = false },
		"another authority":    trusting(certtest.New(t)),
	} {
		t.Run(name, func(t *testing.T) {
			b := s.open(t, change)
			_, err := b.Get(t.Context(), "t/object")
			var untrusted *tls.CertificateVerificationError
			require.ErrorAs(t, err, &untrusted)
			require.ErrorContains(t, err, b.Name())
			require.Zero(t, testutil.ToFloat64(b.m.retries), "trying again does not help")
		})
	}
	t.Run("verification switched off", func(t *testing.T) {
		b := s.open(t, func(c *Config) { c.Insecure, c.TLSInsecureSkipVerify = false, true })
		buckettest.Put(t, b, "t/object", "content")
	})
	t.Run("plain HTTP", func(t *testing.T) {
		_, err := s.open(t).Stat(t.Context(), "t/object")
		require.Error(t, err)
	})
}

func TestClientCertificate(t *testing.T) {
	t.Parallel()
	ca := certtest.New(t)
	s := startServer(t)
	p := startProxy(t, s, ca)
	cert, key := ca.Issue(t, "client")
	with := p.open(t, s, trusting(ca), func(c *Config) { c.TLSCertFile, c.TLSKeyFile = cert, key })
	buckettest.Put(t, with, "t/object", "content")
	require.Equal(t, "content", buckettest.Get(t, with, "t/object"))

	_, err := p.open(t, s, trusting(ca)).Stat(t.Context(), "t/object")
	require.Error(t, err, "the proxy wants a certificate")
}

func TestUnreadableCertificates(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	for name, change := range map[string]func(*Config){
		"tls_ca_file: no PEM certificate": func(c *Config) { c.TLSCAFile = empty },
		"tls_ca_file: open":               func(c *Config) { c.TLSCAFile = empty + ".missing" },
		"tls_cert_file ":                  func(c *Config) { c.TLSCertFile, c.TLSKeyFile = empty, empty },
	} {
		cfg := valid()
		change(&cfg)
		_, err := New(cfg, nil, nil)
		require.ErrorContains(t, err, name)
	}
}
