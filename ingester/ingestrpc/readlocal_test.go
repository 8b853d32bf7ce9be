package ingestrpc

import (
	"math"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/duramenpb"
)

func TestLocalReaderAnswersFromTheIngester(t *testing.T) {
	i := newIngester(t, false)
	l := NewLocalReader(i)
	t0 := testStart.UnixMilli()
	held, err := l.Plan(t.Context(), "a", everything, 0, t0)
	require.NoError(t, err)
	require.Equal(t, duramenpb.Held{Floor: t0}, held, "what came before the disk did is in the bucket or nowhere")

	b := new(batch).floats(labels.FromStrings("__name__", "x", "i", "1"), 1, t0, t0+1, t0+2)
	b.floats(labels.FromStrings("__name__", "x", "i", "2"), 1, t0+1)
	push(t, i, b)

	s, err := l.Select(t.Context(), "a", everything, t0+1, t0+1, nil, anyName())
	require.NoError(t, err)
	require.Equal(t, held, s.Held)
	require.Equal(t, map[string][]int64{
		`{__name__="x", i="1"}`: {t0, t0 + 1, t0 + 2}, // chunks come as they are
		`{__name__="x", i="2"}`: {t0 + 1},
	}, timesOf(t, s.Series))
	s.Close()
	s.Close()

	values, held, err := l.LabelValues(t.Context(), "a", everything, math.MinInt64, math.MaxInt64, "i",
		&storage.LabelHints{Limit: 1}, anyName())
	require.NoError(t, err)
	require.Equal(t, []string{"1"}, values)
	require.Equal(t, duramenpb.Held{Floor: t0}, held)
	names, _, err := l.LabelNames(t.Context(), "a", everything, t0, t0, nil)
	require.NoError(t, err)
	require.Equal(t, []string{"__name__", "i"}, names)

	stats, err := l.UserStats(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, uint64(2), stats.Series)
	head, err := l.HeadStats(t.Context(), "a", 10)
	require.NoError(t, err)
	require.Equal(t, uint64(2), head.Series)
}
