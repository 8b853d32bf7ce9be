package oracle

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// read returns all that can be seen of a series set, one part for each series, and the first error.
func (a ask) read(set storage.SeriesSet) (parts [][]byte, err error) {
	var all []storage.Series
	var it chunkenc.Iterator
	for set.Next() {
		s := set.At()
		parts = append(parts, fmt.Appendln(nil, s.Labels()))
		if a.reading != asTheyCome {
			all = append(all, s)
			continue
		}
		it = s.Iterator(it)
		if parts[len(parts)-1], err = a.samples(parts[len(parts)-1], it, a.mint, a.maxt); err != nil {
			return parts, err
		}
	}
	if err := set.Err(); err != nil {
		return parts, err
	}
	order := make([]int, len(all))
	for i := range order {
		order[i] = i
	}
	r := rand.New(rand.NewPCG(a.seed, 2))
	if a.reading == shuffled {
		r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	}
	for _, i := range order {
		it = all[i].Iterator(it)
		if parts[i], err = a.samples(parts[i], it, a.mint, a.maxt); err != nil {
			return parts, err
		}
	}
	return parts, nil
}

// samples appends the samples of an iterator, when seeking those that a mix of calls sees.
func (a ask) samples(b []byte, it chunkenc.Iterator, mint, maxt int64) ([]byte, error) {
	r := rand.New(rand.NewPCG(a.seed, 3))
	for {
		var typ chunkenc.ValueType
		if a.reading == seeking && r.IntN(3) == 0 {
			typ = it.Seek(mint - 10 + r.Int64N(maxt-mint+20))
		} else {
			typ = it.Next()
		}
		if typ == chunkenc.ValNone {
			return b, it.Err()
		}
		b = appendSample(b, it, typ, true)
	}
}

// appendSample appends the sample to the bit, with the hint about counter resets when that is wanted.
func appendSample(b []byte, it chunkenc.Iterator, typ chunkenc.ValueType, hint bool) []byte {
	switch typ {
	case chunkenc.ValHistogram:
		t, h := it.AtHistogram(nil)
		b = append(strconv.AppendInt(b, t, 10), " h "...)
		b = appendHistogram(b, h.CounterResetHint, h.Schema, hint, h.PositiveSpans, h.NegativeSpans)
		b = appendNumbers(b, h.ZeroCount, h.Count)
		b = appendNumbers(b, h.PositiveBuckets...)
		b = appendNumbers(b, h.NegativeBuckets...)
		b = appendFloats(b, h.CustomValues...)
		return append(appendFloats(b, h.ZeroThreshold, h.Sum), '\n')
	case chunkenc.ValFloatHistogram:
		t, h := it.AtFloatHistogram(nil)
		b = append(strconv.AppendInt(b, t, 10), " fh "...)
		b = appendHistogram(b, h.CounterResetHint, h.Schema, hint, h.PositiveSpans, h.NegativeSpans)
		b = appendFloats(b, h.ZeroCount, h.Count)
		b = appendFloats(b, h.PositiveBuckets...)
		b = appendFloats(b, h.NegativeBuckets...)
		b = appendFloats(b, h.CustomValues...)
		return append(appendFloats(b, h.ZeroThreshold, h.Sum), '\n')
	default:
		t, v := it.At()
		return append(appendFloats(append(strconv.AppendInt(b, t, 10), ' '), v), '\n')
	}
}

func appendHistogram(
	b []byte, reset histogram.CounterResetHint, schema int32, hint bool, positive, negative []histogram.Span,
) []byte {
	switch {
	case hint:
		b = append(b, "hint "...)
		b = appendNumbers(b, int64(reset))
	case reset == histogram.GaugeType:
		b = append(b, "gauge "...)
	}
	b = appendNumbers(b, int64(schema))
	for _, spans := range [][]histogram.Span{positive, negative} {
		b = append(b, "spans "...)
		for _, s := range spans {
			b = appendNumbers(b, int64(s.Offset), int64(s.Length))
		}
	}
	return b
}

func appendNumbers[N int64 | uint64](b []byte, numbers ...N) []byte {
	for _, n := range numbers {
		b = append(strconv.AppendInt(b, int64(n), 10), ' ')
	}
	return append(b, ';')
}

func appendFloats(b []byte, floats ...float64) []byte {
	for _, f := range floats {
		b = append(strconv.AppendUint(b, math.Float64bits(f), 16), ' ')
	}
	return append(b, ';')
}

// readChunks is read for chunks: their bytes, or the samples in [mint, maxt] that they hold.
func (a ask) readChunks(set storage.ChunkSeriesSet, exact bool) (parts [][]byte, err error) {
	var it chunks.Iterator
	for set.Next() {
		s := set.At()
		part := fmt.Appendln(nil, s.Labels())
		it = s.Iterator(it)
		for it.Next() {
			if m := it.At(); exact {
				part = fmt.Appendf(part, "[%d, %d] %s %x\n", m.MinTime, m.MaxTime, m.Chunk.Encoding(), m.Chunk.Bytes())
			} else {
				part = a.appendWithin(part, m.Chunk.Iterator(nil))
			}
		}
		if err := it.Err(); err != nil {
			return parts, err
		}
		parts = append(parts, part)
	}
	return parts, set.Err()
}

func (a ask) appendWithin(b []byte, it chunkenc.Iterator) []byte {
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		if t := it.AtT(); t >= a.mint && t <= a.maxt {
			b = appendSample(b, it, typ, false)
		}
	}
	return b
}

// requireEqual fails the test with the first difference.
func requireEqual(t testing.TB, want, got [][]byte, format string, args ...any) {
	t.Helper()
	for i := range max(len(want), len(got)) {
		switch {
		case i >= len(got):
			t.Fatalf("%s: %d of %d series; the first that is missing: %s", fmt.Sprintf(format, args...), len(got), len(want), want[i])
		case i >= len(want):
			t.Fatalf("%s: %d series instead of %d; the first too many: %s", fmt.Sprintf(format, args...), len(got), len(want), got[i])
		case !bytes.Equal(want[i], got[i]):
			t.Fatalf("%s: series %d differs: %s", fmt.Sprintf(format, args...), i, difference(want[i], got[i]))
		}
	}
}

// difference shows the first lines that differ.
func difference(want, got []byte) string {
	w, g := bytes.Split(want, []byte("\n")), bytes.Split(got, []byte("\n"))
	for i := range max(len(w), len(g)) {
		var a, b []byte
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if !bytes.Equal(a, b) {
			return fmt.Sprintf("%s\nline %d of %d and %d\nwant %s\ngot  %s", w[0], i, len(w), len(g), a, b)
		}
	}
	return "not at all"
}
