package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

// idleTimeout is how long a connection waits for its next request: less than the minute after which load balancers
// drop one, so that a request is not lost to a connection that is just being closed.
const idleTimeout = 45 * time.Second

// newTransport returns HTTP/1.1 connections to the server. net/http repeats no request of ours that has a body and
// has begun to be sent, which the single try of a conditional put depends on.
func newTransport(cfg Config) (*http.Transport, error) {
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dialer(cfg),
		TLSHandshakeTimeout:   cfg.DialTimeout,
		MaxConnsPerHost:       cfg.MaxConnections,
		MaxIdleConns:          cfg.MaxIdleConnections,
		MaxIdleConnsPerHost:   cfg.MaxIdleConnections,
		IdleConnTimeout:       min(idleTimeout, cfg.StallTimeout/2),
		ExpectContinueTimeout: time.Second,
		DisableCompression:    true, // lengths have to be those of the objects
		WriteBufferSize:       64 << 10,
		ReadBufferSize:        64 << 10,
	}
	if cfg.Insecure {
		return t, nil
	}
	var err error
	t.TLSClientConfig, err = newTLSConfig(cfg)
	return t, err
}

// CheckFiles reads the files of TLS, as a start does, and says what is wrong with them.
func (c *Config) CheckFiles() error {
	if c.Insecure {
		return nil
	}
	_, err := newTLSConfig(*c)
	return err
}

func newTLSConfig(cfg Config) (*tls.Config, error) {
	c := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: cfg.TLSInsecureSkipVerify, //nolint:gosec // the operator asked for it
	}
	if cfg.TLSCAFile != "" {
		roots, err := x509.SystemCertPool()
		if err != nil {
			roots = x509.NewCertPool()
		}
		pem, err := os.ReadFile(cfg.TLSCAFile)
		if err != nil {
			return nil, fmt.Errorf("tls_ca_file: %w", err)
		}
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls_ca_file: no PEM certificate in %s", cfg.TLSCAFile)
		}
		c.RootCAs = roots
	}
	if cfg.TLSCertFile != "" {
		pair, err := tls.LoadX509KeyPair(cfg.TLSCertFile, cfg.TLSKeyFile)
		if err != nil {
			return nil, fmt.Errorf("tls_cert_file %s, tls_key_file %s: %w", cfg.TLSCertFile, cfg.TLSKeyFile, err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

func dialer(cfg Config) func(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: cfg.DialTimeout, KeepAlive: 15 * time.Second}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := d.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &movingConn{c, cfg.StallTimeout}, nil
	}
}

// movingConn is a connection that fails when nothing moves on it for a while. A read waits at the same time as a
// request is written, so that what is written postpones the end of the read as well.
type movingConn struct {
	net.Conn

	timeout time.Duration
}

func (c *movingConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *movingConn) Write(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}
