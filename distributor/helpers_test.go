package distributor

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/distributor/rw2"
	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/tenant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testLimits are limits that a test changes as it goes.
type testLimits struct {
	epoch                          uint64
	rate                           float64
	burst                          int
	names, nameLength, valueLength int
	requestBytes, buckets          int
	future                         time.Duration
}

func (l *testLimits) Epoch(string) uint64                  { return l.epoch }
func (l *testLimits) IngestionRate(string) float64         { return l.rate }
func (l *testLimits) IngestionBurst(string) int            { return l.burst }
func (l *testLimits) MaxLabelNames(string) int             { return l.names }
func (l *testLimits) MaxLabelNameLength(string) int        { return l.nameLength }
func (l *testLimits) MaxLabelValueLength(string) int       { return l.valueLength }
func (l *testLimits) MaxRequestBytes(string) int           { return l.requestBytes }
func (l *testLimits) MaxHistogramBuckets(string) int       { return l.buckets }
func (l *testLimits) FutureTolerance(string) time.Duration { return l.future }

func openLimits() *testLimits {
	return &testLimits{epoch: 1, requestBytes: 64 << 20, future: 5 * time.Minute}
}

// The limits of package tenant are the ones in production.
var _ Limits = (*tenant.Limits)(nil)

// pusherFunc is a Pusher made of a function.
type pusherFunc func(ctx context.Context, id string, b *duramenpb.Batch, r *duramenpb.PushResult) error

func (f pusherFunc) Push(ctx context.Context, id string, b *duramenpb.Batch, r *duramenpb.PushResult) error {
	return f(ctx, id, b, r)
}

// acceptAll stores everything and names series by their place.
func acceptAll(_ context.Context, _ string, b *duramenpb.Batch, r *duramenpb.PushResult) error {
	r.Incarnation = 7
	for i := range b.Series {
		r.Refs = append(r.Refs, uint64(i)+1)
	}
	r.Floats, r.Histograms, r.Exemplars = len(b.Floats), len(b.Histograms), len(b.Exemplars)
	return nil
}

func newTest(t testing.TB, p Pusher, l Limits) (*Distributor, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	d, err := New(Config{SeriesCacheBytes: 64 << 20, MaxInflightBytes: 1 << 30}, p, l,
		slog.New(slog.DiscardHandler), reg)
	require.NoError(t, err)
	return d, reg
}

// post sends a message of either format through the handler.
func post(t testing.TB, d *Distributor, message any) *httptest.ResponseRecorder {
	t.Helper()
	var (
		body        []byte
		err         error
		contentType = "application/x-protobuf"
	)
	switch m := message.(type) {
	case *prompb.WriteRequest:
		body, err = m.Marshal()
	case *writev2.Request:
		body, err = m.Marshal()
		contentType += ";proto=" + rw2.Message
	default:
		require.Fail(t, "unknown message")
	}
	require.NoError(t, err)
	return postRaw(t, d, contentType, snappy.Encode(nil, body))
}

func postRaw(t testing.TB, d *Distributor, contentType string, body []byte) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequest(http.MethodPost, "/api/v1/push", bytes.NewReader(body))
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Content-Encoding", "snappy")
	return serve(d, req.WithContext(tenant.WithID(req.Context(), "t")))
}

func serve(d *Distributor, req *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	d.Handler().ServeHTTP(w, req)
	return w
}

// lset makes label protos from names and values.
func lset(kv ...string) (out []prompb.Label) {
	for i := 0; i < len(kv); i += 2 {
		out = append(out, prompb.Label{Name: kv[i], Value: kv[i+1]})
	}
	return out
}

// one returns a request of one float sample now.
func one(kv ...string) *prompb.WriteRequest {
	return &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
		Labels: lset(kv...), Samples: []prompb.Sample{{Value: 1, Timestamp: time.Now().UnixMilli()}},
	}}}
}

// toFormat2 turns a request of format 1.0 into one of 2.0.
func toFormat2(w *prompb.WriteRequest) *writev2.Request {
	table := writev2.NewSymbolTable()
	out := &writev2.Request{}
	for _, ts := range w.Timeseries {
		var s writev2.TimeSeries
		for _, l := range ts.Labels {
			s.LabelsRefs = append(s.LabelsRefs, table.Symbolize(l.Name), table.Symbolize(l.Value))
		}
		for _, x := range ts.Samples {
			s.Samples = append(s.Samples, writev2.Sample{Value: x.Value, Timestamp: x.Timestamp})
		}
		for _, x := range ts.Histograms {
			b, _ := x.Marshal()
			var h writev2.Histogram
			_ = h.Unmarshal(b)
			s.Histograms = append(s.Histograms, h)
		}
		for _, x := range ts.Exemplars {
			e := writev2.Exemplar{Value: x.Value, Timestamp: x.Timestamp}
			for _, l := range x.Labels {
				e.LabelsRefs = append(e.LabelsRefs, table.Symbolize(l.Name), table.Symbolize(l.Value))
			}
			s.Exemplars = append(s.Exemplars, e)
		}
		out.Timeseries = append(out.Timeseries, s)
	}
	out.Symbols = table.Symbols()
	return out
}

// scrape returns series as a Kubernetes target's, 12 labels each, one sample.
func scrape(series int, from int) *prompb.WriteRequest {
	w := &prompb.WriteRequest{}
	now := time.Now().UnixMilli()
	for i := from; i < from+series; i++ {
		w.Timeseries = append(w.Timeseries, prompb.TimeSeries{
			Labels: lset(
				"__name__", fmt.Sprintf("container_metric_%d_total", i%40), "cluster", "prod-eu-1", "container", "app",
				"endpoint", "https-metrics", "id", fmt.Sprintf("/kubepods/burstable/pod%08x/%016x", i*7919, i*104729),
				"image", "registry.example.com/team/app:v1.2.3", "instance", fmt.Sprintf("10.0.%d.%d:10250",
					i/40%256, i%40),
				"job", "kubelet", "namespace", fmt.Sprintf("ns-%d", i%17), "node", fmt.Sprintf("node-%d", i/40),
				"pod", fmt.Sprintf("app-%d-%x", i/40, i/40*7919), "service", "kubelet",
			),
			Samples: []prompb.Sample{{Value: float64(i) * 1.37, Timestamp: now}},
		})
	}
	return w
}
