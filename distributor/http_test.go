package distributor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/klauspost/compress/s2"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/distributor/rw2"
	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/tenant"
)

const type2 = "application/x-protobuf;proto=" + rw2.Message

func TestNegotiation(t *testing.T) {
	for _, tc := range []struct {
		contentType, encoding string
		want                  format
	}{
		{"", "", format1},
		{"application/x-protobuf", "snappy", format1},
		{"application/x-protobuf", "", format1},
		{"application/x-protobuf;proto=prometheus.WriteRequest", "snappy", format1},
		{"application/x-protobuf;proto=io.prometheus.write.v2.Request", "snappy", format2},
		{"application/x-protobuf; charset=utf-8; proto=io.prometheus.write.v2.Request", "snappy", format2},
		{"Application/X-Protobuf", "snappy", format1},
		{"application/x-protobuf;proto=other.Request", "snappy", 0},
		{"application/x-protobuf;proto", "snappy", 0},
		{"application/json", "snappy", 0},
		{"application/x-protobuf", "gzip", 0},
		{"application/x-protobuf", "zstd", 0},
	} {
		got, err := negotiate(http.Header{"Content-Type": {tc.contentType}, "Content-Encoding": {tc.encoding}})
		require.Equal(t, tc.want, got, "%+v: %v", tc, err)
		if tc.want == 0 {
			require.Equal(t, errkind.UnsupportedMedia, errkind.Of(err))
		}
	}
}

func TestStatusesBeforeTheBody(t *testing.T) {
	d, _ := newTest(t, pusherFunc(acceptAll), openLimits())
	ctx := tenant.WithID(t.Context(), "t")
	w := serve(d, httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil))
	require.Equal(t, http.StatusMethodNotAllowed, w.Code)
	require.Equal(t, http.MethodPost, w.Header().Get("Allow"))

	w = serve(d, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil))
	require.Equal(t, http.StatusUnauthorized, w.Code)

	w = postRaw(t, d, "text/plain", nil)
	require.Equal(t, http.StatusUnsupportedMediaType, w.Code)
}

func TestAllStored(t *testing.T) {
	d, reg := newTest(t, pusherFunc(acceptAll), openLimits())
	w := post(t, d, one("__name__", "up"))
	require.Equal(t, http.StatusOK, w.Code, w.Body.String())
	require.Zero(t, w.Body.Len())
	require.Empty(t, w.Header().Get(headerSamples))

	w = post(t, d, toFormat2(one("__name__", "up")))
	require.Equal(t, http.StatusNoContent, w.Code, w.Body.String())
	require.Equal(t, "1", w.Header().Get(headerSamples))
	require.Equal(t, "0", w.Header().Get(headerHistograms))
	require.Equal(t, "0", w.Header().Get(headerExemplars))
	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP duramen_distributor_received_samples_total Samples received, whatever became of them. Its rate is the tenant's load; a fall means that its senders are gone.
# TYPE duramen_distributor_received_samples_total counter
duramen_distributor_received_samples_total{tenant="t"} 2
`), "duramen_distributor_received_samples_total"))
}

func TestBadBodies(t *testing.T) {
	d, _ := newTest(t, pusherFunc(acceptAll), openLimits())
	for name, body := range map[string][]byte{
		"empty":                  {},
		"not snappy":             []byte("hello, this is not snappy at all"),
		"not protobuf":           snappy.Encode(nil, []byte("\x0a\xffhello")),
		"malformed labels":       snappy.Encode(nil, []byte{0x0a, 4, 0x0a, 2, 0x0a, 9}),
		"another message":        snappy.Encode(nil, []byte{0x22, 0, 0x2a, 0}),
		"a repeat of s2":         {8, 0 << 2, 'a', 0x01 | 3<<2, 0},
		"a stream, not a block":  streamOf([]byte{0x0a, 0}),
		"promises much, has few": append(binary.AppendUvarint(nil, 60<<20), 1, 2, 3),
	} {
		for _, contentType := range []string{"application/x-protobuf", type2} {
			if name == "another message" && contentType == type2 {
				continue
			}
			if name == "malformed labels" && contentType == type2 {
				continue
			}
			w := postRaw(t, d, contentType, body)
			require.Equal(t, http.StatusBadRequest, w.Code, "%s, %s: %s", name, contentType, w.Body)
			if contentType == type2 {
				require.Equal(t, "0", w.Header().Get(headerSamples), name)
			}
		}
	}
	require.Zero(t, d.inflight.Load())
}

func streamOf(b []byte) []byte {
	var out strings.Builder
	w := snappy.NewBufferedWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return []byte(out.String())
}

func TestExtensionsOfSnappyAreRefused(t *testing.T) {
	body, err := toFormat2(scrape(500, 0)).Marshal()
	require.NoError(t, err)
	encoded := s2.EncodeBest(nil, body)
	if _, err := snappy.Decode(nil, encoded); err == nil {
		t.Skip("the encoder used no extension")
	}
	d, _ := newTest(t, pusherFunc(acceptAll), openLimits())
	require.Equal(t, http.StatusBadRequest, postRaw(t, d, type2, encoded).Code)
}

func TestSizesAreCheckedBeforeMemoryIsSpent(t *testing.T) {
	l := openLimits()
	l.requestBytes = 1 << 20
	d, _ := newTest(t, pusherFunc(acceptAll), l)
	allocated := func(f func()) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	t.Run("a header that promises 4 GiB", func(t *testing.T) {
		body := append(binary.AppendUvarint(nil, math.MaxUint32), make([]byte, 100)...)
		require.Less(t, allocated(func() {
			w := postRaw(t, d, "application/x-protobuf", body)
			require.Equal(t, http.StatusRequestEntityTooLarge, w.Code)
			require.Contains(t, w.Body.String(), "max_request_bytes is 1048576")
		}), uint64(1<<20))
	})
	t.Run("a header that promises what its body cannot hold", func(t *testing.T) {
		body := append(binary.AppendUvarint(nil, 1<<20), make([]byte, 100)...)
		require.Less(t, allocated(func() {
			require.Equal(t, http.StatusBadRequest, postRaw(t, d, "application/x-protobuf", body).Code)
		}), uint64(1<<19))
	})
	t.Run("a Content-Length above the limit", func(t *testing.T) {
		req := httptest.NewRequestWithContext(tenant.WithID(t.Context(), "t"), http.MethodPost, "/", neverRead{})
		req.ContentLength = 100 << 20
		require.Equal(t, http.StatusRequestEntityTooLarge, serve(d, req).Code)
	})
	t.Run("a body without a length that never ends", func(t *testing.T) {
		req := httptest.NewRequestWithContext(tenant.WithID(t.Context(), "t"), http.MethodPost, "/", endless{})
		req.ContentLength = -1
		require.Equal(t, http.StatusRequestEntityTooLarge, serve(d, req).Code)
	})
	t.Run("a small body that stands for many series", func(t *testing.T) {
		body := snappy.Encode(nil, []byte(strings.Repeat("\x0a\x00", 500_000)))
		require.Less(t, allocated(func() {
			w := postRaw(t, d, "application/x-protobuf", body)
			require.Equal(t, http.StatusRequestEntityTooLarge, w.Code, w.Body.String())
		}), uint64(32<<20))
	})
	t.Run("a small body that stands for large labels", func(t *testing.T) {
		w := &writev2.Request{Symbols: []string{"", "__name__", "x", "a", strings.Repeat("v", 100_000)}}
		for range 1000 {
			w.Timeseries = append(w.Timeseries, writev2.TimeSeries{
				LabelsRefs: []uint32{1, 2, 3, 4}, Samples: []writev2.Sample{{Timestamp: 1}},
			})
		}
		require.Less(t, allocated(func() {
			require.Equal(t, http.StatusRequestEntityTooLarge, post(t, d, w).Code)
		}), uint64(16<<20))
	})
	require.Zero(t, d.inflight.Load())
}

type neverRead struct{}

func (neverRead) Read([]byte) (int, error) { panic("the body was read") }

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestInflightLimit(t *testing.T) {
	entered, leave := make(chan struct{}, 10), make(chan struct{})
	slow := pusherFunc(func(ctx context.Context, id string, b *duramenpb.Batch, r *duramenpb.PushResult) error {
		entered <- struct{}{}
		<-leave
		return acceptAll(ctx, id, b, r)
	})
	d, _ := newTest(t, slow, openLimits())
	body := string(snappy.Encode(nil, marshal1(t, scrape(1000, 0))))
	first := httptest.NewRequestWithContext(tenant.WithID(t.Context(), "t"), http.MethodPost, "/", strings.NewReader(body))
	done := make(chan int)
	go func() { done <- serve(d, first).Code }()
	<-entered
	d.cfg.MaxInflightBytes = d.inflight.Load() * 3 / 2
	answer := post(t, d, scrape(1000, 0))
	require.Equal(t, http.StatusServiceUnavailable, answer.Code)
	require.Contains(t, answer.Body.String(), "max-inflight-bytes is "+strconv.FormatInt(d.cfg.MaxInflightBytes, 10))
	after, err := strconv.Atoi(answer.Header().Get(headerRetryAfter))
	require.NoError(t, err)
	require.GreaterOrEqual(t, after, 1)
	close(leave)
	require.Equal(t, http.StatusOK, <-done)
	require.Zero(t, d.inflight.Load())

	require.Equal(t, http.StatusRequestEntityTooLarge, post(t, d, scrape(5000, 0)).Code,
		"a request that can never fit must not be asked for again")
}

func TestErrorsOfThePusher(t *testing.T) {
	var fail error
	d, _ := newTest(t, pusherFunc(func(context.Context, string, *duramenpb.Batch, *duramenpb.PushResult) error {
		return fail
	}), openLimits())
	for _, tc := range []struct {
		err    error
		status int
	}{
		{errkind.New(errkind.Unavailable, "replaying"), http.StatusServiceUnavailable},
		{errors.New("a bug"), http.StatusInternalServerError},
		{context.Canceled, http.StatusServiceUnavailable}, // Not the sender's own: it must come again.
		{context.DeadlineExceeded, http.StatusServiceUnavailable},
		{errkind.New(errkind.Invalid, "no such tenant"), http.StatusBadRequest},
	} {
		fail = tc.err
		w := post(t, d, toFormat2(one("__name__", "up")))
		require.Equal(t, tc.status, w.Code, tc.err)
		require.Equal(t, "0", w.Header().Get(headerSamples))
		require.Equal(t, tc.status == http.StatusServiceUnavailable, w.Header().Get(headerRetryAfter) != "")
	}
}

func TestSenderThatWentAway(t *testing.T) {
	d, _ := newTest(t, pusherFunc(func(context.Context, string, *duramenpb.Batch, *duramenpb.PushResult) error {
		return errors.New("pushed for nobody")
	}), openLimits())
	ctx, cancel := context.WithCancel(tenant.WithID(t.Context(), "t"))
	cancel()
	body := snappy.Encode(nil, marshal1(t, one("__name__", "up")))
	w := serve(d, httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader(string(body))))
	require.Equal(t, errkind.Canceled.HTTPStatus(), w.Code)
}

type brokenBody struct{ err error }

func (b brokenBody) Read([]byte) (int, error) { return 0, b.err }

func TestBrokenBody(t *testing.T) {
	d, _ := newTest(t, pusherFunc(acceptAll), openLimits())
	for err, status := range map[error]int{
		io.ErrUnexpectedEOF:             http.StatusServiceUnavailable,
		errors.New("malformed chunk"):   http.StatusBadRequest,
		&http.MaxBytesError{Limit: 100}: http.StatusRequestEntityTooLarge,
	} {
		req := httptest.NewRequestWithContext(tenant.WithID(t.Context(), "t"), http.MethodPost, "/", brokenBody{err})
		require.Equal(t, status, serve(d, req).Code, err)
	}
}

func TestRateLimit(t *testing.T) {
	l := openLimits()
	l.rate, l.burst = 100, 1000
	stored := true
	d, _ := newTest(t, pusherFunc(func(ctx context.Context, id string, b *duramenpb.Batch,
		r *duramenpb.PushResult,
	) error {
		if !stored {
			return errkind.New(errkind.Unavailable, "not now")
		}
		return acceptAll(ctx, id, b, r)
	}), l)
	at := time.Now()
	d.now = func() time.Time { return at }

	stored = false
	for range 5 {
		require.Equal(t, http.StatusServiceUnavailable, post(t, d, scrape(900, 0)).Code, "failures cost no rate")
	}
	stored = true
	require.Equal(t, http.StatusOK, post(t, d, scrape(900, 0)).Code)
	require.Equal(t, http.StatusOK, post(t, d, scrape(900, 0)).Code, "100 left")
	w := post(t, d, toFormat2(scrape(10, 0)))
	require.Equal(t, http.StatusTooManyRequests, w.Code)
	require.Contains(t, w.Body.String(), "ingestion_rate of 100")
	after, err := strconv.Atoi(w.Header().Get(headerRetryAfter))
	require.NoError(t, err)
	require.InDelta(t, 12, after, 5, "800 samples over at 100 a second, jittered")

	req := httptest.NewRequestWithContext(tenant.WithID(t.Context(), "t"), http.MethodPost, "/", neverRead{})
	require.Equal(t, http.StatusTooManyRequests, serve(d, req).Code, "refused before the body is read")
	at = at.Add(9 * time.Second)
	require.Equal(t, http.StatusOK, post(t, d, scrape(10, 0)).Code)
	l.rate = 0
	require.Equal(t, http.StatusOK, post(t, d, scrape(5000, 0)).Code)
}

func TestRefusalsNameReasonSeriesAndLimit(t *testing.T) {
	l := openLimits()
	l.names, l.nameLength, l.valueLength, l.buckets = 4, 10, 20, 2
	now := time.Now().UnixMilli()
	histogram := func(h prompb.Histogram) prompb.TimeSeries {
		h.Timestamp = now
		return prompb.TimeSeries{Labels: lset("__name__", "h"), Histograms: []prompb.Histogram{h}}
	}
	series := func(kv ...string) prompb.TimeSeries {
		return prompb.TimeSeries{Labels: lset(kv...), Samples: []prompb.Sample{{Value: 1, Timestamp: now}}}
	}
	for _, tc := range []struct {
		series prompb.TimeSeries
		want   []string // empty: accepted
	}{
		{series("__name__", "up", "a", "b"), nil},
		{series("b", "c", "a", "b", "__name__", "up"), nil}, // Prometheus sorts, so it is accepted.
		{series("__name__", "up", "a", "", "b", "", "c", "", "d", "", "e", "f"), nil},
		{series("__name__", "up", "héé", "ü"), nil},
		{series("a", "b"), []string{"missing_metric_name: 1 samples", `{a="b"}`}},
		{series(), []string{"missing_metric_name"}},
		{series("__name__", ""), []string{"missing_metric_name"}},
		{series("__name__", "up", "", "x"), []string{"invalid_label_name", `the value "x" has no name`}},
		{series("__name__", "up", "", ""), []string{"invalid_label_name"}},
		{series("__name__", "up", "a\xff", "x"), []string{"invalid_label_name", `"a\xff"`}},
		{series("__name__", "up", "a", "x\xff"), []string{"invalid_label_value", `"x\xff"`}},
		{series("__name__", "u\xffp"), []string{"invalid_label_value"}},
		{series("__name__", "up", "a", "x", "a", "y"), []string{"duplicate_label_name", `the label "a"`}},
		{series("a", "x", "__name__", "up", "a", ""), []string{"duplicate_label_name"}},
		{series("__name__", "up", "a", "1", "b", "2", "c", "3", "d", "4"), []string{
			"too_many_labels", "5 labels",
			"max_label_names is 4",
		}},
		{series("__name__", "up", "long_name_11", "1"), []string{
			"label_name_too_long", "12 bytes",
			"max_label_name_length is 10",
		}},
		{series("__name__", "up", "a", strings.Repeat("v", 21)), []string{
			"label_value_too_long", "21 bytes",
			"max_label_value_length is 20",
		}},
		{prompb.TimeSeries{
			Labels: lset("__name__", "up"), Samples: []prompb.Sample{{Timestamp: now + 3600_000}},
		}, []string{"too_far_in_future", "future_tolerance", `{__name__="up"}`}},
		{
			prompb.TimeSeries{Labels: lset("__name__", "up"), Samples: []prompb.Sample{{Timestamp: math.MaxInt64}}},
			[]string{"too_far_in_future", "9223372036854775807"},
		},
		{
			prompb.TimeSeries{Labels: lset("__name__", "up"), Samples: []prompb.Sample{{Timestamp: math.MinInt64}}},
			[]string{"too_old", "-9223372036854775808 ms"},
		},
		{prompb.TimeSeries{Labels: lset("__name__", "up"), Samples: []prompb.Sample{{Timestamp: oldestTimestamp}}}, nil},
		{histogram(prompb.Histogram{Count: &prompb.Histogram_CountInt{CountInt: 0}}), nil},
		{
			histogram(prompb.Histogram{Count: &prompb.Histogram_CountInt{CountInt: 5}}),
			[]string{"invalid_histogram", "5"},
		},
		{histogram(prompb.Histogram{Schema: 60}), []string{"invalid_histogram", "schema"}},
		{histogram(prompb.Histogram{Schema: -6}), []string{"invalid_histogram", "schema"}},
		{histogram(prompb.Histogram{ // Reduced to schema 8, as Prometheus does.
			Schema: 9, Count: &prompb.Histogram_CountInt{CountInt: 2},
			PositiveSpans: []prompb.BucketSpan{{Offset: 1, Length: 2}}, PositiveDeltas: []int64{1, 0},
		}), nil},
		{histogram(prompb.Histogram{
			Count:         &prompb.Histogram_CountInt{CountInt: 3},
			PositiveSpans: []prompb.BucketSpan{{Length: 3}}, PositiveDeltas: []int64{1, 0, 0},
		}), []string{"histogram_too_many_buckets", "3 buckets", "max_histogram_buckets is 2"}},
	} {
		w := &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{tc.series, series("__name__", "fine")}}
		for _, message := range []any{w, toFormat2(w)} {
			d, _ := newTest(t, pusherFunc(acceptAll), l)
			for _, again := range []string{"fresh", "cached"} {
				answer := post(t, d, message)
				what := fmt.Sprintf("%v, %s, %T: %s", tc.series, again, message, answer.Body)
				if tc.want == nil {
					require.Less(t, answer.Code, 300, what)
					continue
				}
				require.Equal(t, http.StatusBadRequest, answer.Code, what)
				require.Contains(t, answer.Body.String(), "1 of 2 samples are refused for good, the rest is stored")
				for _, part := range tc.want {
					require.Contains(t, answer.Body.String(), part, what)
				}
				if _, two := message.(*writev2.Request); two {
					require.Equal(t, "1", answer.Header().Get(headerSamples))
				}
			}
		}
	}
}

func TestReferencesOutsideTheTableConcernTheirSeriesAlone(t *testing.T) {
	now := time.Now().UnixMilli()
	sample := []writev2.Sample{{Value: 1, Timestamp: now}}
	w := &writev2.Request{
		Symbols: []string{"", "__name__", "up"},
		Timeseries: []writev2.TimeSeries{
			{LabelsRefs: []uint32{1, 2}, Samples: sample},
			{LabelsRefs: []uint32{1, 7}, Samples: sample},
			{LabelsRefs: []uint32{1, 2, 1}, Samples: sample},
			{LabelsRefs: []uint32{1, 2}, Samples: sample, Metadata: writev2.Metadata{HelpRef: 99}},
			{LabelsRefs: []uint32{1, 2}, Samples: sample, Exemplars: []writev2.Exemplar{{LabelsRefs: []uint32{1, 50}}}},
		},
	}
	d, _ := newTest(t, pusherFunc(acceptAll), openLimits())
	answer := post(t, d, w)
	require.Equal(t, http.StatusBadRequest, answer.Code)
	require.Contains(t, answer.Body.String(), "invalid_label_reference: 2 samples")
	require.Contains(t, answer.Body.String(), "reference 7 lies outside the table of 3 symbols")
	require.Equal(t, "3", answer.Header().Get(headerSamples))
	require.Equal(t, "0", answer.Header().Get(headerExemplars))
}

func TestRetriesAreCounted(t *testing.T) {
	d, _ := newTest(t, pusherFunc(acceptAll), openLimits())
	body := string(snappy.Encode(nil, marshal1(t, one("__name__", "up"))))
	for _, attempt := range []string{"", "0", "1", "7"} {
		req := httptest.NewRequestWithContext(tenant.WithID(t.Context(), "t"), http.MethodPost, "/",
			strings.NewReader(body))
		req.Header.Set(headerRetry, attempt)
		require.Equal(t, http.StatusOK, serve(d, req).Code)
	}
	require.InDelta(t, 2, testutil.ToFloat64(d.metrics.retries), 0)
}
