package loadverify

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"math"
	"strings"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
)

func TestMatrix(t *testing.T) {
	body := ` { "status" : "success", "infos": ["x", {"y": [1, null, true]}], "data": {"resultType":"matrix", "result": [
		{"metric": {"b": "é\n\"", "a": "x\\y"}, "values": [[1790000000, "1"], [1790000000.5, "NaN"], [1790000000.123,"-Inf"], [-1.5,"1e+300"]],
		 "histograms": [[1790000000.001, {"count":"3","sum":"-0","new":{},"buckets":[[0,"1","2","3"],[3,"-1","1","0.5"]]}]]},
		{"values": [], "metric": {}}
	]}} `
	type series struct {
		lset    labels.Labels
		samples []sample
	}
	var got []series
	var m matrix
	a, err := decodeAnswer([]byte(body), func(s *scanner) {
		m.decode(s, func(lset labels.Labels, samples []sample) {
			got = append(got, series{lset, append([]sample(nil), samples...)})
		})
	})
	require.NoError(t, err)
	require.Empty(t, a.warnings)
	require.Len(t, got, 2)
	require.Equal(t, labels.FromStrings("a", `x\y`, "b", "é\n\""), got[0].lset)
	require.Empty(t, got[1].samples)
	times := []int64{}
	for _, s := range got[0].samples {
		times = append(times, s.t)
	}
	require.Equal(t, []int64{1790000000000, 1790000000001, 1790000000500, 1790000000123, -1500}, times,
		"lists are merged, and what is out of order stays so")
	require.Equal(t, 1.0, got[0].samples[0].v)
	require.True(t, math.IsNaN(got[0].samples[2].v))
	require.Equal(t, &rendered{
		count: 3, sum: math.Copysign(0, -1), buckets: []bucket{{0, 1, 2, 3}, {3, -1, 1, 0.5}},
	}, got[0].samples[1].rendered)
	require.Equal(t, "histogram {count:3, sum:-0, (1,2]:3, [-1,1]:0.5}", got[0].samples[1].String())
}

func TestBrokenJSON(t *testing.T) {
	good := `{"status":"success","warnings":["w"],"data":{"resultType":"matrix","result":[{"metric":{"a":"b"},"values":[[1.5,"2"]],` +
		`"histograms":[[3,{"count":"1","sum":"2","buckets":[[0,"1","2","3"]]}]]}]}}`
	decode := func(body string) error {
		var m matrix
		_, err := decodeAnswer([]byte(body), func(s *scanner) { m.decode(s, func(labels.Labels, []sample) {}) })
		return err
	}
	require.NoError(t, decode(good))
	for end := range len(good) {
		require.Error(t, decode(good[:end]), "cut at %d", end)
	}
	for name, body := range map[string]string{
		"rubbish behind": good + "x", "a bare value": `3`, "an error": `{"status":"error","error":"no"}`, "no status": `{}`,
		"value":    strings.Replace(good, `"2"]]`, `"two"]]`, 1),
		"time":     strings.Replace(good, `1.5`, `1.5.5`, 1),
		"far time": strings.Replace(good, `1.5`, `1e300`, 1),
		"rule":     strings.Replace(good, `[[0,"1"`, `[[4,"1"`, 1),
		"escape":   strings.Replace(good, `"a"`, `"\x"`, 1),
		"nesting":  strings.Replace(good, `["w"]`, `["w"],"more":`+strings.Repeat("[", 1000), 1),
	} {
		require.Error(t, decode(body), name)
	}
}

func FuzzMatrix(f *testing.F) {
	f.Add([]byte(`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"a":"b\u00e9"},"values":[[1.5,"2"]]}]}}`))
	f.Add([]byte(`{"status":"success","data":{"result":[{"metric":{},"histograms":[[3,{"count":"1","sum":"2","buckets":[[0,"1","2","3"]]}]]}]}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var m matrix
		_, err := decodeAnswer(body, func(s *scanner) {
			m.decode(s, func(_ labels.Labels, samples []sample) {
				for i := range samples {
					require.Less(t, samples[i].t, int64(2e18))
				}
			})
		})
		if err == nil {
			var status struct{ Status string }
			if json.Unmarshal(body, &status) == nil {
				require.Equal(t, "success", status.Status)
			}
		}
	})
}

// frame appends one message of a streamed answer.
func frame(t testing.TB, dst []byte, series ...*prompb.ChunkedSeries) []byte {
	t.Helper()
	raw, err := (&prompb.ChunkedReadResponse{ChunkedSeries: series}).Marshal()
	require.NoError(t, err)
	dst = binary.AppendUvarint(dst, uint64(len(raw)))
	dst = binary.BigEndian.AppendUint32(dst, crc32.Checksum(raw, castagnoli))
	return append(dst, raw...)
}

func floatChunk(t testing.TB, times ...int64) prompb.Chunk {
	t.Helper()
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	require.NoError(t, err)
	for _, at := range times {
		app.Append(0, at, float64(at)/2)
	}
	return prompb.Chunk{Type: prompb.Chunk_XOR, Data: c.Bytes(), MinTimeMs: times[0], MaxTimeMs: times[len(times)-1]}
}

func histogramChunk(t testing.TB, at int64) prompb.Chunk {
	t.Helper()
	c := chunkenc.NewHistogramChunk()
	app, err := c.Appender()
	require.NoError(t, err)
	_, _, _, err = app.AppendHistogram(nil, 0, at, &histogram.Histogram{Count: 1, ZeroCount: 1, Sum: 2}, false)
	require.NoError(t, err)
	return prompb.Chunk{Type: prompb.Chunk_HISTOGRAM, Data: c.Bytes(), MinTimeMs: at, MaxTimeMs: at}
}

func TestStream(t *testing.T) {
	one := []prompb.Label{{Name: "a", Value: "1"}}
	two := []prompb.Label{{Name: "a", Value: "2"}}
	data := frame(t, nil, &prompb.ChunkedSeries{Labels: one, Chunks: []prompb.Chunk{floatChunk(t, 10, 20), floatChunk(t, 30)}})
	data = frame(t, data, &prompb.ChunkedSeries{Labels: one, Chunks: []prompb.Chunk{histogramChunk(t, 40)}},
		&prompb.ChunkedSeries{Labels: two, Chunks: []prompb.Chunk{floatChunk(t, 5, 50, 60)}})
	got := map[string][]int64{}
	s := stream{mint: 20, maxt: 50}
	collect := func(lset labels.Labels, samples []sample) {
		require.NotContains(t, got, lset.String(), "a series in two frames is one")
		got[lset.String()] = []int64{}
		for _, s := range samples {
			got[lset.String()] = append(got[lset.String()], s.t)
		}
	}
	require.NoError(t, s.decode(bytes.NewReader(data), collect))
	require.Equal(t, map[string][]int64{`{a="1"}`: {20, 30, 40}, `{a="2"}`: {50}}, got)

	ignore := func(labels.Labels, []sample) {}
	_, first := binary.Uvarint(data)
	size := 0
	{
		n, _ := binary.Uvarint(data)
		size = first + 4 + int(n)
	}
	for end := 1; end < len(data); end++ {
		err := s.decode(bytes.NewReader(data[:end]), ignore)
		if end == size {
			require.NoError(t, err, "the border of a frame; HTTP tells that the answer goes on")
			continue
		}
		require.ErrorIs(t, err, errRetry, "cut at %d", end)
	}
	data[size-1] ^= 1
	require.ErrorIs(t, s.decode(bytes.NewReader(data), ignore), errFrame)
	for name, bad := range map[string][]byte{
		"length":     binary.AppendUvarint(nil, maxFrame+1),
		"encoding":   frame(t, nil, &prompb.ChunkedSeries{Labels: one, Chunks: []prompb.Chunk{{Type: 77, Data: make([]byte, 10)}}}),
		"chunk":      frame(t, nil, &prompb.ChunkedSeries{Labels: one, Chunks: []prompb.Chunk{{Type: 1, Data: []byte{0}}}}),
		"no samples": frame(t, nil, &prompb.ChunkedSeries{Labels: one, Chunks: []prompb.Chunk{{Type: 1, Data: []byte{0, 9, 0}}}}),
	} {
		require.ErrorIs(t, s.decode(bytes.NewReader(bad), ignore), errFrame, name)
	}
}

func FuzzStream(f *testing.F) {
	one := []prompb.Label{{Name: "a", Value: "1"}}
	for _, c := range []prompb.Chunk{floatChunk(f, 10, 20), histogramChunk(f, 40)} {
		raw, err := (&prompb.ChunkedReadResponse{ChunkedSeries: []*prompb.ChunkedSeries{{Labels: one, Chunks: []prompb.Chunk{c}}}}).Marshal()
		require.NoError(f, err)
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		data := binary.AppendUvarint(nil, uint64(len(message)))
		data = binary.BigEndian.AppendUint32(data, crc32.Checksum(message, castagnoli))
		s := stream{maxt: math.MaxInt64}
		_ = s.decode(bytes.NewReader(append(data, message...)), func(_ labels.Labels, samples []sample) {
			for i := range samples {
				_ = samples[i].String()
			}
		})
		_ = s.decode(bytes.NewReader(message), func(labels.Labels, []sample) {})
		_ = s.decodeSampled(s2.EncodeSnappy(nil, message), func(labels.Labels, []sample) {})
		_ = s.decodeSampled(message, func(labels.Labels, []sample) {})
	})
}
