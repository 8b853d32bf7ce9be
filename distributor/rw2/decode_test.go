package rw2

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/distributor/wire"
	"github.com/duramendb/duramen/distributor/wire/wiretest"
	"github.com/duramendb/duramen/duramenpb"
)

type plenty struct{}

func (plenty) Grant(n int) (int, error) { return n + 1<<20, nil }

// decoded is a request in a form that can be compared with the generated decoder's.
type decoded struct {
	Symbols []string
	Series  []decodedSeries
}

type decodedSeries struct {
	Refs       []uint32
	Metadata   wire.SeriesMetadata
	Floats     []duramenpb.Float
	Histograms []duramenpb.Histogram
	Exemplars  []decodedExemplar
}

type decodedExemplar struct {
	Refs []uint32
	T    int64
	V    uint64
}

func ours(body []byte) (*decoded, error) {
	var r wire.Request
	r.Reset(append([]byte(nil), body...), 0, plenty{})
	if err := Decode(&r); err != nil {
		return nil, err
	}
	out := &decoded{}
	for i := range r.Symbols {
		out.Symbols = append(out.Symbols, Symbol(&r, uint32(i)))
	}
	f, h, e := 0, 0, 0
	for i, s := range r.Batch.Series {
		d := decodedSeries{Metadata: r.SeriesMetadata[i]}
		d.Refs = append(d.Refs, r.Refs[r.Labels[i].From:r.Labels[i].To]...)
		d.Floats = append(d.Floats, r.Batch.Floats[f:s.FloatsEnd]...)
		d.Histograms = append(d.Histograms, r.Batch.Histograms[h:s.HistogramsEnd]...)
		for _, x := range r.Exemplars[e:s.ExemplarsEnd] {
			refs := append([]uint32(nil), r.Refs[x.Labels.From:x.Labels.To]...)
			d.Exemplars = append(d.Exemplars, decodedExemplar{refs, x.T, math.Float64bits(x.V)})
		}
		f, h, e = s.FloatsEnd, s.HistogramsEnd, s.ExemplarsEnd
		out.Series = append(out.Series, d)
	}
	return out, nil
}

func oracle(body []byte) (*decoded, *writev2.Request, error) {
	var w writev2.Request
	if err := w.Unmarshal(body); err != nil {
		return nil, nil, err
	}
	out := &decoded{Symbols: w.Symbols}
	for _, ts := range w.Timeseries {
		d := decodedSeries{Metadata: wire.SeriesMetadata{
			Type: int32(ts.Metadata.Type), Help: ts.Metadata.HelpRef, Unit: ts.Metadata.UnitRef,
		}}
		d.Refs = append(d.Refs, ts.LabelsRefs...)
		for _, s := range ts.Samples {
			d.Floats = append(d.Floats, duramenpb.Float{T: s.Timestamp, ST: s.StartTimestamp, V: s.Value})
		}
		for _, h := range ts.Histograms {
			x := duramenpb.Histogram{T: h.Timestamp, ST: h.StartTimestamp}
			if h.IsFloatHistogram() {
				x.FH = h.ToFloatHistogram()
			} else {
				x.H = h.ToIntHistogram()
			}
			d.Histograms = append(d.Histograms, x)
		}
		for _, e := range ts.Exemplars {
			refs := append([]uint32(nil), e.LabelsRefs...)
			d.Exemplars = append(d.Exemplars, decodedExemplar{refs, e.Timestamp, math.Float64bits(e.Value)})
		}
		out.Series = append(out.Series, d)
	}
	return out, &w, nil
}

// compare requires that body means the same to Decode and to the generated decoder. Deliberate exceptions: a packed
// list whose last element reaches beyond the list, and a first symbol that is not empty, which the specification
// forbids and Prometheus overlooks.
func compare(t *testing.T, body []byte) {
	t.Helper()
	got, err := ours(body)
	want, message, wantErr := oracle(body)
	var bad *wire.Error
	if errors.As(err, &bad) && bad.What == wire.PackedCut {
		return
	}
	if wantErr == nil && len(message.Symbols) > 0 && message.Symbols[0] != "" {
		require.Error(t, err)
		return
	}
	require.Equal(t, wantErr == nil, err == nil, "ours: %v, generated: %v, body %x", err, wantErr, body)
	if err != nil {
		return
	}
	require.Equal(t, want.Symbols, got.Symbols)
	require.Len(t, got.Series, len(want.Series))
	for i, w := range want.Series {
		g := got.Series[i]
		require.Equal(t, w.Refs, g.Refs, "series %d of %x", i, body)
		require.Equal(t, w.Metadata, g.Metadata)
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
	compareLabels(t, body, message)
}

// compareLabels requires that references resolve as they do in Prometheus, which also sorts.
func compareLabels(t *testing.T, body []byte, message *writev2.Request) {
	t.Helper()
	var r wire.Request
	r.Reset(append([]byte(nil), body...), 0, plenty{})
	require.NoError(t, Decode(&r))
	for i, ts := range message.Timeseries {
		got, err := AppendLabels(nil, &r, r.Labels[i])
		if n := len(ts.LabelsRefs); n%2 != 0 || n > 0 && int(maxRef(ts.LabelsRefs)) >= len(message.Symbols) {
			var bad *BadRefError
			require.ErrorAs(t, err, &bad)
			continue
		}
		require.NoError(t, err)
		var want []labels.Label
		for j := 0; j < len(ts.LabelsRefs); j += 2 {
			want = append(want, labels.Label{
				Name: message.Symbols[ts.LabelsRefs[j]], Value: message.Symbols[ts.LabelsRefs[j+1]],
			})
		}
		require.Equal(t, want, got)
	}
}

func maxRef(refs []uint32) (m uint32) {
	for _, r := range refs {
		m = max(m, r)
	}
	return m
}

func randomRequest(rnd *rand.Rand) *writev2.Request {
	w := &writev2.Request{Symbols: []string{""}}
	if rnd.IntN(20) == 0 {
		w.Symbols = nil
	}
	for range rnd.IntN(8) {
		b := make([]byte, rnd.IntN(12))
		for i := range b {
			b[i] = byte(rnd.IntN(256))
		}
		w.Symbols = append(w.Symbols, string(b))
	}
	ref := func() uint32 {
		if rnd.IntN(40) == 0 {
			return rnd.Uint32()
		}
		return rnd.Uint32N(uint32(len(w.Symbols) + 1))
	}
	refs := func() (out []uint32) {
		for range rnd.IntN(8) {
			out = append(out, ref())
		}
		return out
	}
	ts := func() int64 { return int64(rnd.Uint64()>>rnd.IntN(64)) * int64(1-2*rnd.IntN(2)) }
	value := func() float64 { return math.Float64frombits(rnd.Uint64() * uint64(rnd.IntN(2))) }
	for range rnd.IntN(6) {
		s := writev2.TimeSeries{LabelsRefs: refs()}
		if rnd.IntN(2) == 0 {
			s.Metadata = writev2.Metadata{
				Type: writev2.Metadata_MetricType(rnd.IntN(9)), HelpRef: ref(),
				UnitRef: ref(),
			}
		}
		for range rnd.IntN(3) {
			s.Samples = append(s.Samples, writev2.Sample{
				Value: value(), Timestamp: ts(),
				StartTimestamp: ts() * int64(rnd.IntN(2)),
			})
		}
		for range rnd.IntN(3) {
			s.Exemplars = append(s.Exemplars, writev2.Exemplar{LabelsRefs: refs(), Value: value(), Timestamp: ts()})
		}
		for range rnd.IntN(2) {
			s.Histograms = append(s.Histograms, randomHistogram(rnd))
		}
		w.Timeseries = append(w.Timeseries, s)
	}
	return w
}

// randomHistogram goes through the bytes of the message of 1.0, whose fields are numbered alike.
func randomHistogram(rnd *rand.Rand) (h writev2.Histogram) {
	one := wiretest.Histogram(rnd)
	b, err := one.Marshal()
	if err == nil {
		err = h.Unmarshal(b)
	}
	if err != nil {
		panic(err)
	}
	h.StartTimestamp = int64(rnd.IntN(3))
	return h
}

func TestDecodeMeansWhatTheGeneratedDecoderMeans(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for n := range 3000 {
		w := randomRequest(rnd)
		body, err := w.Marshal()
		if n%2 == 0 {
			body, err = w.OptimizedMarshal(nil)
		}
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
	inSeries := func(parts ...[]byte) []byte {
		var b []byte
		for _, p := range parts {
			b = append(b, p...)
		}
		return append([]byte{0x22, 0, 0x22, 1, 'a', 0x22, 1, 'b', 0x2a, byte(len(b))}, b...)
	}
	refs, sample := []byte{0x0a, 2, 1, 2}, []byte{0x12, 4, 0x10, 5, 0x18, 4}
	exemplar := []byte{0x22, 4, 0x0a, 2, 1, 2}
	return append(out,
		inSeries(refs, sample, refs, exemplar, refs, exemplar, sample),               // scattered references
		inSeries([]byte{0x08, 1, 0x08, 2}, sample),                                   // not packed
		inSeries(refs, []byte{0x22, 4, 0x08, 1, 0x08, 2}),                            // not packed, exemplar
		inSeries([]byte{0x0a, 3, 1, 0x82, 0x00}, sample),                             // overlong reference
		inSeries([]byte{0x0a, 2, 1, 0x82}, sample),                                   // cut reference
		inSeries([]byte{0x2a, 2, 0x08, 1, 0x2a, 2, 0x18, 1, 0x2a, 2, 0x08, 3}, refs), // metadata in parts
		inSeries(refs, []byte{0x12, 11, 0x10, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1}),
		inSeries(refs, []byte{0x33, 0x08, 1, 0x34}, sample), // group
		append(inSeries(refs, sample), 0x22, 1, 'z'),        // symbols behind the series
		[]byte{0x22, 1, 'a'}, []byte{0x2c}, []byte{0x00},
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

func TestFirstSymbolHasToBeEmpty(t *testing.T) {
	var r wire.Request
	r.Reset([]byte{0x22, 1, 'a'}, 1<<20, plenty{})
	require.ErrorContains(t, Decode(&r), FirstSymbol)
}

type scarce struct{}

var errScarce = errors.New("no more memory")

func (scarce) Grant(int) (int, error) { return 0, errScarce }

func TestDecodeAsksForMemoryBeforeAHostileBodyTakesIt(t *testing.T) {
	bodies := map[string][]byte{
		"series":     {0x2a, 0},
		"samples":    {0x2a, 2, 0x12, 0},
		"histograms": {0x2a, 2, 0x1a, 0},
		"exemplars":  {0x2a, 2, 0x22, 0},
		"symbols":    {0x22, 0},
		"references": {0x2a, 6, 0x0a, 4, 0, 0, 0, 0},
	}
	for name, unit := range bodies {
		var body []byte
		for range 1 << 16 {
			body = append(body, unit...)
		}
		var r wire.Request
		r.Reset(body, len(body), scarce{})
		require.ErrorIs(t, Decode(&r), errScarce, name)
	}
}
