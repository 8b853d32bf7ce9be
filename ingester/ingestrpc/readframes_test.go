package ingestrpc

import (
	"math"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/rpcframe"
)

// chunkOf is a chunk of n samples.
func chunkOf(t testing.TB, n int) chunks.Meta {
	t.Helper()
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	require.NoError(t, err)
	for i := range n {
		app.Append(0, int64(i-2), float64(i))
	}
	return chunks.Meta{MinTime: -2, MaxTime: int64(n - 3), Chunk: c}
}

func TestLabelsAreWrittenByTheirDifferences(t *testing.T) {
	lsets := []labels.Labels{
		labels.FromStrings("__name__", "a", "i", "1", "job", "x"),
		labels.FromStrings("__name__", "a", "i", "2", "job", "x"),
		labels.FromStrings("__name__", "a", "i", "2", "job", "x", "more", "\xff"),
		labels.FromStrings("__name__", "a", "j", "2"),
		labels.FromStrings("__name__", "b", "i", "2", "job", ""),
		labels.EmptyLabels(),
		labels.FromStrings("only", "one"),
	}
	var e seriesEncoder
	e.begin(0)
	sizes := []int{len(e.frame)}
	for _, l := range lsets {
		e.series(l)
		sizes = append(sizes, len(e.frame))
	}
	require.Equal(t, 7, sizes[2]-sizes[1], "an item, a count, two labels as before, and one with another value")
	decoder := newLabelsDecoder()
	d := rpcframe.NewDecoder(e.frame[1:])
	for _, want := range lsets {
		require.Equal(t, byte(itemSeries), d.Byte())
		require.Equal(t, want.String(), decoder.decode(&d).String())
	}
	require.NoError(t, d.Err())
	require.False(t, d.More())
}

func TestAFrameThatDoesNotFitTheSeriesIsAnError(t *testing.T) {
	for name, frame := range map[string][]byte{
		"same as nothing":   {1, labelSame},
		"value of nothing":  {1, labelNewValue, 1, 'x'},
		"unknown code":      {1, 9, 1, 'x', 1, 'x'},
		"more than it has":  {200, 1, labelNew, 1, 'x', 1, 'x'},
		"cut in its middle": {1, labelNew, 1, 'x', 7, 'x'},
	} {
		decoder := newLabelsDecoder()
		d := rpcframe.NewDecoder(frame)
		require.True(t, decoder.decode(&d).IsEmpty(), name)
		require.ErrorIs(t, d.Err(), rpcframe.ErrCut, name)
	}
	for name, frame := range map[string][]byte{
		"times in reverse":    append([]byte{2}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1, 3, 0, 1, 0),
		"data of two bytes":   {0, 0, 1, 2, 0, 1},
		"an unknown encoding": {0, 0, 99, 3, 0, 1, 0},
	} {
		d := rpcframe.NewDecoder(frame)
		_, err := decodeChunk(&d)
		require.Error(t, err, name)
	}
}

func TestVersionsAreSaid(t *testing.T) {
	_, err := decodeOpened([]byte{2, 0, 0})
	require.ErrorContains(t, err, "protocol version 2 is not known")
	held, err := decodeOpened(append(openedFrame(duramenpb.Held{Floor: -1, DeletedVersion: 9})[1:], "of a newer version"...))
	require.NoError(t, err)
	require.Equal(t, duramenpb.Held{Floor: -1, DeletedVersion: 9}, held)

	_, _, err = decodeReadRequest([]byte(`{"version":2}`))
	require.Equal(t, errkind.Unavailable, errkind.Of(err))
	_, _, err = decodeReadRequest([]byte(`{"version":1,"something_new":{"a":1}}`))
	require.NoError(t, err)
	for _, bad := range []string{
		``, `{`, `{"version":1,"matchers":[[{"type":9}]]}`,
		`{"version":1,"matchers":[[{"type":2,"name":"YQ==","value":"KA=="}]]}`,
	} {
		_, _, err = decodeReadRequest([]byte(bad))
		require.Equal(t, errkind.Invalid, errkind.Of(err), bad)
	}
}

func TestARequestArrivesAsItWasMade(t *testing.T) {
	view := duramenpb.View{Version: math.MaxUint64, Cut: math.MinInt64}
	m := labels.MustNewMatcher(labels.MatchNotEqual, "\xfe", "\xff.*")
	r := newReadRequest(view, math.MinInt64, math.MaxInt64, []*labels.Matcher{m}, []*labels.Matcher{m, m})
	r.SelectHints = &storage.SelectHints{Start: 1, End: 2, Func: "rate", Grouping: []string{"a"}, ShardCount: 3}
	r.LabelHints = &storage.LabelHints{Limit: 4}
	r.Name, r.Limit = []byte("\xff"), 5
	frame, err := r.frame()
	require.NoError(t, err)
	got, sets, err := decodeReadRequest(frame)
	require.NoError(t, err)
	require.Equal(t, r, got)
	require.Equal(t, view, got.view())
	require.Len(t, sets, 2)
	require.Equal(t, m.String(), sets[1][1].String())
}

// FuzzReadFrames: no frame of a server makes a client panic, or take memory that it does not have the bytes for.
func FuzzReadFrames(f *testing.F) {
	var e seriesEncoder
	e.begin(0)
	e.series(labels.FromStrings("a", "b", "c", "d"))
	e.chunk(chunkOf(f, 5))
	e.end(1)
	e.series(labels.FromStrings("a", "b", "c", "e"))
	e.end(0)
	f.Add(e.frame)
	f.Add(openedFrame(duramenpb.Held{Floor: -1, DeletedVersion: 300}))
	f.Add(answered{items: 2, chunks: 1, warnings: []string{"x"}}.frame())
	f.Add(errorFrame(&errkind.Error{Kind: errkind.Limited, RetryAfter: time.Second, Err: errStalled}))
	f.Add(rpcframe.AppendText([]byte{frameValues}, "value"))
	f.Add(appendExemplar([]byte{frameExemplars}, exemplarItem{
		labels.FromStrings("a", "b"), true, exemplar.Exemplar{Labels: labels.FromStrings("c", "d"), Value: 1, Ts: 2, HasTs: true},
	}))
	f.Add(appendMetadata([]byte{frameMetadata}, duramenpb.Metadata{Family: "a", Help: "b"}))
	f.Add(headFrame(&duramenpb.HeadStats{Series: 7}))
	f.Add(appendCount([]byte{frameCounts}, countItem{3, duramenpb.Count{Name: "a", Value: 9}}))
	f.Add(userFrame(duramenpb.UserStats{Series: 1, SamplesPerSecond: 2}))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) == 0 {
			return
		}
		// As the first frame of a Select whose second one says that all is done.
		set := newSeriesSet(nil)
		set.frame = rpcframe.NewDecoder(frame[1:])
		set.receive = func() ([]byte, error) { return answered{}.frame(), nil }
		for range len(frame) {
			more, err := set.next()
			if !more || err != nil {
				break
			}
			var it chunks.Iterator
			for it = set.current.Iterator(it); it.Next(); {
				_ = it.At().Chunk.NumSamples()
			}
		}
		_, _ = decodeOpened(frame[1:])
		_, _ = decodeDone(frame[1:])
		_, _ = decodeError(frame[1:])
		_, _ = decodeValues(nil, frame[1:])
		_, _, _ = decodeExemplars(nil, frame[1:])
		_, _ = decodeMetadata(nil, frame[1:])
		var s duramenpb.HeadStats
		_ = decodeHead(&s, frame[1:])
		_, _ = decodeCounts(&s, frame[1:])
		_, _ = decodeUser(frame[1:])
	})
}

// FuzzReadRequest: no request makes a server panic.
func FuzzReadRequest(f *testing.F) {
	r := newReadRequest(everything, 0, 1, []*labels.Matcher{anyName()})
	r.SelectHints = &storage.SelectHints{Start: 1, End: 2}
	frame, err := r.frame()
	require.NoError(f, err)
	f.Add(frame)
	f.Fuzz(func(t *testing.T, frame []byte) {
		r, sets, err := decodeReadRequest(frame)
		if err == nil {
			_, err = r.frame()
			require.NoError(t, err)
			_ = only(sets)
		}
	})
}
