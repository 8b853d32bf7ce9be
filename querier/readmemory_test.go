package querier

import (
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"
)

// TestUnstreamedReadsCount: what an answer is built of is memory of a query, of all queries of a request together. A streamed
// answer holds nothing.
func TestUnstreamedReadsCount(t *testing.T) {
	const one = 50 * (seriesBytes + sourceBytes + 60*readSampleBytes) // and the labels
	query := readQuery(usualCut, now.UnixMilli(), everything)
	for _, c := range []struct {
		name            string
		queries         int
		bytes           int64
		status, enlarge int
	}{
		{"no bound", 1, 0, 200, 0},
		{"a small place", 1, 8 * one * 11 / 10, 200, 0},
		{"a large place", 1, 2 * one * 11 / 10, 200, 1},
		{"too much", 1, 2 * one * 9 / 10, 422, 1},
		{"too much together", 2, 2 * one * 11 / 10, 422, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			q, h := withMemory(t, 50, c.bytes)
			queries := make([]*prompb.Query, c.queries)
			for i := range queries {
				queries[i] = query
			}
			w := read(t, h, readRequest(t, nil, queries...))
			require.Equal(t, c.status, w.Code, w.Body)
			require.InDelta(t, c.enlarge, testutil.ToFloat64(q.metrics.enlarged), 0)
			if c.status != http.StatusOK {
				require.Contains(t, w.Body.String(), "bytes of memory or more; a query may have")
				require.InDelta(t, 1, testutil.ToFloat64(q.metrics.tooLarge), 0)
			}
			require.Equal(t, http.StatusOK, read(t, h, readRequest(t, []prompb.ReadRequest_ResponseType{streamed}, query)).Code)
			for _, s := range []*slots{q.slots, q.large, q.reads} {
				if s != nil {
					require.Zero(t, s.running)
				}
			}
		})
	}
}

// TestHistogramsCountByTheirBuckets: they are larger than floats, in both forms.
func TestHistogramsCountByTheirBuckets(t *testing.T) {
	h, f := tsdbutil.GenerateTestHistogram(1), tsdbutil.GenerateTestFloatHistogram(1)
	list := []chunks.Sample{histogramSample{t: 1, h: h}, histogramSample{t: 2, f: f}, histogramSample{t: 3, h: h}}
	parts := len(h.PositiveSpans) + len(h.NegativeSpans) + len(h.PositiveBuckets) + len(h.NegativeBuckets)
	each := int64(readHistogramBytes + readBucketBytes*parts)
	memory := &held{most: 2*each + each/2}
	it := heldSeries{storage.NewListSeries(labels.FromStrings("a", "b"), list), memory}.Iterator(nil)
	require.Equal(t, chunkenc.ValHistogram, it.Next())
	it.AtHistogram(nil)
	require.Equal(t, each, memory.bytes)
	require.Equal(t, chunkenc.ValFloatHistogram, it.Next())
	it.AtFloatHistogram(nil)
	require.Equal(t, 2*each, memory.bytes)
	require.Equal(t, chunkenc.ValHistogram, it.Next())
	it.AtHistogram(nil)
	require.Equal(t, chunkenc.ValNone, it.Next())
	require.ErrorAs(t, it.Err(), new(errMemory))
}

type histogramSample struct {
	chunks.Sample
	t int64
	h *histogram.Histogram
	f *histogram.FloatHistogram
}

func (s histogramSample) T() int64                      { return s.t }
func (s histogramSample) ST() int64                     { return 0 }
func (s histogramSample) H() *histogram.Histogram       { return s.h }
func (s histogramSample) FH() *histogram.FloatHistogram { return s.f }
func (s histogramSample) Type() chunkenc.ValueType {
	if s.h != nil {
		return chunkenc.ValHistogram
	}
	return chunkenc.ValFloatHistogram
}

// TestListsOfValuesCount: the names and values of labels that are listed.
func TestListsOfValuesCount(t *testing.T) {
	const one = 500 * (stringBytes + 3*3) // "0" to "499"
	for _, c := range []struct {
		bytes           int64
		status, enlarge int
	}{{0, 200, 0}, {8 * one, 200, 0}, {2 * one, 200, 1}, {2 * one * 9 / 10, 422, 1}} {
		q, h := withMemory(t, 500, c.bytes)
		w := do(t, h, http.MethodGet, "label/i/values", form("start="+at(11*time.Hour)))
		require.Equal(t, c.status, w.Code, w.Body)
		require.InDelta(t, c.enlarge, testutil.ToFloat64(q.metrics.enlarged), 0)
		if c.status != http.StatusOK {
			require.Contains(t, w.Body.String(), "bytes of memory or more; a query may have 25650 here, by querier.memory_share")
		}
		require.Equal(t, http.StatusOK, do(t, h, http.MethodGet, "labels", form("start="+at(11*time.Hour))).Code)
		require.Zero(t, q.slots.running)
	}

	// The tiers are not asked for more than fits, and never for more than the client wants.
	none := &held{}
	require.Nil(t, none.within(nil))
	small := &held{bytes: stringBytes, most: 3 * stringBytes}
	require.Equal(t, 3, small.within(nil).Limit)
	require.Equal(t, 3, small.within(&storage.LabelHints{Limit: 9}).Limit)
	require.Equal(t, 2, small.within(&storage.LabelHints{Limit: 2}).Limit)
	require.Error(t, small.addStrings([]string{"", "", ""}), "one more than fits is too many")
}
