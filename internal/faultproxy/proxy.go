package faultproxy

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
)

// Proxy passes requests on to a server, or spoils them. It is safe for concurrent use.
type Proxy struct {
	address string
	forward *httputil.ReverseProxy

	serving sync.WaitGroup // handlers, also those that have given their connection away

	mu      sync.Mutex
	next    int // number of the next request
	records []*Record
	active  map[Operation]int
	most    map[Operation]int
	script  map[Operation][]Fault
	plan    Plan
}

// Plan decides on the fault of a request. It is called for one request at a time and must not call the proxy.
type Plan func(Request) Fault

// Start starts a proxy in front of target, a host:port that speaks plain HTTP. With a TLS configuration the proxy itself
// speaks TLS. It ends with the test.
func Start(t testing.TB, target string, config *tls.Config) *Proxy {
	t.Helper()
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64}
	p := &Proxy{
		forward: &httputil.ReverseProxy{
			Transport: transport,
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(&url.URL{Scheme: "http", Host: target})
				r.Out.Host = r.In.Host // it is part of the signature
			},
			// A server that is away looks like one: no answer, and the connection is gone.
			ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		},
		active: map[Operation]int{}, most: map[Operation]int{}, script: map[Operation][]Fault{},
	}
	s := httptest.NewUnstartedServer(p)
	s.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetReadBuffer(64 << 10) // what is slow here is slow for the client
		}
		return ctx
	}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	if config != nil {
		s.TLS = config
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
		p.serving.Wait()
		transport.CloseIdleConnections()
	})
	p.address = s.Listener.Addr().String()
	return p
}

// Address is the proxy's own host:port.
func (p *Proxy) Address() string { return p.address }

// Spoil has the next requests for an operation fail, one fault each, in place of what it was told before. The zero Fault
// lets one pass. The plan decides on those that follow.
func (p *Proxy) Spoil(op Operation, faults ...Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.script[op] = faults
}

// SetPlan replaces the plan; nil ends it. Requests in progress keep their faults.
func (p *Proxy) SetPlan(plan Plan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plan = plan
}

// Heal ends all faults and forgets the requests so far. Requests in progress keep their faults.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plan, p.records = nil, nil
	clear(p.script)
	clear(p.most)
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.serving.Add(1)
	defer p.serving.Done()
	rec, fault := p.enter(r)
	watched := &watchedWriter{ResponseWriter: w}
	defer func() { p.leave(rec, watched) }()
	if fault.Serve == nil {
		p.forward.ServeHTTP(watched, r)
		return
	}
	fault.Serve(watched, r, p.forward)
}
