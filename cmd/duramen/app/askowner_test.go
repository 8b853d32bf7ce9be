package app

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/certtest"
	"github.com/duramendb/duramen/ring"
)

// TestPasswordsStayBehindAWebConfig: a member whose web config asks for TLS and a password passes no request on, for the
// owner of a tenant would be asked without TLS.
func TestPasswordsStayBehindAWebConfig(t *testing.T) {
	var received atomic.Int64
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { received.Add(1) }))
	defer plain.Close()
	plainAddress := plain.Listener.Addr().String()

	c := newCluster(t)
	owner := c.start("a", "", roleCompactor)
	owner.ring.Update(func(m *ring.Member) { m.HTTPAddress = plainAddress })
	authority := certtest.New(t)
	cert, key := authority.Issue(t, "server")
	file := writeFile(t, "tls_server_config: {cert_file: "+cert+", key_file: "+key+"}\nbasic_auth_users: {prom: "+hashOfSecret+"}\n")
	b := runGuarded(t, c.config("b", "", roleCompactor, "-server.web-config-file="+file))
	var tenantID string
	require.Eventually(t, func() bool {
		for i := range 100 {
			tenantID = fmt.Sprint("tenant-", i)
			m, ok := b.ring.Ring().Owner(ring.RoleCompactor, tenantID)
			if ok && m.HTTPAddress == plainAddress && b.ring.Self().State == ring.Active {
				return true
			}
		}
		return false
	}, 30*time.Second, 5*time.Millisecond)

	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: authority.ClientConfig(t)}
	var status int
	var body []byte
	require.Eventually(t, func() bool {
		address := "https://" + b.http.address() + "/compactor/run?tenant=" + tenantID
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, nil)
		require.NoError(t, err)
		req.SetBasicAuth("prom", "secret")
		res, err := (&http.Client{Transport: transport}).Do(req)
		require.NoError(t, err)
		body, err = io.ReadAll(res.Body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		status = res.StatusCode
		return status != http.StatusServiceUnavailable // it starts
	}, 30*time.Second, 10*time.Millisecond)
	require.Equal(t, http.StatusMisdirectedRequest, status, string(body))
	require.Contains(t, string(body), plainAddress, "it says whom to ask")
	require.Zero(t, received.Load())
}

// TestOwnersAreAskedWithoutAProxy: it would see the headers, and a member is reached by its own address only.
func TestOwnersAreAskedWithoutAProxy(t *testing.T) {
	require.Nil(t, ownerTransport().Proxy)
}
