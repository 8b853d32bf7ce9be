package distributor

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
)

// modelIngester stores nothing and believes nothing: each sample's value names the labels that it was sent with, so it
// sees whether a reference is ever used for another series. It forgets series, starts new lives, refuses and fails at
// random.
type modelIngester struct {
	t           *testing.T
	rnd         *rand.Rand
	names       map[string]float64 // labels → value of their samples
	incarnation uint64
	byRef       map[uint64]string
	byLabels    map[string]uint64
	nextRef     uint64

	// Of the present request:
	stored, refused, pushes int
	byReference, stale      int // since the beginning
}

func (m *modelIngester) reopen() {
	m.incarnation = m.rnd.Uint64() | 1
	m.byRef, m.byLabels = map[uint64]string{}, map[string]uint64{}
	m.nextRef = m.rnd.Uint64N(50) + 1 // References of different lives overlap.
}

func (m *modelIngester) forget() {
	for ref, l := range m.byRef {
		if m.rnd.IntN(4) == 0 {
			delete(m.byRef, ref)
			delete(m.byLabels, l)
		}
	}
}

func (m *modelIngester) Push(_ context.Context, _ string, b *duramenpb.Batch, r *duramenpb.PushResult) error {
	m.pushes++
	if m.rnd.IntN(30) == 0 {
		return errkind.New(errkind.Unavailable, "passing trouble")
	}
	if m.rnd.IntN(25) == 0 {
		m.reopen()
	}
	r.Incarnation = m.incarnation
	f, h := 0, 0
	for i := range b.Series {
		s := &b.Series[i]
		floats, histograms := b.Floats[f:s.FloatsEnd], b.Histograms[h:s.HistogramsEnd]
		f, h = s.FloatsEnd, s.HistogramsEnd
		r.Refs = append(r.Refs, 0)
		l := s.Labels.String()
		if s.Ref != 0 {
			require.Equal(m.t, labels.EmptyLabels(), s.Labels)
			require.NotZero(m.t, b.Incarnation)
			known, ok := m.byRef[s.Ref]
			if b.Incarnation != m.incarnation || !ok {
				r.Stale = append(r.Stale, i)
				m.stale++
				continue
			}
			l = known
			m.byReference++
		}
		for _, x := range floats {
			require.InDelta(m.t, m.names[l], x.V, 0, "samples of another series under %s, ref %d", l, s.Ref)
		}
		for _, x := range histograms {
			require.InDelta(m.t, m.names[l], x.H.Sum, 0, "histograms of another series under %s, ref %d", l, s.Ref)
		}
		if m.rnd.IntN(40) == 0 && len(floats) > 0 {
			n := m.rnd.IntN(len(floats)) + 1
			r.Refused = append(r.Refused, duramenpb.Refusal{
				Series: i, Reason: duramenpb.ReasonTooOld, Floats: n,
				Detail: "by chance",
			})
			m.refused += n
			r.Floats -= n
		}
		r.Floats += len(floats)
		r.Histograms += len(histograms)
		if m.byLabels[l] == 0 {
			m.byLabels[l], m.byRef[m.nextRef] = m.nextRef, l
			m.nextRef++
		}
		r.Refs[i] = m.byLabels[l]
	}
	m.stored += r.Floats + r.Histograms
	return nil
}

// modelSeries is a series as the test sends it, with what ought to become of it.
type modelSeries struct {
	labels []prompb.Label
	value  float64 // 0 when the labels are refused whatever the limits
	long   bool    // refused when values are limited
}

func (m *modelIngester) population(n int) (out []modelSeries) {
	for i := range n {
		s := modelSeries{value: float64(i + 1)}
		b := labels.NewBuilder(labels.EmptyLabels())
		b.Set("__name__", fmt.Sprintf("metric_%d", i%7))
		b.Set("i", strconv.Itoa(i))
		if i%5 == 0 {
			b.Set("long", strings.Repeat("x", 30))
			s.long = true
		}
		l := b.Labels()
		m.names[l.String()] = s.value
		s.labels = prompb.FromLabels(l, nil)
		switch i % 11 {
		case 3:
			s.labels, s.value = append(s.labels, s.labels[0]), 0
		case 4:
			s.labels, s.value = s.labels[1:], 0
		case 5:
			s.labels = append(s.labels, prompb.Label{Name: "zz"}) // An empty value is no label.
		}
		out = append(out, s)
	}
	return out
}

func (s modelSeries) refused(l *testLimits) bool { return s.value == 0 || s.long && l.valueLength > 0 }

// body encodes a request of format 1.0 in one of the many ways that mean the same.
func modelBody(rnd *rand.Rand, series []prompb.TimeSeries) []byte {
	var body []byte
	for _, ts := range series {
		parts := []prompb.TimeSeries{ts}
		if rnd.IntN(4) == 0 { // Labels behind and between samples: messages that follow one another are merged.
			cut := rnd.IntN(len(ts.Labels) + 1)
			parts = []prompb.TimeSeries{
				{Labels: ts.Labels[:cut], Samples: ts.Samples}, {Labels: ts.Labels[cut:], Histograms: ts.Histograms},
			}
		}
		var msg []byte
		for _, p := range parts {
			b, _ := p.Marshal()
			msg = append(msg, b...)
		}
		body = append(binary.AppendUvarint(append(body, 0x0a), uint64(len(msg))), msg...)
	}
	return body
}

var refusedCount = regexp.MustCompile(`^(?:(\d+) of|all) (\d+) samples`)

func TestModel(t *testing.T) {
	requests := 1500
	if raceEnabled {
		requests = 300
	}
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { runModel(t, rand.New(rand.NewPCG(seed, 77)), requests) })
	}
}

func runModel(t *testing.T, rnd *rand.Rand, requests int) {
	m := &modelIngester{t: t, rnd: rnd, names: map[string]float64{}}
	m.reopen()
	l := openLimits()
	d, _ := newTest(t, m, l)
	population := m.population(120)
	at := time.Now()
	d.now = func() time.Time { return at }
	for range requests {
		switch rnd.IntN(40) {
		case 0:
			m.reopen()
		case 1:
			m.forget()
		case 2:
			l.epoch, l.valueLength = l.epoch+1, 25-l.valueLength
		case 3:
			d.tenants.get("t", uint32(at.Unix()/60)).cache.shrink(uint32(at.Unix() / 60))
		case 4:
			at = at.Add(time.Duration(rnd.IntN(50)) * time.Minute)
		}
		modelRequest(t, rnd, m, d, l, population)
	}
	require.Greater(t, m.byReference, requests*2, "the test has to use references")
	require.Greater(t, m.stale, requests/15)
	require.Zero(t, d.inflight.Load())
}

func modelRequest(t *testing.T, rnd *rand.Rand, m *modelIngester, d *Distributor, l *testLimits,
	population []modelSeries,
) {
	var series []prompb.TimeSeries
	now := d.now().UnixMilli()
	sent, wantRefused := 0, 0
	for range rnd.IntN(40) {
		s := population[rnd.IntN(len(population))]
		ts := prompb.TimeSeries{Labels: slices.Clone(s.labels)}
		if rnd.IntN(8) == 0 {
			rnd.Shuffle(len(ts.Labels), func(i, j int) { ts.Labels[i], ts.Labels[j] = ts.Labels[j], ts.Labels[i] })
		}
		for range rnd.IntN(4) {
			x := prompb.Sample{Value: s.value, Timestamp: now}
			sent++
			if rnd.IntN(15) == 0 {
				x.Timestamp += 3600_000
				wantRefused++
			} else if s.refused(l) {
				wantRefused++
			}
			ts.Samples = append(ts.Samples, x)
		}
		if rnd.IntN(5) == 0 {
			h := prompb.Histogram{Sum: s.value, Timestamp: now}
			sent++
			if rnd.IntN(3) == 0 {
				h.Schema = 100
				wantRefused++
			} else if s.refused(l) {
				wantRefused++
			}
			ts.Histograms = append(ts.Histograms, h)
		}
		series = append(series, ts)
	}
	contentType, body := "application/x-protobuf", modelBody(rnd, series)
	if rnd.IntN(2) == 0 {
		contentType = type2
		body = marshal2(t, toFormat2(&prompb.WriteRequest{Timeseries: series}))
	}
	m.stored, m.refused, m.pushes = 0, 0, 0
	w := postRaw(t, d, contentType, snappy.Encode(nil, body))
	require.LessOrEqual(t, m.pushes, 2)
	if contentType == type2 {
		written := 0
		for _, h := range []string{headerSamples, headerHistograms} {
			n, err := strconv.Atoi(w.Header().Get(h))
			require.NoError(t, err)
			written += n
		}
		require.Equal(t, m.stored, written, w.Body.String())
	}
	refused := 0
	switch w.Code {
	case http.StatusServiceUnavailable:
		return // The sender comes again; nothing is promised.
	case http.StatusBadRequest:
		match := refusedCount.FindStringSubmatch(w.Body.String())
		require.NotNil(t, match, w.Body.String())
		if match[1] == "" {
			match[1] = match[2]
		}
		refused, _ = strconv.Atoi(match[1])
		require.Positive(t, refused)
	default:
		require.Less(t, w.Code, 300, w.Body.String())
	}
	require.Equal(t, wantRefused+m.refused, refused, w.Body.String())
	require.Equal(t, sent, m.stored+refused, "accepted and refused have to be what was sent: %s", w.Body)
}

func TestVerdictsThatDoNotAddUpAreNoSuccess(t *testing.T) {
	for name, verdict := range map[string]func(b *duramenpb.Batch, r *duramenpb.PushResult){
		"nothing said":         func(*duramenpb.Batch, *duramenpb.PushResult) {},
		"one too many":         func(b *duramenpb.Batch, r *duramenpb.PushResult) { r.Floats = len(b.Floats) + 1 },
		"stale without a ref":  func(_ *duramenpb.Batch, r *duramenpb.PushResult) { r.Stale = []int{0} },
		"stale beyond the end": func(_ *duramenpb.Batch, r *duramenpb.PushResult) { r.Stale = []int{9} },
		"refused beyond the end": func(_ *duramenpb.Batch, r *duramenpb.PushResult) {
			r.Refused = []duramenpb.Refusal{{Series: 5, Floats: 1}}
		},
	} {
		d, _ := newTest(t, pusherFunc(func(_ context.Context, _ string, b *duramenpb.Batch,
			r *duramenpb.PushResult,
		) error {
			r.Refs = make([]uint64, len(b.Series))
			verdict(b, r)
			return nil
		}), openLimits())
		require.Equal(t, http.StatusInternalServerError, post(t, d, one("__name__", "up")).Code, name)
	}
}

func TestStaleTwiceIsUnavailable(t *testing.T) {
	pushes := 0
	d, _ := newTest(t, pusherFunc(func(ctx context.Context, id string, b *duramenpb.Batch,
		r *duramenpb.PushResult,
	) error {
		if pushes++; pushes == 1 {
			return acceptAll(ctx, id, b, r)
		}
		r.Incarnation = 8
		r.Refs, r.Stale = make([]uint64, len(b.Series)), []int{0}
		return nil
	}), openLimits())
	require.Equal(t, http.StatusOK, post(t, d, one("__name__", "up")).Code)
	answer := post(t, d, one("__name__", "up"))
	require.GreaterOrEqual(t, answer.Code, 500, "the second stale verdict concerns labels: %s", answer.Body)
	require.Equal(t, 3, pushes)
}
