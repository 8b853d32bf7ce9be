package querier

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/prometheus/prometheus/util/httputil"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/tenant"
)

// answer computes what stands under "data" for the request of a tenant.
type answer func(r *http.Request, tenantID string) (any, error)

// ownAnswers are the GET routes that Prometheus' API cannot answer for a tenant: it asks about its one TSDB and its own
// targets, without a context.
func (q *Querier) ownAnswers() map[string]http.Handler {
	return map[string]http.Handler{
		"metadata": q.respond(q.metricMetadata),
		"tsdb":     q.respond(q.tsdbStatus),
	}
}

// respond serves an answer as Prometheus' API serves its own: for browsers of any origin, compressed, in its JSON.
func (q *Querier) respond(get answer) http.Handler {
	return httputil.CompressionHandler{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		httputil.SetCORS(w, q.anyOrigin, r)
		var data any
		id, err := tenant.FromContext(r.Context())
		if err == nil {
			data, err = get(r, id)
		}
		if err != nil {
			q.refuse(w, err)
			return
		}
		q.sendData(w, data)
	})}
}

// sendData answers with data in Prometheus' form.
func (q *Querier) sendData(w http.ResponseWriter, data any) {
	body, err := json.Marshal(v1.Response{Status: "success", Data: data})
	if err != nil {
		q.refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // the client is gone if this fails
}

// errorType returns Prometheus' name for a kind of error.
func errorType(k errkind.Kind) string {
	switch k {
	case errkind.Invalid:
		return "bad_data"
	case errkind.NotFound:
		return "not_found"
	case errkind.Canceled:
		return "canceled"
	case errkind.Unprocessable, errkind.Limited:
		return "execution"
	case errkind.Unavailable:
		return "unavailable"
	default:
		return "internal"
	}
}

// number reads a parameter that is absent or a whole number.
func number(r *http.Request, name string, absent int) (int, error) {
	text := r.FormValue(name)
	if text == "" {
		return absent, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, errkind.New(errkind.Invalid, "%s must be a number", name)
	}
	return n, nil
}
