package app

import (
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"

	"github.com/duramendb/duramen/ring"
	"github.com/duramendb/duramen/tenant"
)

// passedOn marks a request that a process has passed on: its receiver answers it in any case, however it sees the ring.
const passedOn = "X-Duramen-Passed-On"

// byOwner has requests that name a tenant of another process answered there, so that clients may ask any compactor. Where
// the servers speak TLS they are answered here, for a client's certificate cannot be passed on.
func (a *App) byOwner(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.FormValue("tenant")
		if a.ring == nil || a.cfg.Server.HTTPTLS.CertFile != "" || r.Header.Get(passedOn) != "" || tenant.ValidateID(id) != nil {
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
			ErrorLog: slog.NewLogLogger(a.logger("compactor").Handler(), slog.LevelWarn),
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
