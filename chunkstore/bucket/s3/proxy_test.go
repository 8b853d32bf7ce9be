package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// proxy stands between a client and the server, counts the requests that it gets and spoils some of them.
type proxy struct {
	address string
	forward *httputil.ReverseProxy

	mu      sync.Mutex
	counts  map[string]int
	active  map[string]int
	most    map[string]int // of requests at the same time
	headers map[string]http.Header
	faults  map[string][]fault
}

// fault answers a request in place of the server. forward has the server answer.
type fault func(w http.ResponseWriter, r *http.Request, forward http.Handler)

// startProxy starts a proxy in front of target. With an authority it speaks TLS and wants a certificate of it.
func startProxy(t *testing.T, target string, ca ...*authority) *proxy {
	t.Helper()
	transport := &http.Transport{DisableCompression: true}
	p := &proxy{
		forward: &httputil.ReverseProxy{
			Transport: transport,
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(&url.URL{Scheme: "http", Host: target})
				r.Out.Host = r.In.Host // it is part of the signature
			},
			ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		},
		counts: map[string]int{}, active: map[string]int{}, most: map[string]int{},
		headers: map[string]http.Header{}, faults: map[string][]fault{},
	}
	s := httptest.NewUnstartedServer(p)
	s.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetReadBuffer(64 << 10) // what is slow here is slow for the client
		}
		return ctx
	}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	if len(ca) > 0 {
		cert, key := ca[0].issue(t, "proxy")
		pair, err := tls.LoadX509KeyPair(cert, key)
		require.NoError(t, err)
		own, err := x509.ParseCertificate(mustDER(t, ca[0].file))
		require.NoError(t, err)
		clients := x509.NewCertPool()
		clients.AddCert(own)
		s.TLS = &tls.Config{
			Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients,
		}
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
		transport.CloseIdleConnections()
	})
	p.address = s.Listener.Addr().String()
	return p
}

// open returns a client of a new bucket of s that goes through the proxy.
func (p *proxy) open(t *testing.T, s *server, change ...func(*Config)) *Bucket {
	t.Helper()
	return s.open(t, append(change, func(c *Config) { c.Endpoint = p.address })...)
}

// spoil has the next requests of a kind fail, one fault each; nil lets one pass.
func (p *proxy) spoil(kind string, faults ...fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults[kind] = faults
}

// heal forgets faults and counts.
func (p *proxy) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.faults)
	clear(p.counts)
	clear(p.most)
}

// count is the number of requests of a kind that arrived.
func (p *proxy) count(kind string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts[kind]
}

func (p *proxy) header(kind string) http.Header {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.headers[kind]
}

// total is the number of all requests that arrived.
func (p *proxy) total() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, c := range p.counts {
		n += c
	}
	return n
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind := requestKind(r)
	f := p.enter(kind, r)
	defer p.leave(kind)
	if f == nil {
		p.forward.ServeHTTP(w, r)
		return
	}
	f(w, r, p.forward)
}

func (p *proxy) enter(kind string, r *http.Request) fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts[kind]++
	p.active[kind]++
	p.most[kind] = max(p.most[kind], p.active[kind])
	p.headers[kind] = r.Header.Clone()
	if len(p.faults[kind]) == 0 {
		return nil
	}
	f := p.faults[kind][0]
	p.faults[kind] = p.faults[kind][1:]
	return f
}

func (p *proxy) leave(kind string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.active[kind]--
}

// times repeats a fault.
func times(n int, f fault) []fault {
	faults := make([]fault, n)
	for i := range faults {
		faults[i] = f
	}
	return faults
}

// answer has another body and status in place of the server's.
func answer(status int, body string) fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// s3Error is what S3 servers answer.
func s3Error(status int, code string) fault {
	return answer(status, `<?xml version="1.0" encoding="UTF-8"?>
		<Error><Code>`+code+`</Code><Message>Injected.</Message></Error>`)
}

// stall answers nothing until the client goes away.
func stall(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
	_, _ = io.Copy(io.Discard, r.Body) // the server notices a lost connection once the body is read
	<-r.Context().Done()
}

// reset reads the body and closes the connection with RST.
func reset(w http.ResponseWriter, r *http.Request, _ http.Handler) {
	_, _ = io.Copy(io.Discard, r.Body)
	c, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// applied has the server do what is asked, and then fails as f does.
func applied(f fault) fault {
	return func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		forward.ServeHTTP(httptest.NewRecorder(), r)
		f(w, r, forward)
	}
}

// truncated sends the server's answer up to n bytes of the body and then f, which may stall or close the connection.
func truncated(n int, f fault) fault {
	return func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		rec := recorded(r, forward)
		maps.Copy(w.Header(), rec.Header())
		w.Header().Set("Content-Length", strconv.Itoa(rec.Body.Len()))
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes()[:n])
		_ = http.NewResponseController(w).Flush()
		f(w, r, forward)
	}
}

// shortened sends the server's answer up to n bytes of the body as if that were all.
func shortened(n int, f func(http.Header)) fault {
	return func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		rec := recorded(r, forward)
		maps.Copy(w.Header(), rec.Header())
		w.Header().Set("Content-Length", strconv.Itoa(n))
		f(w.Header())
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes()[:n])
		_ = http.NewResponseController(w).Flush() // chunked, when there is no length
	}
}

// wholeObject answers as a server does that knows no ranges.
func wholeObject(w http.ResponseWriter, r *http.Request, forward http.Handler) {
	rec := recorded(r, forward)
	maps.Copy(w.Header(), rec.Header())
	w.Header().Del("Content-Range")
	w.Header().Del("Content-Length")
	_, _ = w.Write(rec.Body.Bytes())
}

func recorded(r *http.Request, forward http.Handler) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	forward.ServeHTTP(rec, r)
	return rec
}

// unconditional answers a put as a server does that ignores conditions.
func unconditional(w http.ResponseWriter, r *http.Request, _ http.Handler) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("ETag", `"0"`)
}
