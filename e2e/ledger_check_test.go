package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/internal/seriesgen"
)

// TestLedgerSeesFaults holds the judge to account: each kind of wrong answer has to be seen as one.
func TestLedgerSeesFaults(t *testing.T) {
	l := newLedger(t, seriesgen.Config{
		Seed: 1, Series: seriesgen.SeriesPerPod, Start: 1_790_000_000_000, Interval: time.Minute, Histograms: true,
	}, 4, 1)
	const series = 3 // a counter
	l.set(0, 0, acknowledged)
	l.set(1, 0, unknown)
	l.set(2, 0, acknowledged)
	point := func(scrape int) client.Point {
		e := l.gen.Expected(series, scrape)
		return client.Point{T: e.T, V: e.V}
	}
	wrong := point(2)
	wrong.V++
	astray := point(2)
	astray.T++
	for name, tc := range map[string]struct {
		points []client.Point
		fine   bool
	}{
		"all that was sent":        {[]client.Point{point(0), point(1), point(2)}, true},
		"without the unknown":      {[]client.Point{point(0), point(2)}, true},
		"lost":                     {[]client.Point{point(0), point(1)}, false},
		"invented":                 {[]client.Point{point(0), point(2), point(3)}, false},
		"twice":                    {[]client.Point{point(0), point(2), point(2)}, false},
		"another value":            {[]client.Point{point(0), wrong}, false},
		"another time":             {[]client.Point{point(0), point(2), astray}, false},
		"a histogram, not a float": {[]client.Point{point(0), {T: point(2).T, H: &client.Histogram{}}}, false},
	} {
		err := l.checkSeries(series, 0, 3, l.podFates(0), client.Series{Values: tc.points})
		require.Equal(t, tc.fine, err == nil, "%s: %v", name, err)
	}
}
