package querier

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/tenant"
)

const (
	samples  = prompb.ReadRequest_SAMPLES
	streamed = prompb.ReadRequest_STREAMED_XOR_CHUNKS
)

// stockRead is Prometheus' handler of remote read over the whole TSDB.
func stockRead(p *pair) http.Handler {
	return remote.NewReadHandler(
		nopLog, nil, p.whole, func() config.Config { return config.Config{} }, 50_000_000, 10, 1<<20)
}

func readRequest(t testing.TB, accept []prompb.ReadRequest_ResponseType, queries ...*prompb.Query) []byte {
	t.Helper()
	raw, err := (&prompb.ReadRequest{Queries: queries, AcceptedResponseTypes: accept}).Marshal()
	require.NoError(t, err)
	return snappy.Encode(nil, raw)
}

// readQuery selects by "name=value" matchers, with "=" for equal and "=~" for a regular expression.
func readQuery(mint, maxt int64, matchers ...*labels.Matcher) *prompb.Query {
	list, err := remote.ToLabelMatchers(matchers)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return &prompb.Query{StartTimestampMs: mint, EndTimestampMs: maxt, Matchers: list}
}

func read(t testing.TB, h http.Handler, body []byte) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/prometheus/api/v1/read", bytes.NewReader(body))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r.WithContext(tenant.WithID(r.Context(), tenantID)))
	return w
}

// readSeries is one series of an answer, its samples as text.
type readSeries struct {
	query   int
	labels  string
	samples []string
}

func sampleText(t int64, v float64) string { return fmt.Sprintf("%d %x", t, math.Float64bits(v)) }

// histogramText has all of a histogram but its hint on counter resets, which depends on where blocks end.
func histogramText(h prompb.Histogram) string {
	return fmt.Sprintf("%d %T %s %v", h.Timestamp, h.Count, h.ToFloatHistogram(), h.CustomValues)
}

func decodeSamples(t testing.TB, w *httptest.ResponseRecorder) (out []readSeries) {
	t.Helper()
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	require.Equal(t, "application/x-protobuf", w.Header().Get("Content-Type"))
	require.Equal(t, "snappy", w.Header().Get("Content-Encoding"))
	raw, err := snappy.Decode(nil, w.Body.Bytes())
	require.NoError(t, err)
	var resp prompb.ReadResponse
	require.NoError(t, resp.Unmarshal(raw))
	for i, result := range resp.Results {
		from := len(out)
		for _, ts := range result.Timeseries {
			s := readSeries{query: i, labels: prompbLabels(ts.Labels)}
			for _, f := range ts.Samples {
				s.samples = append(s.samples, sampleText(f.Timestamp, f.Value))
			}
			for _, h := range ts.Histograms {
				s.samples = append(s.samples, histogramText(h))
			}
			out = append(out, s)
		}
		slices.SortFunc(out[from:], func(a, b readSeries) int { return bytes.Compare([]byte(a.labels), []byte(b.labels)) })
	}
	return append(out, readSeries{query: len(resp.Results)}) // even empty ones count
}

// requireSame says what differs first; whole answers are too long to read.
func requireSame(t testing.TB, want, got []readSeries, name string) {
	t.Helper()
	require.Len(t, got, len(want), "series of %s", name)
	for i, w := range want {
		g := got[i]
		require.Equal(t, fmt.Sprint(w.query, w.labels), fmt.Sprint(g.query, g.labels), name)
		for j := range min(len(w.samples), len(g.samples)) {
			require.Equal(t, w.samples[j], g.samples[j], "%s, %s, sample %d", name, w.labels, j)
		}
		require.Len(t, g.samples, len(w.samples), "samples of %s in %s", w.labels, name)
	}
}

func prompbLabels(list []prompb.Label) string {
	b := labels.NewScratchBuilder(len(list))
	for _, l := range list {
		b.Add(l.Name, l.Value)
	}
	return b.Labels().String()
}

// decodeFrames reads a streamed answer and checks what the protocol promises: series in order, each in frames that follow
// one another, chunks in order without overlap, and their times those of their samples.
func decodeFrames(t testing.TB, body io.Reader) (out []readSeries, frames int, err error) {
	t.Helper()
	frame := remote.NewChunkedReader(body, 50_000_000, nil)
	var last labels.Labels
	maxt := int64(math.MinInt64)
	for {
		var resp prompb.ChunkedReadResponse
		if err := frame.NextProto(&resp); err != nil {
			if errors.Is(err, io.EOF) {
				return out, frames, nil
			}
			return out, frames, err
		}
		frames++
		require.Len(t, resp.ChunkedSeries, 1)
		b := labels.NewScratchBuilder(0)
		lset := resp.ChunkedSeries[0].ToLabels(&b, nil)
		index := int(resp.QueryIndex)
		if len(out) == 0 || out[len(out)-1].query != index || labels.Compare(last, lset) != 0 {
			if len(out) > 0 && out[len(out)-1].query == index {
				require.Negative(t, labels.Compare(last, lset), "series %s after %s", lset, last)
			}
			out = append(out, readSeries{query: index, labels: lset.String()})
			maxt = math.MinInt64
		}
		last = lset
		for _, c := range resp.ChunkedSeries[0].Chunks {
			require.Greater(t, c.MinTimeMs, maxt)
			maxt = c.MaxTimeMs
			text, first, end := decodeChunk(t, c)
			require.Equal(t, c.MinTimeMs, first)
			require.Equal(t, c.MaxTimeMs, end)
			out[len(out)-1].samples = append(out[len(out)-1].samples, text...)
		}
	}
}

func decodeChunk(t testing.TB, c prompb.Chunk) (out []string, mint, maxt int64) {
	t.Helper()
	chunk, err := chunkenc.FromData(chunkenc.Encoding(c.Type), c.Data)
	require.NoError(t, err)
	it := chunk.Iterator(nil)
	mint = math.MaxInt64
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		mint, maxt = min(mint, it.AtT()), it.AtT()
		switch typ {
		case chunkenc.ValFloat:
			out = append(out, sampleText(it.At()))
		case chunkenc.ValHistogram:
			ts, h := it.AtHistogram(nil)
			out = append(out, histogramText(prompb.FromIntHistogram(ts, h)))
		default:
			ts, h := it.AtFloatHistogram(nil)
			out = append(out, histogramText(prompb.FromFloatHistogram(ts, h)))
		}
	}
	require.NoError(t, it.Err())
	return out, mint, maxt
}

// readQueries are what both servers must answer alike.
func readQueries() map[string][]*prompb.Query {
	name := func(v string) *labels.Matcher { return labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, v) }
	re := func(v string) *labels.Matcher { return labels.MustNewMatcher(labels.MatchRegexp, labels.MetricName, v) }
	end := now.UnixMilli()
	out := map[string][]*prompb.Query{}
	for window, r := range map[string][2]int64{
		"all":               {end - 25*hour, end},
		"recent":            {end - 2*hour, end - hour},
		"old":               {end - 23*hour, end - 20*hour},
		"within chunks":     {end - 20*hour - 1234567, end - 7654321},
		"one sample":        {end - 12*hour, end - 12*hour},
		"between samples":   {end - 12*hour + 1, end - 12*hour + 2},
		"before everything": {0, end - 30*hour},
		"backwards":         {end, end - hour},
	} {
		for what, m := range map[string][]*labels.Matcher{
			"up":          {name("up")},
			"one of up":   {name("up"), labels.MustNewMatcher(labels.MatchEqual, "instance", "1")},
			"not":         {name("up"), labels.MustNewMatcher(labels.MatchNotEqual, "instance", "1")},
			"special":     {name("special")},
			"histograms":  {re("f?hist")},
			"nothing":     {name("nothing")},
			"only old":    {re("only_.*")},
			"regex":       {re("up|requests_total|weird.name")},
			"no matchers": {name("up"), labels.MustNewMatcher(labels.MatchNotRegexp, "instance", "0|2")},
		} {
			q := readQuery(r[0], r[1], m...)
			out[what+" "+window] = []*prompb.Query{q}
			hinted := *q
			hinted.Hints = &prompb.ReadHints{StartMs: r[0] + 600_000, EndMs: r[1] - 600_000, StepMs: 60_000, Func: "rate", RangeMs: 1}
			out[what+" "+window+" hinted"] = []*prompb.Query{&hinted}
			series := hinted
			series.Hints = &prompb.ReadHints{StartMs: r[0], EndMs: r[1], Func: "series"}
			out[what+" "+window+" series"] = []*prompb.Query{&series}
		}
	}
	out["several queries"] = []*prompb.Query{
		readQuery(end-24*hour, end, name("up")), readQuery(end-hour, end, name("nothing")),
		readQuery(end-14*hour, end-10*hour, re("hist|special")), readQuery(end-hour, end, name("up")),
	}
	out["no query"] = nil
	return out
}

func TestRemoteRead(t *testing.T) {
	p := newPair(t)
	t.Run("answers as Prometheus", func(t *testing.T) { readsAsPrometheus(t, p) })
	t.Run("hints narrow and never widen", func(t *testing.T) { hintsNarrow(t, p) })
	t.Run("the form is negotiated", func(t *testing.T) { formIsNegotiated(t, p) })
	t.Run("refusals have a status", func(t *testing.T) { readRefusals(t, p) })
}

func readsAsPrometheus(t *testing.T, p *pair) {
	stock, answers := stockRead(p), 0
	for name, queries := range readQueries() {
		body := readRequest(t, []prompb.ReadRequest_ResponseType{samples}, queries...)
		want, got := decodeSamples(t, read(t, stock, body)), decodeSamples(t, read(t, p.ours, body))
		requireSame(t, want, got, name+", samples")
		answers += len(got)

		body = readRequest(t, []prompb.ReadRequest_ResponseType{streamed, samples}, queries...)
		reference, ours := read(t, stock, body), read(t, p.ours, body)
		require.Equal(t, http.StatusOK, ours.Code, "%s: %s", name, ours.Body)
		require.Equal(t, reference.Header(), ours.Header(), name)
		want, _, err := decodeFrames(t, reference.Body)
		require.NoError(t, err)
		got, _, err = decodeFrames(t, ours.Body)
		require.NoError(t, err)
		requireSame(t, want, got, name+", chunks")
		answers += len(got)
	}
	require.Greater(t, answers, 800)
}

func hintsNarrow(t *testing.T, p *pair) {
	end := now.UnixMilli()
	up := labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, "up")
	plain := readQuery(end-14*hour, end-10*hour, up)
	for name, hints := range map[string]*prompb.ReadHints{
		"wider":   {StartMs: end - 20*hour, EndMs: end},
		"not set": {},
		"same":    {StartMs: end - 14*hour, EndMs: end - 10*hour},
	} {
		hinted := *plain
		hinted.Hints = hints
		for _, form := range []prompb.ReadRequest_ResponseType{samples, streamed} {
			accept := []prompb.ReadRequest_ResponseType{form}
			want, got := read(t, p.ours, readRequest(t, accept, plain)), read(t, p.ours, readRequest(t, accept, &hinted))
			require.Positive(t, want.Body.Len())
			require.Equal(t, want.Body.Bytes(), got.Body.Bytes(), "%s %s", name, form)
		}
	}
}

func formIsNegotiated(t *testing.T, p *pair) {
	stock := stockRead(p)
	q := readQuery(now.UnixMilli()-hour, now.UnixMilli(), labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, "up"))
	for _, accept := range [][]prompb.ReadRequest_ResponseType{
		nil, {samples}, {streamed}, {samples, streamed}, {streamed, samples}, {7, streamed}, {7},
	} {
		body := readRequest(t, accept, q)
		want, got := read(t, stock, body), read(t, p.ours, body)
		require.Equal(t, want.Code, got.Code, "%v", accept)
		require.Equal(t, want.Header().Get("Content-Type"), got.Header().Get("Content-Type"), "%v", accept)
		if want.Code != http.StatusOK {
			require.Equal(t, want.Body.String(), got.Body.String())
		}
	}
}

func readRefusals(t *testing.T, p *pair) {
	stock := stockRead(p)
	up := labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, "up")
	ok := readRequest(t, nil, readQuery(0, now.UnixMilli(), up))
	unknown := readQuery(0, 1)
	unknown.Matchers = []*prompb.LabelMatcher{{Type: 9, Name: "a"}}
	badRegex := readQuery(0, 1)
	badRegex.Matchers = []*prompb.LabelMatcher{{Type: prompb.LabelMatcher_RE, Name: "a", Value: "("}}
	for name, body := range map[string][]byte{
		"empty":          nil,
		"no snappy":      []byte("hello"),
		"cut":            ok[:len(ok)-3],
		"no protobuf":    snappy.Encode(nil, []byte("hello")),
		"matcher's type": readRequest(t, nil, unknown),
		"regex":          readRequest(t, nil, badRegex),
		"streamed regex": readRequest(t, []prompb.ReadRequest_ResponseType{streamed}, badRegex),
	} {
		want, got := read(t, stock, body), read(t, p.ours, body)
		require.Equal(t, http.StatusBadRequest, got.Code, "%s: %s", name, got.Body)
		require.Equal(t, want.Body.String(), got.Body.String(), name)
		require.Empty(t, got.Header().Get("Content-Encoding"))
		require.Equal(t, "text/plain; charset=utf-8", got.Header().Get("Content-Type"))
	}

	huge := readRequest(t, nil, readQuery(0, 1, labels.MustNewMatcher(labels.MatchEqual, "a", string(make([]byte, 1<<20)))))
	w := read(t, p.ours, huge)
	require.Equal(t, http.StatusBadRequest, w.Code)
	require.Contains(t, w.Body.String(), "more than 1048576 bytes")

	for kind, status := range map[errkind.Kind]int{
		errkind.Unavailable: 503, errkind.Unauthenticated: 401, errkind.Limited: 429, errkind.Corrupt: 500,
	} {
		p.recent.err = errkind.New(kind, "ingester says %s", kind)
		for _, form := range []prompb.ReadRequest_ResponseType{samples, streamed} {
			w := read(t, p.ours, readRequest(t, []prompb.ReadRequest_ResponseType{form}, readQuery(0, now.UnixMilli(), up)))
			require.Equal(t, status, w.Code, "%s", w.Body)
			require.Contains(t, w.Body.String(), "ingester says "+kind.String())
			require.Empty(t, w.Header().Get("Content-Encoding"))
		}
	}
	p.recent.err = nil

	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/prometheus/api/v1/read", bytes.NewReader(ok))
	rec := httptest.NewRecorder()
	p.ours.ServeHTTP(rec, r)
	require.Equal(t, http.StatusUnauthorized, rec.Code)
	require.Equal(t, http.StatusMethodNotAllowed, do(t, p.ours, http.MethodGet, "read", nil).Code)
	require.Equal(t, do(t, p.reference, http.MethodGet, "read", nil).Header(), do(t, p.ours, http.MethodGet, "read", nil).Header())
}

// withReads is a querier over the given points with other bounds on remote read.
func withReads(t testing.TB, points []point, change func(*Config)) *Querier {
	t.Helper()
	cfg := testConfig(t)
	change(&cfg)
	recent := &fakeRecent{t: t, answer: func(duramenpb.View, int64, int64) (*listQuerier, duramenpb.Held, error) {
		return &listQuerier{points: points}, duramenpb.Held{}, nil
	}}
	q, err := New(cfg, recent, &tsdbExtras{t: t}, brokenStore{}, &fakeManifests{}, noLimits, clock, nopLog, nil)
	require.NoError(t, err)
	return q
}

// recentPoints are n samples each of some series, one minute apart.
func recentPoints(series, n int) (out []point) {
	for i := range series {
		for j := range n {
			out = append(out, point{series: i, t: usualCut + int64(j)*60_000, v: float64(i)})
		}
	}
	return out
}

func TestSampleLimitOfRemoteReadCountsOverAllQueries(t *testing.T) {
	q := readQuery(usualCut, now.UnixMilli(), everything)
	for _, c := range []struct {
		limit, queries int
		ok             bool
	}{{0, 3, true}, {30, 3, true}, {29, 3, false}, {10, 1, true}, {9, 1, false}, {10, 2, false}, {1, 1, false}} {
		h := withReads(t, recentPoints(2, 5), func(cfg *Config) { cfg.RemoteReadSampleLimit = c.limit }).Handler("/prometheus")
		w := read(t, h, readRequest(t, nil, slices.Repeat([]*prompb.Query{q}, c.queries)...))
		if c.ok {
			require.Equal(t, http.StatusOK, w.Code, "%+v: %s", c, w.Body)
			continue
		}
		require.Equal(t, http.StatusBadRequest, w.Code, "%+v", c)
		require.Contains(t, w.Body.String(), fmt.Sprintf("exceeded sample limit (%d)", c.limit))
		w = read(t, h, readRequest(t, []prompb.ReadRequest_ResponseType{streamed}, q, q, q))
		require.Equal(t, http.StatusOK, w.Code, "the limit is not for streams")
	}
}

func TestRemoteReadThatGetsNoTurnMayBeSentAgain(t *testing.T) {
	cfg := testConfig(t)
	cfg.RemoteReadConcurrentLimit = 1
	recent := &fakeRecent{t: t}
	q, err := New(cfg, recent, &tsdbExtras{t: t}, brokenStore{}, &fakeManifests{}, noLimits, clock, nopLog, nil)
	require.NoError(t, err)
	h := q.Handler("/prometheus")
	body := readRequest(t, nil, readQuery(usualCut, now.UnixMilli(), everything))
	late, cancel := context.WithTimeout(tenant.WithID(t.Context(), tenantID), 0)
	defer cancel()
	recent.answer = func(duramenpb.View, int64, int64) (*listQuerier, duramenpb.Held, error) {
		// The only turn is taken by the read that asks this.
		r := httptest.NewRequestWithContext(late, http.MethodPost, "/prometheus/api/v1/read", bytes.NewReader(body))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, http.StatusServiceUnavailable, w.Code)
		require.Contains(t, w.Body.String(), "waiting for other remote reads to end")
		return &listQuerier{}, duramenpb.Held{}, nil
	}
	require.Equal(t, http.StatusOK, read(t, h, body).Code)
	recent.answer = func(duramenpb.View, int64, int64) (*listQuerier, duramenpb.Held, error) {
		return &listQuerier{}, duramenpb.Held{}, nil
	}
	require.Equal(t, http.StatusOK, read(t, h, body).Code, "the turn was not given back")
}

func TestSeriesAreDividedOnlyOverTheFrameSize(t *testing.T) {
	body := readRequest(t, []prompb.ReadRequest_ResponseType{streamed}, readQuery(0, now.UnixMilli(), everything))
	count := func(bytes int) (int, []readSeries) {
		q := withReads(t, recentPoints(3, 600), func(cfg *Config) { cfg.RemoteReadMaxBytesInFrame = bytes })
		series, frames, err := decodeFrames(t, read(t, q.Handler("/prometheus"), body).Body)
		require.NoError(t, err)
		return frames, series
	}
	frames, want := count(40 << 20)
	require.Equal(t, 3, frames)
	frames, got := count(1)
	require.Equal(t, 15, frames) // chunks of 120 samples
	require.Equal(t, want, got)
}

func FuzzDecodeReadRequest(f *testing.F) {
	f.Add(readRequest(f, []prompb.ReadRequest_ResponseType{streamed}, readQuery(1, 2, everything)))
	f.Add([]byte(nil))
	f.Add(snappy.Encode(nil, make([]byte, 1<<20+1)))
	f.Fuzz(func(t *testing.T, body []byte) {
		req, err := decodeReadRequest(bytes.NewReader(body))
		if err != nil {
			require.Nil(t, req)
			return
		}
		for _, q := range req.Queries {
			if s, err := selectionOf(q); err == nil {
				require.GreaterOrEqual(t, s.mint, q.StartTimestampMs)
				require.LessOrEqual(t, s.maxt, q.EndTimestampMs)
			}
		}
	})
}
