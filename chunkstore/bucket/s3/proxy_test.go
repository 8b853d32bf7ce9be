package s3

import (
	"testing"

	"github.com/duramendb/duramen/internal/certtest"
	"github.com/duramendb/duramen/internal/faultproxy"
)

// proxy stands between a client and the server and spoils requests.
type proxy struct{ *faultproxy.Proxy }

// startProxy starts a proxy in front of s. With an authority it speaks TLS and wants a certificate of it.
func startProxy(t *testing.T, s *server, ca ...*certtest.Authority) proxy {
	t.Helper()
	if len(ca) > 0 {
		return proxy{faultproxy.Start(t, s.Address(), ca[0].ServerConfig(t, true))}
	}
	return proxy{faultproxy.Start(t, s.Address(), nil)}
}

// open returns a client of a new bucket of s that goes through the proxy.
func (p proxy) open(t *testing.T, s *server, change ...func(*Config)) *Bucket {
	t.Helper()
	return s.open(t, append(change, func(c *Config) { c.Endpoint = p.Address() })...)
}
