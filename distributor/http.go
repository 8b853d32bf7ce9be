package distributor

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/duramendb/duramen/distributor/rw1"
	"github.com/duramendb/duramen/distributor/rw2"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/tenant"
)

// Headers of remote write 2.0, https://prometheus.io/docs/specs/prw/remote_write_spec_2_0/.
const (
	headerSamples    = "X-Prometheus-Remote-Write-Samples-Written"
	headerHistograms = "X-Prometheus-Remote-Write-Histograms-Written"
	headerExemplars  = "X-Prometheus-Remote-Write-Exemplars-Written"
	headerRetry      = "Retry-Attempt"
	headerRetryAfter = "Retry-After"
)

const mediaType = "application/x-protobuf"

// Results of a request in metrics besides the kinds of errors.
const (
	resultOK      = "ok"
	resultRefused = "refused"
)

// Handler returns the handler of POST remote write. It takes the tenant from the request's context.
func (d *Distributor) Handler() http.Handler { return http.HandlerFunc(d.serve) }

func (d *Distributor) serve(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "remote write is a POST", http.StatusMethodNotAllowed)
		return
	}
	f, err := negotiate(req.Header)
	if err != nil {
		d.answerError(req.Context(), w, "unknown", err)
		return
	}
	begin := d.now()
	r := d.pool.get(d, f)
	defer d.pool.put(r)
	err = d.receive(r, req, begin)
	if err == nil {
		err = r.push(req.Context())
		d.metrics.seconds.Observe(d.now().Sub(begin).Seconds())
	}
	d.answer(req.Context(), w, r, err)
}

// receive finds the tenant and reads the body.
func (d *Distributor) receive(r *request, req *http.Request, now time.Time) error {
	id, err := tenant.FromContext(req.Context())
	if err != nil {
		return err
	}
	if v := req.Header.Get(headerRetry); v != "" && v != "0" {
		d.metrics.retries.Inc()
	}
	r.begin(id, now)
	if err := r.takeRate(now, 0); err != nil {
		return err
	}
	return r.read(req.Context(), req.Body, req.ContentLength)
}

// begin prepares r for a tenant's request.
func (r *request) begin(id string, now time.Time) {
	r.minute = uint32(now.Unix() / 60)
	r.tenant = r.d.tenants.get(id, r.minute)
	r.limit = r.d.maxRequestBytes(id)
}

// negotiate finds the format by Content-Type and Content-Encoding, as the specifications of 1.0 and 2.0 and
// Prometheus' own receiver do: no type means 1.0, no encoding means snappy.
func negotiate(h http.Header) (format, error) {
	if enc := h.Get("Content-Encoding"); enc != "" && enc != "snappy" {
		return 0, errkind.New(errkind.UnsupportedMedia,
			"Content-Encoding %q is not supported; use snappy (block format)", enc)
	}
	contentType := h.Get("Content-Type")
	if contentType == "" {
		return format1, nil
	}
	media, params, _ := strings.Cut(contentType, ";")
	if !strings.EqualFold(strings.TrimSpace(media), mediaType) {
		return 0, errkind.New(errkind.UnsupportedMedia, "Content-Type %q is not supported; use %s", contentType,
			mediaType)
	}
	for params != "" {
		var param string
		param, params, _ = strings.Cut(params, ";")
		name, value, ok := strings.Cut(strings.TrimSpace(param), "=")
		if !ok {
			return 0, errkind.New(errkind.UnsupportedMedia, "Content-Type %q has a parameter without a value",
				contentType)
		}
		if !strings.EqualFold(name, "proto") {
			continue
		}
		switch strings.Trim(value, `"`) {
		case rw1.Message:
			return format1, nil
		case rw2.Message:
			return format2, nil
		}
		return 0, errkind.New(errkind.UnsupportedMedia, "the message %q is not supported; use %s or %s", value,
			rw1.Message, rw2.Message)
	}
	return format1, nil
}

// answer tells the sender what became of the request. Counts are true in every answer of 2.0: what is not known to be
// stored counts as not written.
func (d *Distributor) answer(ctx context.Context, w http.ResponseWriter, r *request, err error) {
	f := r.format
	if f == format2 {
		h := w.Header()
		h.Set(headerSamples, strconv.Itoa(r.stored.floats))
		h.Set(headerHistograms, strconv.Itoa(r.stored.histograms))
		h.Set(headerExemplars, strconv.Itoa(r.stored.exemplars))
	}
	if err == nil { // Otherwise they come again.
		for _, l := range r.refused.list {
			d.metrics.countRefused(r.tenant.id, l.reason, l.samples)
		}
	}
	switch {
	case err != nil:
		d.answerError(ctx, w, f.String(), err)
	case r.refused.samples > 0:
		d.metrics.requests.WithLabelValues(f.String(), resultRefused).Inc()
		http.Error(w, r.refused.text(r.sent.samples()), errkind.Invalid.HTTPStatus())
	case f == format2:
		d.metrics.requests.WithLabelValues(f.String(), resultOK).Inc()
		w.WriteHeader(http.StatusNoContent)
	default:
		d.metrics.requests.WithLabelValues(f.String(), resultOK).Inc()
		w.WriteHeader(http.StatusOK)
	}
}

func (d *Distributor) answerError(ctx context.Context, w http.ResponseWriter, format string, err error) {
	kind := errkind.Of(err)
	d.metrics.requests.WithLabelValues(format, kind.String()).Inc()
	if kind == errkind.Limited || kind == errkind.Unavailable {
		w.Header().Set(headerRetryAfter, strconv.Itoa(jittered(errkind.RetryAfter(err))))
	}
	if kind == errkind.Internal || kind == errkind.Corrupt {
		d.log.ErrorContext(ctx, "write request failed", "format", format, "err", err)
	} else {
		d.log.DebugContext(ctx, "write request not stored", "format", format, "kind", kind.String(), "err", err)
	}
	http.Error(w, err.Error(), kind.HTTPStatus())
}

// errRate is the error of a request over the rate limit.
type errRate struct{ rate float64 }

// Error names the limit and its value.
func (e errRate) Error() string {
	return fmt.Sprintf("more samples than the limit ingestion_rate of %g a second; none of this request is "+
		"stored", e.rate)
}
