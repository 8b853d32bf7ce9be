package ingester

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"

	"github.com/duramendb/duramen/internal/errkind"
)

// FlushHandler answers POST /ingester/flush. The parameter tenant names one tenant, all are flushed without it; wait=true
// answers when the blocks are in the bucket and listed. The body is {"results": [FlushResult…]}, with "errors" by tenant
// for those that failed; the status is then the worst of theirs.
func (i *Ingester) FlushHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, "use POST", http.StatusMethodNotAllowed)
			return
		}
		wait := false
		if s := r.FormValue("wait"); s != "" {
			var err error
			if wait, err = strconv.ParseBool(s); err != nil {
				writeError(w, errkind.New(errkind.Invalid, "parameter wait is %q; use true or false", s))
				return
			}
		}
		i.flushAnswer(w, r, r.FormValue("tenant"), wait)
	})
}

// TenantsHandler answers GET /ingester/tenants with {"tenants": [TenantStats…]}, by name. It opens none.
func (i *Ingester) TenantsHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", http.MethodGet)
			http.Error(w, "use GET", http.StatusMethodNotAllowed)
			return
		}
		writeJSON(w, http.StatusOK, map[string][]TenantStats{"tenants": i.TenantStats()})
	})
}

type flushAnswer struct {
	Results []FlushResult     `json:"results"`
	Errors  map[string]string `json:"errors,omitempty"`
}

func (i *Ingester) flushAnswer(w http.ResponseWriter, r *http.Request, tenantID string, wait bool) {
	if tenantID != "" {
		res, err := i.Flush(r.Context(), tenantID, wait)
		if err != nil {
			writeError(w, err)
			return
		}
		writeJSON(w, http.StatusOK, flushAnswer{Results: []FlushResult{res}})
		return
	}
	if err := i.serving(); err != nil {
		writeError(w, err)
		return
	}
	status, answer := http.StatusOK, flushAnswer{Results: []FlushResult{}, Errors: map[string]string{}}
	for _, id := range i.tenantsWithData() {
		res, err := i.Flush(r.Context(), id, wait)
		if err != nil {
			status = max(status, errkind.Of(err).HTTPStatus())
			answer.Errors[id] = err.Error()
			continue
		}
		answer.Results = append(answer.Results, res)
	}
	writeJSON(w, status, answer)
}

// tenantsWithData returns the tenants that are not closed, by name: a closed one has all of its data in the bucket.
func (i *Ingester) tenantsWithData() []string {
	var ids []string
	for _, t := range i.tenants.all() {
		if t.currentState() != tenantClosed || !isIdle(t.dir) {
			ids = append(ids, t.id)
		}
	}
	slices.Sort(ids)
	return ids
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
