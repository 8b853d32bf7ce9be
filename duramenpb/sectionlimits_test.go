package duramenpb

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
)

// steady is what a scrape looks like on the wire once its series are known: references in order with gaps, one time, and
// values of the usual mix: counters, sizes, sums of seconds, zeros.
func steady(n int) *Batch {
	r := rand.New(rand.NewPCG(7, 8))
	b := &Batch{Incarnation: r.Uint64()}
	ref := uint64(1_000_000)
	for i := range n {
		v := 0.0
		switch i % 10 {
		case 0, 1, 2:
			v = float64(r.Int64N(1e9))
		case 3, 4:
			v = float64(r.Int64N(1e12)) * 1.37 // as fine as floats are
		case 5, 6, 7:
			v = float64(r.Int64N(1e4))
		case 8:
			v = r.NormFloat64()
		}
		ref += 1 + r.Uint64N(50)
		b.Floats = append(b.Floats, Float{T: 1_700_000_000_000 + int64(i/500)*137, V: v})
		b.Series = append(b.Series, Series{Ref: ref, FloatsEnd: i + 1})
	}
	return b
}

// cold is what a scrape of n new series looks like: few names, labels of the target, and one of the series' own.
func cold(n int) *Batch {
	b := &Batch{}
	for i := range n {
		b.Floats = append(b.Floats, Float{T: 1_700_000_000_000, V: float64(i)})
		b.Series = append(b.Series, Series{FloatsEnd: i + 1, Labels: labels.FromStrings(
			"__name__", fmt.Sprintf("http_requests_of_kind_%d_total", i%40), "cluster", "europe-west", "code", fmt.Sprint(200+i%7),
			"instance", fmt.Sprintf("10.1.2.%d:9100", i/400), "job", "node", "namespace", "monitoring", "path", fmt.Sprintf("/api/v1/%d", i/40),
		)})
	}
	return b
}

// TestSectionsAreSmall: the bar of a sample by reference, and of a series with labels.
func TestSectionsAreSmall(t *testing.T) {
	var e SectionEncoder
	perSample := func(b *Batch) float64 {
		return float64(len(encode(&e, nil, "tenant-1", b))) / float64(len(b.Floats))
	}
	warm, labelled := perSample(steady(2000)), perSample(cold(2000))
	t.Logf("%.1f bytes by reference, %.1f with labels", warm, labelled)
	require.Less(t, warm, 14.0)
	require.Less(t, labelled, 40.0)
	random := steady(2000)
	r := rand.New(rand.NewPCG(9, 9))
	for i := range random.Floats {
		random.Floats[i].V = r.NormFloat64()
	}
	require.Less(t, perSample(random), 14.0, "also when no value has a short form")
}

func TestWarmCodecsAllocateNothing(t *testing.T) {
	var e SectionEncoder
	var d SectionDecoder
	b := steady(500)
	buf := make([]byte, 0, 64<<10)
	section := encode(&e, nil, "t", b)
	got := &Batch{}
	allocs := testing.AllocsPerRun(50, func() {
		buf = encode(&e, buf[:0], "t", b)
		got.Series, got.Floats = got.Series[:0], got.Floats[:0]
		if err := d.Decode(section, got); err != nil {
			t.Error(err)
		}
	})
	require.Zero(t, allocs)
	require.Equal(t, section, buf)

	c := cold(500)
	buf = encode(&e, buf[:0], "t", c)
	allocs = testing.AllocsPerRun(50, func() { buf = encode(&e, buf[:0], "t", c) })
	require.Zero(t, allocs, "of an encoder, labels included")
	allocs = testing.AllocsPerRun(50, func() {
		got.Series, got.Floats = got.Series[:0], got.Floats[:0]
		if err := d.Decode(buf, got); err != nil {
			t.Error(err)
		}
	})
	require.LessOrEqual(t, allocs, 500.0, "one for each label set, which the receiver keeps")

	var r PushResult
	verdict := AppendResult(nil, b, &PushResult{Incarnation: 1, Refs: make([]uint64, 500), Floats: 500}, b.All(), 0)
	require.Less(t, len(verdict), 20)
	allocs = testing.AllocsPerRun(50, func() {
		if err := DecodeResult(verdict, &r); err != nil {
			t.Error(err)
		}
	})
	require.Zero(t, allocs)
}

func TestASectionSaysWhenItIsFull(t *testing.T) {
	var e SectionEncoder
	e.Begin(nil, "t", 1)
	for n := uint64(1); !e.Full(); n++ {
		e.Series(n*1000, labels.EmptyLabels())
		e.Float(int64(n)*12345, 0, math.Pi)
	}
	require.InDelta(t, fullSectionBytes, e.Len(), 100)
	require.Less(t, len(e.Finish()), MaxSectionBytes/2)
	e.Begin(nil, "t", 1)
	require.False(t, e.Full())
	long := labels.FromStrings("a", strings.Repeat("x", 1<<20))
	for range 16 { // which the section has once
		e.Series(0, long)
	}
	require.True(t, e.Full())
	require.Less(t, e.Len(), 2<<20)
}

func TestAnUnknownVersionIsNamed(t *testing.T) {
	var e SectionEncoder
	section := encode(&e, nil, "t", steady(1))
	section[0] = 77
	var d SectionDecoder
	_, err := ParseSectionHeader(section)
	require.ErrorIs(t, err, ErrVersion)
	err = d.Decode(section, &Batch{})
	require.ErrorIs(t, err, ErrVersion)
	require.ErrorContains(t, err, "push section: unknown version 77, this release speaks 1")
	err = DecodeResult([]byte{9}, &PushResult{})
	require.ErrorIs(t, err, ErrVersion)
	require.ErrorContains(t, err, "push answer: unknown version 9, this release speaks 1")
}

// TestWhatIsNoSectionIsAnError, in each of its parts.
func TestWhatIsNoSectionIsAnError(t *testing.T) {
	head := encode(&SectionEncoder{}, nil, "t", &Batch{})
	for name, entry := range map[string][]byte{
		"a sample of no series":         {entryFloat | formWhole<<formShift, 5},
		"a histogram of no series":      {entryHistogram},
		"an exemplar of no series":      {entryExemplar},
		"an unknown entry":              {entryKinds},
		"flags of a plain entry":        {entryRef | flagTime, 2},
		"flags of a histogram":          {entryRef, 2, entryHistogram | 0x80, 0, 0, 0, 0, 0},
		"parts of a histogram":          {entryRef, 2, entryHistogram, 0x40, 0, 0, 1, 0},
		"a schema that is too large":    {entryRef, 2, entryHistogram, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 1, 0},
		"a reference of zero":           {entryRef, 0},
		"no reference":                  {entryRef},
		"a number without end":          {entryRef, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1},
		"a value that is cut":           {entryRefFloat | formRaw<<formShift, 2, 1, 2, 3},
		"an unknown form":               {entryRef, 2, entryExemplar, 0, forms, 0},
		"more labels than bytes":        {entryLabels, 200, 1},
		"a symbol that is not there":    {entryLabels, 1, 1, 1},
		"a symbol that is cut":          {entryLabels, 1, 0, 9, 'a'},
		"labels out of order":           {entryLabels, 2, 0, 1, 'b', 0, 1, 'v', 0, 1, 'a', 2},
		"more buckets than bytes":       {entryRef, 2, entryHistogram, partPositive, 0, 0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff, 1},
		"a length that would overflow":  {entryLabels, 1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1},
		"metadata that is cut":          {entryMetadata, 0, 1, 'f', 0, 1},
		"a float of a histogram is cut": {entryRef, 2, entryHistogram | flagFloat, 0, 0, formRaw, 1},
	} {
		var d SectionDecoder
		b := &Batch{}
		err := d.Decode(append(slices.Clip(head), entry...), b)
		var at *DecodeError
		require.ErrorAs(t, err, &at, name)
	}
}

// TestSymbolsCannotBlowUp: a few bytes stand for labels of many, but not of any number.
func TestSymbolsCannotBlowUp(t *testing.T) {
	var e SectionEncoder
	e.Begin(nil, "t", 0)
	lset := labels.FromStrings("a", strings.Repeat("x", 4<<20))
	for range 100 {
		e.Series(0, lset)
	}
	var d SectionDecoder
	require.ErrorContains(t, d.Decode(e.Finish(), &Batch{}), "label sets of too many bytes")
}

// TestAnswersArePutApartByTheirSections, with indexes of each section's own.
func TestAnswersArePutApartByTheirSections(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	for range 500 {
		b := &Batch{}
		var parts []Range
		for range 1 + r.IntN(4) {
			before := b.All()
			for range r.IntN(5) {
				s := Series{}
				if r.IntN(2) == 0 {
					s.Ref = 1 + r.Uint64N(100)
				}
				for range r.IntN(4) {
					b.Floats = append(b.Floats, Float{})
				}
				for range r.IntN(3) {
					b.Histograms = append(b.Histograms, Histogram{})
				}
				s.FloatsEnd, s.HistogramsEnd = len(b.Floats), len(b.Histograms)
				b.Series = append(b.Series, s)
			}
			at := b.All()
			at.Series[0], at.Floats[0], at.Histograms[0] = before.Series[1], before.Floats[1], before.Histograms[1]
			parts = append(parts, at)
		}
		whole := &PushResult{Incarnation: r.Uint64(), Refs: make([]uint64, len(b.Series))}
		want := make([]*PushResult, len(parts))
		for n, at := range parts {
			w := &PushResult{Incarnation: whole.Incarnation, Exemplars: r.IntN(3)}
			want[n] = w
			labelled := false
			for i := at.Series[0]; i < at.Series[1]; i++ {
				labelled = labelled || b.Series[i].Ref == 0
				whole.Refs[i] = r.Uint64()
			}
			for i := at.Series[0]; i < at.Series[1]; i++ {
				f, h := samplesBefore(b, i)
				own := i - at.Series[0]
				floats, histograms := b.Series[i].FloatsEnd-f, b.Series[i].HistogramsEnd-h
				if labelled {
					ref := uint64(0)
					if b.Series[i].Ref == 0 {
						ref = whole.Refs[i]
					}
					w.Refs = append(w.Refs, ref)
				}
				switch {
				case b.Series[i].Ref != 0 && r.IntN(3) == 0:
					w.Stale = append(w.Stale, own)
					whole.Stale = append(whole.Stale, i)
					continue
				case floats > 0 && histograms > 0 && r.IntN(2) == 0:
					f := Refusal{
						Series: i, Reason: ReasonTooOld, Floats: 1, Histograms: 1, Timestamp: -5, Detail: fmt.Sprint("detail ", r.IntN(2)),
						Samples: []int32{int32(f + floats - 1), ^int32(h)},
					}
					whole.Refused = append(whole.Refused, f)
					f.Series, f.Samples = own, []int32{f.Samples[0] - int32(at.Floats[0]), ^(int32(h) - int32(at.Histograms[0]))}
					w.Refused = append(w.Refused, f)
					floats--
					histograms--
				}
				w.Floats += floats
				w.Histograms += histograms
			}
		}
		var got PushResult
		for n, at := range parts {
			data := AppendResult([]byte("before"), b, whole, at, want[n].Exemplars)
			require.NoError(t, DecodeResult(data[6:], &got))
			require.Equal(t, fmt.Sprintf("%+v", *want[n]), fmt.Sprintf("%+v", got))
			for cut := range len(data) - 6 {
				require.Error(t, DecodeResult(data[6:6+cut], &got))
			}
		}
	}
}

// FuzzSection: whatever comes, there is an error or a batch that is the same once it is sent on.
func FuzzSection(f *testing.F) {
	r := rand.New(rand.NewPCG(13, 14))
	var e SectionEncoder
	for range 30 {
		f.Add(encode(&e, nil, "tenant", randomBatch(r)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var d SectionDecoder
		b := &Batch{}
		header, err := ParseSectionHeader(data)
		if err != nil {
			require.Error(t, d.Decode(data, b))
			return
		}
		b.Incarnation = header.Incarnation
		if d.Decode(data, b) != nil {
			return
		}
		again := &Batch{Incarnation: header.Incarnation}
		sent := encode(&e, nil, header.Tenant, b)
		require.NoError(t, d.Decode(sent, again))
		require.Equal(t, bitwise(b), bitwise(again))
	})
}

func FuzzResult(f *testing.F) {
	b := cold(3)
	r := &PushResult{Incarnation: 5, Refs: []uint64{1, 0, 9}, Refused: []Refusal{
		{Series: 1, Reason: ReasonSeriesLimit, Floats: 1, Samples: []int32{1}, Detail: "x"},
	}}
	f.Add(AppendResult(nil, b, r, b.All(), 0))
	f.Add(AppendResult(nil, steady(3), &PushResult{Refs: make([]uint64, 3), Stale: []int{1}}, steady(3).All(), 0))
	f.Fuzz(func(t *testing.T, data []byte) {
		var r PushResult
		if err := DecodeResult(data, &r); err != nil {
			require.Equal(t, PushResult{Refs: r.Refs[:0], Stale: r.Stale[:0], Refused: r.Refused[:0]}, r)
		}
	})
}

func BenchmarkSection(bench *testing.B) {
	for _, c := range []struct {
		name string
		b    *Batch
	}{{"references", steady(2000)}, {"labels", cold(2000)}} {
		var e SectionEncoder
		var d SectionDecoder
		section := encode(&e, nil, "tenant", c.b)
		n := float64(len(c.b.Floats))
		bench.Run("encode/"+c.name, func(bench *testing.B) {
			bench.ReportAllocs()
			var buf []byte
			for bench.Loop() {
				buf = encode(&e, buf[:0], "tenant", c.b)
			}
			bench.ReportMetric(float64(bench.Elapsed().Nanoseconds())/float64(bench.N)/n, "ns/sample")
			bench.ReportMetric(float64(len(section))/n, "B/sample")
		})
		bench.Run("decode/"+c.name, func(bench *testing.B) {
			bench.ReportAllocs()
			got := &Batch{}
			for bench.Loop() {
				got.Series, got.Floats = got.Series[:0], got.Floats[:0]
				if err := d.Decode(section, got); err != nil {
					bench.Fatal(err)
				}
			}
			bench.ReportMetric(float64(bench.Elapsed().Nanoseconds())/float64(bench.N)/n, "ns/sample")
		})
	}
}
