package app

import (
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"github.com/duramendb/duramen/ring"
	"github.com/duramendb/duramen/tenant"
)

// passedOn marks a request that a process has passed on: its receiver answers it in any case, however it sees the ring.
const passedOn = "X-Duramen-Passed-On"

// ownerDialTimeout is how long a member that is away keeps a client waiting.
const ownerDialTimeout = 10 * time.Second

// byOwner has requests that name a tenant of another process answered there, so that clients may ask any compactor. Where
// the servers speak TLS, or may by their web configuration, they are answered here: a client's certificate cannot be passed
// on, and its password would travel in clear text.
func (a *App) byOwner(next http.HandlerFunc) http.Handler {
	secured := a.cfg.Server.HTTPTLS.CertFile != "" || a.cfg.Server.WebConfigFile != ""
	transport := ownerTransport()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.FormValue("tenant")
		if a.ring == nil || secured || r.Header.Get(passedOn) != "" || tenant.ValidateID(id) != nil {
			next(w, r)
			return
		}
		owner, ok := a.ring.Ring().Owner(ring.RoleCompactor, id)
		if !ok || owner.ID == a.instanceID || owner.HTTPAddress == "" {
			next(w, r)
			return
		}
		form := r.Form.Encode() // with what was in the body, which is read
		r.Body = http.NoBody
		proxy := httputil.ReverseProxy{
			Transport: transport,
			ErrorLog:  slog.NewLogLogger(a.logger("compactor").Handler(), slog.LevelWarn),
			Rewrite: func(p *httputil.ProxyRequest) {
				p.SetURL(&url.URL{Scheme: "http", Host: owner.HTTPAddress})
				p.Out.URL.RawQuery, p.Out.ContentLength = form, 0
				p.Out.Header.Del("Content-Type")
				p.Out.Header.Set(passedOn, a.instanceID)
			},
			ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
				http.Error(w, "tenant "+id+" is looked after by "+owner.ID+", which does not answer: "+err.Error(),
					http.StatusServiceUnavailable)
			},
		}
		proxy.ServeHTTP(w, r)
	})
}

// ownerTransport reaches other members, and them only: no proxy of the environment. Requests are rare, so that it leaves no
// connection open and has not to be closed.
func ownerTransport() *http.Transport {
	dialer := net.Dialer{Timeout: ownerDialTimeout}
	return &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}
}
