package querier

import (
	"context"
	"math"
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

// What a client is told to wait that is told so by Prometheus' API, which passes no header on: over a limit, and, as writes
// are told, without a quorum or the bucket.
const (
	retryLimited     = 5 * time.Second
	retryUnavailable = 2 * time.Second
)

// patientWriter adds to an answer with status 429 or 503 when to send again. Nothing says that a request whose own time is up
// would be faster then.
type patientWriter struct {
	http.ResponseWriter

	r     *http.Request
	began time.Time
}

// WriteHeader implements http.ResponseWriter.
func (w patientWriter) WriteHeader(status int) {
	var wait time.Duration
	switch {
	case status == errkind.Limited.HTTPStatus():
		wait = retryLimited
	case status == errkind.Unavailable.HTTPStatus() && !w.late():
		wait = retryUnavailable
	}
	if h := w.Header(); wait > 0 && h.Get("Retry-After") == "" {
		h.Set("Retry-After", strconv.Itoa(int(wait/time.Second)))
	}
	w.ResponseWriter.WriteHeader(status)
}

// late reports that the time of the request is over: ours, or that of its parameter timeout.
func (w patientWriter) late() bool {
	took, text := time.Since(w.began), w.r.Form.Get("timeout")
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		return w.r.Context().Err() != nil || math.IsNaN(seconds) || seconds <= took.Seconds()
	}
	d, err := model.ParseDuration(text)
	return w.r.Context().Err() != nil || err == nil && time.Duration(d) <= took
}

// Unwrap lets http.ResponseController reach the server's writer.
func (w patientWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
