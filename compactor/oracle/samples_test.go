package oracle

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/duramendb/duramen/chunkstore/blockgen"
)

// everything matches each series.
var everything = labels.MustNewMatcher(labels.MatchRegexp, "no label has this name", ".*")

// value is a sample's value to the bit, but for what a join of chunks may change: the hint about counter resets, and how
// buckets without content are laid out.
func value(it chunkenc.Iterator, typ chunkenc.ValueType) string {
	switch typ {
	case chunkenc.ValHistogram:
		_, h := it.AtHistogram(nil)
		return "h " + distribution(h.ToFloat(nil))
	case chunkenc.ValFloatHistogram:
		_, h := it.AtFloatHistogram(nil)
		return "fh " + distribution(h.Copy())
	default:
		_, v := it.At()
		return strconv.FormatUint(math.Float64bits(v), 16)
	}
}

func distribution(h *histogram.FloatHistogram) string {
	if math.IsNaN(h.Sum) { // a stale marker has nothing else
		return strconv.FormatUint(math.Float64bits(h.Sum), 16)
	}
	h.Compact(0)
	b := []byte(strconv.FormatBool(h.CounterResetHint == histogram.GaugeType))
	b = strconv.AppendInt(append(b, ' '), int64(h.Schema), 10)
	for _, spans := range [][]histogram.Span{h.PositiveSpans, h.NegativeSpans} {
		b = append(b, '|')
		for _, s := range spans {
			b = strconv.AppendUint(append(strconv.AppendInt(b, int64(s.Offset), 10), '+'), uint64(s.Length), 10)
		}
	}
	for _, floats := range [][]float64{
		{h.Sum, h.Count, h.ZeroCount, h.ZeroThreshold}, h.PositiveBuckets, h.NegativeBuckets, h.CustomValues,
	} {
		b = append(b, '|')
		for _, v := range floats {
			b = append(strconv.AppendUint(b, math.Float64bits(v), 16), ' ')
		}
	}
	return string(b)
}

// ledger is what was put into the bucket: by series and time the values that any block has there. It is one for most.
type ledger map[string]map[int64][]string

// add enters the series of a block.
func (l ledger) add(block []blockgen.Series) error {
	var it chunkenc.Iterator
	for _, s := range block {
		name := s.Labels.String()
		if l[name] == nil {
			l[name] = map[int64][]string{}
		}
		for _, c := range s.Chunks {
			ch, err := chunkenc.FromData(c.Encoding, c.Data)
			if err != nil {
				return err
			}
			it = ch.Iterator(it)
			for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
				if v := value(it, typ); !slices.Contains(l[name][it.AtT()], v) {
					l[name][it.AtT()] = append(l[name][it.AtT()], v)
				}
			}
			if err := it.Err(); err != nil {
				return err
			}
		}
	}
	return nil
}

// compare reads everything of q and returns an error unless each sample of the ledger is there once and no other is.
func (l ledger) compare(t testing.TB, q storage.Querier) error { return l.compareTo(t, q, false) }

// compareTo is compare that may let series pass which are not in the ledger and have no samples: all of them are hidden.
func (l ledger) compareTo(t testing.TB, q storage.Querier, hides bool) error {
	set := q.Select(t.Context(), true, nil, everything)
	seen := 0
	before := labels.EmptyLabels()
	var it chunkenc.Iterator
	for set.Next() {
		s := set.At()
		if seen++; !before.IsEmpty() && labels.Compare(before, s.Labels()) >= 0 {
			return fmt.Errorf("series %s comes behind %s", s.Labels(), before)
		}
		before = s.Labels().Copy()
		want := l[before.String()]
		if want == nil && hides && s.Iterator(nil).Next() == chunkenc.ValNone {
			seen--
			continue
		}
		if want == nil {
			return fmt.Errorf("series %s was never put", before)
		}
		it = s.Iterator(it)
		n, last := 0, int64(math.MinInt64)
		for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
			at := it.AtT()
			if n++; n > 1 && at <= last {
				return fmt.Errorf("series %s: a sample at %d behind one at %d", before, at, last)
			}
			last = at
			if v := value(it, typ); !slices.Contains(want[at], v) {
				return fmt.Errorf("series %s at %d: got %s, there were %q", before, at, v, want[at])
			}
		}
		if err := it.Err(); err != nil {
			return err
		}
		if n != len(want) {
			return fmt.Errorf("series %s: %d of %d samples", before, n, len(want))
		}
	}
	if err := set.Err(); err != nil {
		return err
	}
	if seen != len(l) {
		return fmt.Errorf("%d of %d series", seen, len(l))
	}
	return nil
}
