package compactor

import (
	"bytes"
	_ "embed" // for the page's template
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/duramendb/duramen/internal/errkind"
)

//go:embed compactor.html
var pageHTML string

// mostTenants bounds the page; ?tenant= shows one that is left out.
const mostTenants = 500

// ServeStatus answers GET /compactor with a page or, with ?format=json or when the client accepts it, with a Status as
// JSON. The parameter tenant restricts it to one.
func (c *Compactor) ServeStatus(w http.ResponseWriter, r *http.Request) {
	status := Status{Tenants: []TenantStatus{}}
	if id := r.FormValue("tenant"); id == "" {
		status = c.Status(mostTenants)
	} else if t, ok := c.TenantStatus(id); ok {
		status = Status{Tenants: []TenantStatus{t}, TenantsTotal: 1}
	}
	if wantsJSON(r) {
		writeJSON(w, http.StatusOK, status)
		return
	}
	page, err := template.New("page").Funcs(pageFuncs(c.now())).Parse(pageHTML)
	var b bytes.Buffer
	if err == nil {
		err = page.Execute(&b, status)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	_, _ = b.WriteTo(w) // the client is gone when this fails
}

// ServeRun answers POST /compactor/run?tenant=T[&wait=true] with the tenant's TenantStatus as JSON: 202 when the work has
// begun, 200 when it was waited for.
func (c *Compactor) ServeRun(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "use POST", http.StatusMethodNotAllowed)
		return
	}
	id, wait := r.FormValue("tenant"), false
	if id == "" {
		writeError(w, errkind.New(errkind.Invalid, "parameter tenant is missing: say whose blocks to look through"))
		return
	}
	if s := r.FormValue("wait"); s != "" {
		var err error
		if wait, err = strconv.ParseBool(s); err != nil {
			writeError(w, errkind.New(errkind.Invalid, "parameter wait is %q; use true or false", s))
			return
		}
	}
	status, err := c.Run(r.Context(), id, wait)
	if err != nil {
		writeError(w, err)
		return
	}
	code := http.StatusAccepted
	if wait {
		code = http.StatusOK
	}
	writeJSON(w, code, status)
}

func writeError(w http.ResponseWriter, err error) {
	var e *errkind.Error
	if errors.As(err, &e) && e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(max(1, e.RetryAfter.Seconds()))))
	}
	writeJSON(w, errkind.Of(err).HTTPStatus(), map[string]string{"error": err.Error()})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client is gone when this fails
}

func wantsJSON(r *http.Request) bool {
	if format := r.FormValue("format"); format != "" {
		return format == "json"
	}
	accept := r.Header.Get("Accept")
	return strings.Contains(accept, "application/json") && !strings.Contains(accept, "text/html")
}

func pageFuncs(now time.Time) template.FuncMap {
	return template.FuncMap{
		"time": func(ms int64) string {
			if ms == 0 {
				return "–"
			}
			return time.UnixMilli(ms).UTC().Format(time.RFC3339)
		},
		"ago": func(ms int64) string {
			if ms == 0 {
				return "–"
			}
			return max(0, now.Sub(time.UnixMilli(ms))).Truncate(time.Second).String() + " ago"
		},
		"age": func(seconds float64) string {
			if seconds <= 0 {
				return "–"
			}
			return (time.Duration(seconds) * time.Second).String()
		},
		"bytes": formatBytes,
	}
}

func formatBytes(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	size, i := float64(n)/unit, 0
	for size >= unit && i < 4 {
		size, i = size/unit, i+1
	}
	return fmt.Sprintf("%.1f %ciB", size, "KMGTP"[i])
}
