package rw1

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/distributor/wire"
	"github.com/duramendb/duramen/distributor/wire/wiretest"
	"github.com/duramendb/duramen/duramenpb"
)

type plenty struct{}

func (plenty) Grant(n int) (int, error) { return n + 1<<20, nil }

// decoded is a request in a form that can be compared with the generated decoder's.
type decoded struct {
	Series   []decodedSeries
	Metadata []duramenpb.Metadata
}

type decodedSeries struct {
	Labels     []labels.Label
	Floats     []duramenpb.Float
	Histograms []duramenpb.Histogram
	Exemplars  []decodedExemplar
}

type decodedExemplar struct {
	Labels []labels.Label
	T      int64
	V      uint64
}

func ours(body []byte) (*decoded, error) {
	var r wire.Request
	r.Reset(append([]byte(nil), body...), 0, plenty{})
	if err := Decode(&r); err != nil {
		return nil, err
	}
	out := &decoded{}
	f, h, e := 0, 0, 0
	for i, s := range r.Batch.Series {
		var (
			d   decodedSeries
			err error
		)
		if d.Labels, err = AppendLabels(nil, r.Buf, r.Labels[i]); err != nil {
			return nil, err
		}
		d.Floats = append(d.Floats, r.Batch.Floats[f:s.FloatsEnd]...)
		d.Histograms = append(d.Histograms, r.Batch.Histograms[h:s.HistogramsEnd]...)
		for _, x := range r.Exemplars[e:s.ExemplarsEnd] {
			ls, err := AppendLabels(nil, r.Buf, x.Labels)
			if err != nil {
				return nil, err
			}
			d.Exemplars = append(d.Exemplars, decodedExemplar{ls, x.T, math.Float64bits(x.V)})
		}
		f, h, e = s.FloatsEnd, s.HistogramsEnd, s.ExemplarsEnd
		out.Series = append(out.Series, d)
	}
	str := func(s wire.Span) string { return string(r.Buf[s.From:s.To]) }
	for _, m := range r.Metadata {
		out.Metadata = append(out.Metadata, duramenpb.Metadata{
			Type: string(m.Type), Family: str(m.Family), Help: str(m.Help), Unit: str(m.Unit),
		})
	}
	return out, nil
}

func oracle(body []byte) (*decoded, error) {
	var w prompb.WriteRequest
	if err := w.Unmarshal(body); err != nil {
		return nil, err
	}
	out := &decoded{}
	convert := func(in []prompb.Label) (ls []labels.Label) {
		for _, l := range in {
			ls = append(ls, labels.Label{Name: l.Name, Value: l.Value})
		}
		return ls
	}
	for _, ts := range w.Timeseries {
		d := decodedSeries{Labels: convert(ts.Labels)}
		for _, s := range ts.Samples {
			d.Floats = append(d.Floats, duramenpb.Float{T: s.Timestamp, V: s.Value})
		}
		for _, h := range ts.Histograms {
			x := duramenpb.Histogram{T: h.Timestamp}
			if h.IsFloatHistogram() {
				x.FH = h.ToFloatHistogram()
			} else {
				x.H = h.ToIntHistogram()
			}
			d.Histograms = append(d.Histograms, x)
		}
		for _, e := range ts.Exemplars {
			d.Exemplars = append(d.Exemplars, decodedExemplar{
				convert(e.Labels), e.Timestamp,
				math.Float64bits(e.Value),
			})
		}
		out.Series = append(out.Series, d)
	}
	for _, m := range w.Metadata {
		out.Metadata = append(out.Metadata, duramenpb.Metadata{
			Type: string(rune(m.Type)), Family: m.MetricFamilyName, Help: m.Help, Unit: m.Unit,
		})
	}
	return out, nil
}

// compare requires that body means the same to Decode and to the generated decoder. The one deliberate exception is a
// packed list whose last element reaches beyond the list.
func compare(t *testing.T, body []byte) {
	t.Helper()
	got, err := ours(body)
	want, wantErr := oracle(body)
	var bad *wire.Error
	if errors.As(err, &bad) && bad.What == wire.PackedCut {
		return
	}
	require.Equal(t, wantErr == nil, err == nil, "ours: %v, generated: %v, body %x", err, wantErr, body)
	if err != nil {
		return
	}
	require.Len(t, got.Series, len(want.Series))
	require.Equal(t, want.Metadata, got.Metadata)
	for i, w := range want.Series {
		g := got.Series[i]
		require.Equal(t, w.Labels, g.Labels, "series %d of %x", i, body)
		require.Equal(t, w.Exemplars, g.Exemplars)
		require.Len(t, g.Floats, len(w.Floats))
		for j := range w.Floats {
			wiretest.EqualFloats(t, w.Floats[j], g.Floats[j])
		}
		require.Len(t, g.Histograms, len(w.Histograms))
		for j := range w.Histograms {
			wiretest.EqualHistograms(t, w.Histograms[j], g.Histograms[j])
		}
	}
}

func randomRequest(rnd *rand.Rand) *prompb.WriteRequest {
	str := func() string {
		b := make([]byte, rnd.IntN(12))
		if rnd.IntN(30) == 0 {
			b = make([]byte, 120+rnd.IntN(300))
		}
		for i := range b {
			b[i] = byte(rnd.IntN(256))
		}
		return string(b)
	}
	lset := func() (ls []prompb.Label) {
		for range rnd.IntN(5) {
			ls = append(ls, prompb.Label{Name: str(), Value: str()})
		}
		return ls
	}
	ts := func() int64 { return int64(rnd.Uint64()>>rnd.IntN(64)) * int64(1-2*rnd.IntN(2)) }
	value := func() float64 { return math.Float64frombits(rnd.Uint64() * uint64(rnd.IntN(2))) }
	w := &prompb.WriteRequest{}
	for range rnd.IntN(6) {
		s := prompb.TimeSeries{Labels: lset()}
		for range rnd.IntN(3) {
			s.Samples = append(s.Samples, prompb.Sample{Value: value(), Timestamp: ts()})
		}
		for range rnd.IntN(2) {
			s.Exemplars = append(s.Exemplars, prompb.Exemplar{Labels: lset(), Value: value(), Timestamp: ts()})
		}
		for range rnd.IntN(2) {
			s.Histograms = append(s.Histograms, wiretest.Histogram(rnd))
		}
		w.Timeseries = append(w.Timeseries, s)
	}
	for range rnd.IntN(3) {
		w.Metadata = append(w.Metadata, prompb.MetricMetadata{
			Type: prompb.MetricMetadata_MetricType(rnd.IntN(9)), MetricFamilyName: str(), Help: str(), Unit: str(),
		})
	}
	return w
}

func TestDecodeMeansWhatTheGeneratedDecoderMeans(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		body, err := randomRequest(rnd).Marshal()
		require.NoError(t, err)
		compare(t, body)
		for range 5 { // Damage it a little.
			damaged := append([]byte(nil), body...)
			if len(damaged) == 0 {
				break
			}
			switch at := rnd.IntN(len(damaged)); rnd.IntN(4) {
			case 0:
				damaged[at] ^= 1 << rnd.IntN(8)
			case 1:
				damaged[at] = byte(rnd.IntN(256))
			case 2:
				damaged = damaged[:at]
			default:
				damaged = append(damaged[:at], damaged[min(len(damaged), at+1+rnd.IntN(4)):]...)
			}
			compare(t, damaged)
		}
	}
}

func seeds() (out [][]byte) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		b, _ := randomRequest(rnd).Marshal()
		out = append(out, b)
	}
	label := []byte{0x0a, 6, 0x0a, 1, 'a', 0x12, 1, 'b'}
	sample := []byte{0x12, 2, 0x10, 5}
	inSeries := func(parts ...[]byte) []byte {
		var b []byte
		for _, p := range parts {
			b = append(b, p...)
		}
		return append([]byte{0x0a, byte(len(b))}, b...)
	}
	return append(out,
		inSeries(label, sample, label, sample, label),                              // scattered labels
		inSeries(sample, label),                                                    // samples first
		inSeries([]byte{0x8a, 0x00, 6, 0x0a, 1, 'a', 0x12, 1, 'b'}, label, sample), // overlong tag
		inSeries(label, []byte{0x4a, 1, 0}, label,
			sample), // unknown field between
		inSeries(label, []byte{0x4b, 0x08, 1, 0x4c}, sample),                                    // group
		inSeries(label, []byte{0x4b, 0x08, 1}, sample),                                          // group without an end
		inSeries(label, []byte{0x12, 11, 0x10, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1}), // negative timestamp
		inSeries(label, []byte{0x12, 12, 0x10, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1}),
		[]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}, // negative length
		[]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f},
		[]byte{0x0c}, []byte{0x00}, []byte{0x07},
	)
}

func TestDecodeSeeds(t *testing.T) {
	for _, body := range seeds() {
		compare(t, body)
	}
}

func FuzzDecode(f *testing.F) {
	for _, body := range seeds() {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) { compare(t, body) })
}

func TestScatteredLabelsHaveTheSpanOfLabelsInARow(t *testing.T) {
	a, b := []byte{0x0a, 6, 0x0a, 1, 'a', 0x12, 1, 'b'}, []byte{0x0a, 6, 0x0a, 1, 'c', 0x12, 1, 'd'}
	sample := []byte{0x12, 2, 0x10, 5}
	body := append([]byte{0x0a, 20}, a...)
	body = append(append(body, sample...), b...)
	var r wire.Request
	r.Reset(body, 1<<20, plenty{})
	require.NoError(t, Decode(&r))
	require.Len(t, r.Labels, 1)
	require.Equal(t, append(append([]byte(nil), a...), b...), r.Buf[r.Labels[0].From:r.Labels[0].To])
}

type scarce struct{ asked int }

var errScarce = errors.New("no more memory")

func (s *scarce) Grant(n int) (int, error) { s.asked += n; return 0, errScarce }

func TestDecodeAsksForMemoryBeforeAHostileBodyTakesIt(t *testing.T) {
	bodies := map[string][]byte{
		"series":    {0x0a, 0},
		"samples":   {0x0a, 2, 0x12, 0},
		"exemplars": {0x0a, 2, 0x1a, 0},
		"metadata":  {0x1a, 0},
	}
	for name, unit := range bodies {
		var body []byte
		for range 1 << 16 {
			body = append(body, unit...)
		}
		var r wire.Request
		r.Reset(body, len(body), &scarce{})
		require.ErrorIs(t, Decode(&r), errScarce, name)
		require.Less(t, len(r.Labels)+len(r.Exemplars)+len(r.Metadata), 1<<16, name)
	}
}
