package querier

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/common/model"

	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/tenant"
)

// selecting are the routes that select series, by their name in the metric. They take a slot.
var selecting = map[string]bool{"query": true, "query_range": true, "series": true, "labels": true, "label_values": true}

// admit waits for a slot for a request to a route, whose form has been read. A nil error obliges to call release. A slot
// is kept until the answer has been sent: until then its memory is needed.
func (q *Querier) admit(r *http.Request, route string) (admitted *http.Request, release func(), err error) {
	id, err := tenant.FromContext(r.Context())
	if err != nil || !selecting[route] {
		return r, func() {}, nil //nolint:nilerr // the API says what is wrong with a request without a tenant
	}
	kind := recentSlot
	cut, _ := q.cut(id)
	if q.below(route, r.Form, cut) {
		kind = storeSlot
	}
	ctx, cancel := waitOf(r)
	defer cancel()
	s := &seat{q: q, tenantID: id, kind: kind}
	if s.release, err = q.slots.take(ctx, id, kind); err != nil {
		return nil, nil, err
	}
	return r.WithContext(context.WithValue(r.Context(), seatKey{}, s)), s.leave, nil
}

// waitOf bounds the wait of a request by the parameter timeout, which bounds its query.
func waitOf(r *http.Request) (context.Context, context.CancelFunc) {
	text := r.Form.Get("timeout")
	if seconds, err := strconv.ParseFloat(text, 64); err == nil && seconds >= 0 && seconds < 1e9 {
		return context.WithTimeout(r.Context(), time.Duration(seconds*float64(time.Second)))
	}
	if d, err := model.ParseDuration(text); err == nil {
		return context.WithTimeout(r.Context(), time.Duration(d))
	}
	return context.WithCancel(r.Context()) // none, or one that the API refuses
}

// refuse answers with an error in the form of Prometheus' API, and counts it.
func (q *Querier) refuse(w http.ResponseWriter, err error) {
	kind := errkind.Of(err)
	q.metrics.errors.WithLabelValues(kind.String()).Inc()
	askToWait(w.Header(), err)
	fail(w, kind.HTTPStatus(), errorType(kind), err.Error())
}

// askToWait says when to send again, if the error does.
func askToWait(h http.Header, err error) {
	if d := errkind.RetryAfter(err); d > 0 {
		h.Set("Retry-After", strconv.Itoa(int((d+time.Second-1)/time.Second)))
	}
}

// retryLimited is what a client is told to wait that is told so by Prometheus' API, which passes no header on.
const retryLimited = 5 * time.Second

// patientWriter adds to an answer with status 429 when to send again.
type patientWriter struct{ http.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w patientWriter) WriteHeader(status int) {
	if h := w.Header(); status == errkind.Limited.HTTPStatus() && h.Get("Retry-After") == "" {
		h.Set("Retry-After", strconv.Itoa(int(retryLimited/time.Second)))
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the server's writer.
func (w patientWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
