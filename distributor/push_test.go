package distributor

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/duramenpb"
)

// recorder keeps what it was pushed, as far as a Pusher may, and copies the rest.
type recorder struct {
	batches  []duramenpb.Batch
	life     uint64
	restarts uint64
}

func (p *recorder) Push(ctx context.Context, id string, b *duramenpb.Batch, r *duramenpb.PushResult) error {
	c := *b
	c.Series = append([]duramenpb.Series(nil), b.Series...)
	c.Floats = append([]duramenpb.Float(nil), b.Floats...)
	c.Histograms = append([]duramenpb.Histogram(nil), b.Histograms...)
	c.Exemplars = append([]duramenpb.Exemplar(nil), b.Exemplars...)
	c.Metadata = append([]duramenpb.Metadata(nil), b.Metadata...)
	p.batches = append(p.batches, c)
	err := acceptAll(ctx, id, b, r)
	r.Incarnation += p.life
	r.Restarts = p.restarts
	return err
}

func (p *recorder) last() *duramenpb.Batch { return &p.batches[len(p.batches)-1] }

func TestKnownSeriesGoByReference(t *testing.T) {
	p := &recorder{}
	l := openLimits()
	d, _ := newTest(t, p, l)
	w := scrape(50, 0)
	for _, message := range []any{w, toFormat2(w)} {
		require.Less(t, post(t, d, message).Code, 300)
		require.Zero(t, p.last().Incarnation)
		for i, s := range p.last().Series {
			require.Zero(t, s.Ref)
			require.Equal(t, w.Timeseries[i].Labels, prompb.FromLabels(s.Labels, nil))
			require.Equal(t, i+1, s.FloatsEnd)
		}
		require.Less(t, post(t, d, message).Code, 300)
		require.Equal(t, 7+p.life, p.last().Incarnation)
		for i, s := range p.last().Series {
			require.EqualValues(t, i+1, s.Ref)
			require.True(t, s.Labels.IsEmpty())
		}
	}
	l.epoch++
	require.Less(t, post(t, d, w).Code, 300)
	require.Zero(t, p.last().Series[0].Ref, "validated anew when the limits changed")
}

func TestOldReferencesAreNotSentToANewLife(t *testing.T) {
	p := &recorder{}
	d, _ := newTest(t, p, openLimits())
	a, b := one("__name__", "a"), one("__name__", "b")
	post(t, d, a)
	p.life = 100
	post(t, d, b) // The answer names another life.
	post(t, d, a)
	require.Zero(t, p.last().Series[0].Ref)
	require.Zero(t, p.last().Incarnation)
	post(t, d, b)
	require.EqualValues(t, 107, p.last().Incarnation)
}

func TestMetadataOf1(t *testing.T) {
	p := &recorder{}
	d, _ := newTest(t, p, openLimits())
	w := &prompb.WriteRequest{Metadata: []prompb.MetricMetadata{
		{Type: prompb.MetricMetadata_COUNTER, MetricFamilyName: "a_total", Help: "A.", Unit: "seconds"},
		{Type: 99, MetricFamilyName: "b"},
		{Help: "of nothing"},
	}}
	require.Equal(t, http.StatusOK, post(t, d, w).Code)
	require.Equal(t, []duramenpb.Metadata{
		{Family: "a_total", Type: "counter", Help: "A.", Unit: "seconds"}, {Family: "b", Type: "unknown"},
	}, p.last().Metadata)
}

// TestMetadataIsBounded: long texts are cut between characters, and a family that cannot be one is dropped.
func TestMetadataIsBounded(t *testing.T) {
	p := &recorder{}
	d, _ := newTest(t, p, openLimits())
	post(t, d, &prompb.WriteRequest{Metadata: []prompb.MetricMetadata{
		{MetricFamilyName: "a", Help: "x" + strings.Repeat("é", maxHelp), Unit: strings.Repeat("s", maxUnit+1)},
		{MetricFamilyName: strings.Repeat("b", maxHelp+1)},
	}})
	require.Equal(t, []duramenpb.Metadata{{
		Family: "a", Type: "unknown", Help: "x" + strings.Repeat("é", maxHelp/2-1), Unit: strings.Repeat("s", maxUnit),
	}}, p.last().Metadata)
}

func TestMetadataOf2IsPassedOnOnce(t *testing.T) {
	p := &recorder{}
	d, _ := newTest(t, p, openLimits())
	now := time.Now().UnixMilli()
	request := func(help string) *writev2.Request {
		table := writev2.NewSymbolTable()
		var w writev2.Request
		for i := range 3 {
			w.Timeseries = append(w.Timeseries, writev2.TimeSeries{
				LabelsRefs: table.SymbolizeLabels(labels.FromStrings("__name__", "h_bucket", "le", fmt.Sprint(i)), nil),
				Samples:    []writev2.Sample{{Value: 1, Timestamp: now, StartTimestamp: now - 1000}},
				Metadata: writev2.Metadata{
					Type:    writev2.Metadata_METRIC_TYPE_HISTOGRAM,
					HelpRef: table.Symbolize(help),
				},
			})
		}
		w.Symbols = table.Symbols()
		return &w
	}
	want := func(help string) []duramenpb.Metadata {
		return []duramenpb.Metadata{{Family: "h", Type: "histogram", Help: help}}
	}
	post(t, d, request("one"))
	require.Equal(t, want("one"), p.last().Metadata)
	require.Equal(t, now-1000, p.last().Floats[0].ST)
	post(t, d, request("one"))
	require.Empty(t, p.last().Metadata)
	post(t, d, request("two"))
	require.Equal(t, want("two"), p.last().Metadata)
	require.NotZero(t, p.last().Series[0].Ref)
	post(t, d, request("two"))
	require.Empty(t, p.last().Metadata)

	p.restarts++ // of a replica, which the answer tells
	post(t, d, request("two"))
	require.Empty(t, p.last().Metadata)
	post(t, d, request("two"))
	require.Equal(t, want("two"), p.last().Metadata, "the replica may have forgotten it")
	require.NotZero(t, p.last().Series[0].Ref)
	post(t, d, request("two"))
	require.Empty(t, p.last().Metadata)
}

func TestExemplars(t *testing.T) {
	now := time.Now().UnixMilli()
	w := &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{
		{
			Labels: lset("__name__", "a"), Samples: []prompb.Sample{{Value: 1, Timestamp: now}},
			Exemplars: []prompb.Exemplar{
				{Labels: lset("trace_id", "1"), Value: 2, Timestamp: now},
				{Labels: lset("x", "1", "x", "2"), Value: 2, Timestamp: now},
				{Labels: lset("trace_id", "2"), Value: 2, Timestamp: now + 3600_000},
				{Value: 3, Timestamp: now},
			},
		},
		{Labels: lset("__name__", "b")}, // Nothing of it goes on.
		{Labels: lset("__name__", "c"), Exemplars: []prompb.Exemplar{{Labels: lset("span", "9"), Timestamp: now}}},
	}}
	want := []duramenpb.Exemplar{
		{T: now, V: 2, Labels: labels.FromStrings("trace_id", "1")},
		{T: now, V: 3},
		{T: now, Labels: labels.FromStrings("span", "9")},
	}
	for _, message := range []any{w, toFormat2(w)} {
		p := &recorder{}
		d, _ := newTest(t, p, openLimits())
		answer := post(t, d, message)
		require.Less(t, answer.Code, 300, "exemplars never fail a request: %s", answer.Body)
		b := p.last()
		require.Equal(t, want, b.Exemplars)
		require.Len(t, b.Series, 2)
		require.Equal(t, []int{2, 3}, []int{b.Series[0].ExemplarsEnd, b.Series[1].ExemplarsEnd})
		require.Equal(t, "c", b.Series[1].Labels.Get("__name__"))
	}
}

func TestNothingIsPushedWhenNothingIsLeft(t *testing.T) {
	p := &recorder{}
	d, _ := newTest(t, p, openLimits())
	require.Equal(t, http.StatusOK, post(t, d, &prompb.WriteRequest{}).Code)
	require.Equal(t, http.StatusBadRequest, post(t, d, one("no", "name")).Code)
	require.Empty(t, p.batches)
}

func TestLabelsDoNotAliasTheBody(t *testing.T) {
	p := &recorder{}
	d, _ := newTest(t, p, openLimits())
	post(t, d, scrape(20, 0))
	before := p.batches[0].Series[7].Labels.String()
	for i := range 20 { // The buffers of the first request are used again.
		post(t, d, scrape(20, 1000*i))
	}
	require.Equal(t, before, p.batches[0].Series[7].Labels.String())
}

func TestMetadataDoesNotAliasTheBody(t *testing.T) {
	p := &recorder{}
	d, _ := newTest(t, p, openLimits())
	request := func(help string) *writev2.Request {
		return &writev2.Request{
			Symbols: []string{"", "__name__", "metric_of_" + help, help},
			Timeseries: []writev2.TimeSeries{{
				LabelsRefs: []uint32{1, 2}, Metadata: writev2.Metadata{Type: 1, HelpRef: 3, UnitRef: 3},
			}},
		}
	}
	post(t, d, request("aaaa"))
	for i := range 20 { // The buffers of the first request are used again.
		post(t, d, request(fmt.Sprintf("b%03d", i)))
	}
	require.Equal(t, duramenpb.Metadata{Family: "metric_of_aaaa", Type: "counter", Help: "aaaa", Unit: "aaaa"},
		p.batches[0].Metadata[0])
}

func TestRequestsWithFullCacheAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates, and makes pools forget")
	}
	d, _ := newTest(t, pusherFunc(numbering), openLimits())
	w := scrape(500, 0)
	for f, body := range map[format][]byte{
		format1: snappy.Encode(nil, marshal1(t, w)), format2: snappy.Encode(nil, marshal2(t, toFormat2(w))),
	} {
		push := func() {
			if err := pushOnce(d, f, body); err != nil {
				t.Error(err)
			}
		}
		push()
		require.Zero(t, testing.AllocsPerRun(50, push), "format %s", f)
	}
}
