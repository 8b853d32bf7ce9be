package s3

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
)

// authority is a certificate authority of one test.
type authority struct {
	file string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	a := &authority{file: filepath.Join(t.TempDir(), "ca.pem"), key: key}
	a.cert = &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "test authority"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, key.Public(), key)
	require.NoError(t, err)
	writePEM(t, a.file, "CERTIFICATE", der)
	return a
}

// issue writes a certificate for 127.0.0.1 and its key.
func (a *authority) issue(t *testing.T, name string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	require.NoError(t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}, a.cert, key.Public(), a.key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	require.NoError(t, err)
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem")
	writePEM(t, certFile, "CERTIFICATE", der)
	writePEM(t, keyFile, "EC PRIVATE KEY", keyDER)
	return certFile, keyFile
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

func TestUntrustedServer(t *testing.T) {
	t.Parallel()
	cert, key := newAuthority(t).issue(t, "server")
	s := startServer(t, "--cert", cert, "--key", key)
	for name, change := range map[string]func(*Config){
		"system's authorities": func(c *Config) { c.Insecure = false },
		"another authority":    trusting(newAuthority(t)),
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
	ca := newAuthority(t)
	s := startServer(t)
	p := startProxy(t, s.address, ca)
	cert, key := ca.issue(t, "client")
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
		"tls_cert_file and tls_key_file":  func(c *Config) { c.TLSCertFile, c.TLSKeyFile = empty, empty },
	} {
		cfg := valid()
		change(&cfg)
		_, err := New(cfg, nil, nil)
		require.ErrorContains(t, err, name)
	}
}

func mustDER(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	block, _ := pem.Decode(data)
	require.NotNil(t, block)
	return block.Bytes
}
