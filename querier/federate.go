package querier

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/httputil"

	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/tenant"
)

// Federate answers GET /federate as Prometheus does: the newest sample of each series that a match[] selects, for a
// Prometheus that scrapes it. The tenant must be in the request's context.
func (q *Querier) Federate() http.Handler {
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, format, err := q.federate(r)
		if err != nil {
			kind := errkind.Of(err)
			q.metrics.errors.WithLabelValues(kind.String()).Inc()
			askToWait(w.Header(), err)
			http.Error(w, err.Error(), kind.HTTPStatus())
			return
		}
		w.Header().Set("Content-Type", string(format))
		w.Header().Set("Content-Length", strconv.Itoa(body.Len()))
		_, _ = body.WriteTo(w) // the client is gone if this fails
	})
	compressed := httputil.CompressionHandler{Handler: answer}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r, done := q.accept(w, r, "federate")
		defer done()
		compressed.ServeHTTP(patientWriter{w, r, time.Now()}, r)
	})
}

// federate returns the whole answer, so that none is sent in part. It takes a slot like a query.
func (q *Querier) federate(r *http.Request) (body *bytes.Buffer, format expfmt.Format, err error) {
	if err := r.ParseForm(); err != nil {
		return nil, "", errkind.New(errkind.Invalid, "error parsing form values: %w", err)
	}
	if err := checkRegexes("", r.Form["match[]"]); err != nil {
		return nil, "", err
	}
	selectors, err := q.parser.ParseMetricSelectors(r.Form["match[]"])
	if err != nil {
		return nil, "", errkind.Wrap(errkind.Invalid, err)
	}
	format = expfmt.NegotiateAccept(r.Header, expfmt.NewFormat(expfmt.TypeProtoDelim),
		expfmt.NewFormat(expfmt.TypeProtoText), expfmt.NewFormat(expfmt.TypeProtoCompact),
		expfmt.NewFormat(expfmt.TypeTextPlain))
	id, err := tenant.FromContext(r.Context())
	if err != nil {
		return nil, "", err
	}
	s := &seat{q: q, tenantID: id, kind: recentSlot}
	if s.release, err = q.slots.take(r.Context(), id, recentSlot); err != nil {
		return nil, "", err
	}
	defer s.leave()
	ctx := context.WithValue(r.Context(), seatKey{}, s)
	err = q.fitting(ctx, func(bool) error {
		return q.again(ctx, always, func(ctx context.Context) error {
			body, err = q.exposition(ctx, selectors, format)
			return err
		})
	})
	return body, format, err
}

// exposition returns the newest samples of what the selectors match in a format.
func (q *Querier) exposition(
	ctx context.Context, selectors [][]*labels.Matcher, format expfmt.Format,
) (*bytes.Buffer, error) {
	at := q.now()
	mint, maxt := at.Add(-q.cfg.LookbackDelta).UnixMilli(), at.UnixMilli()
	querier, err := q.Queryable().Querier(mint, maxt)
	if err != nil {
		return nil, err
	}
	defer q.closeRead(ctx, querier)
	samples, err := q.newest(ctx, querier, &storage.SelectHints{Start: mint, End: maxt}, selectors)
	if err != nil {
		return nil, err
	}
	body := &bytes.Buffer{}
	out := expfmt.NewEncoder(body, format)
	for _, family := range exposed(samples, format.FormatType() != expfmt.TypeTextPlain) {
		if err := out.Encode(family); err != nil {
			return nil, fmt.Errorf("encode %s: %w", family.GetName(), err)
		}
	}
	return body, nil
}

// newest returns the newest sample in the range of hints of each series that a selector matches, in the order of labels.
// Series whose newest sample is a stale marker are left out. Labels and histograms are valid until querier closes.
func (q *Querier) newest(
	ctx context.Context, querier storage.Querier, hints *storage.SelectHints, selectors [][]*labels.Matcher,
) ([]promql.Sample, error) {
	sets := make([]storage.SeriesSet, len(selectors))
	for i, matchers := range selectors {
		sets[i] = querier.Select(ctx, true, hints, matchers...)
	}
	set := timedSeries{storage.NewMergeSeriesSet(sets, 0, storage.ChainedSeriesMerge), ctx}
	var (
		out []promql.Sample
		it  chunkenc.Iterator
	)
	for set.Next() {
		series := set.At()
		it = series.Iterator(it)
		sample, ok, err := lastSample(it)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		sample.Metric = series.Labels()
		if out = append(out, sample); len(out) > q.cfg.MaxSamples {
			return nil, errkind.Wrap(errkind.Unprocessable, promql.ErrTooManySamples("federation"))
		}
	}
	q.logWarnings(ctx, "federate", set.Warnings())
	return out, set.Err()
}

// lastSample reads an iterator to its end. It is not ok without a sample and when the last one is a stale marker.
func lastSample(it chunkenc.Iterator) (s promql.Sample, ok bool, err error) {
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		if typ == chunkenc.ValFloat {
			s.T, s.F = it.At()
			s.H, ok = nil, !value.IsStaleNaN(s.F)
		} else {
			s.T, s.H = it.AtFloatHistogram(s.H)
			ok = !value.IsStaleNaN(s.H.Sum)
		}
	}
	return s, ok, it.Err()
}
