package query

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/guptarohit/asciigraph"
	"github.com/prometheus/common/model"

	"github.com/duramendb/duramen/internal/cli"
)

// Bounds of a plot, in characters. Below the lower ones no axis fits; the upper ones keep memory in bounds.
const (
	defaultHeight = 15
	minHeight     = 2
	minWidth      = 30
	maxSide       = 10_000
)

// maxLines is how many series a plot shows: as many as there are letters.
const maxLines = 26

// largest bounds what is drawn, so that no difference of two values overflows.
const largest = 1e300

// writePlot draws the floats of a matrix. A column shows the mean of its samples; columns between two samples that are
// neighbours are joined by a line, and where samples miss there is a gap.
func writePlot(env cli.Env, value model.Value, asked span, width, height int) error {
	m, ok := value.(model.Matrix)
	if !ok {
		return cli.Usagef("a plot needs a range: give -start=-1h, or ask for a range such as up[1h]")
	}
	lines, notes := plottable(m)
	if len(lines) == 0 {
		_, err := fmt.Fprint(env.Stdout, nothing)
		return errors.Join(err, notesTo(env, notes))
	}
	asked = covered(lines, asked)
	low, high := bounds(lines)
	label := axisFormat(low, high)
	columns := max(10, width-max(utf8.RuneCountInString(label(low)), utf8.RuneCountInString(label(high)))-6)
	data := make([][]float64, len(lines))
	for i, s := range lines {
		data[i] = raster(s.Values, asked, columns)
	}
	colours, charsets := marks(len(lines), env.Coloured())
	layout := timeLayout(asked)
	drawn := asciigraph.PlotMany(data, asciigraph.Height(height), asciigraph.LowerBound(low), asciigraph.UpperBound(high),
		asciigraph.YAxisValueFormatter(label), asciigraph.SeriesColors(colours...), asciigraph.SeriesChars(charsets...),
		asciigraph.XAxisRange(float64(asked.start.UnixMilli()), float64(asked.end.UnixMilli())),
		asciigraph.XAxisValueFormatter(func(ms float64) string { return time.UnixMilli(int64(ms)).UTC().Format(layout) }))
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n%s to %s, %s a column\n", drawn, stamp(asked.start), stamp(asked.end),
		(asked.end.Sub(asked.start) / time.Duration(columns)).Round(time.Millisecond))
	for i, s := range lines {
		mark := "─"
		if charsets != nil {
			mark = charsets[i].Horizontal
		}
		if colours != nil {
			mark = colours[i].String() + mark + asciigraph.Default.String()
		}
		fmt.Fprintf(&b, "%s %s\n", mark, s.Metric)
	}
	_, err := fmt.Fprint(env.Stdout, b.String())
	return errors.Join(err, notesTo(env, notes))
}

func notesTo(env cli.Env, notes []string) error {
	for _, n := range notes {
		if _, err := fmt.Fprintf(env.Stderr, "note: %s\n", n); err != nil {
			return err
		}
	}
	return nil
}

// plottable returns the series with a finite float, at most maxLines, with notes on what is left out. Its values are
// those that can be drawn.
func plottable(m model.Matrix) (lines []*model.SampleStream, notes []string) {
	histograms, infinite, more := 0, 0, 0
	for _, s := range m {
		histograms += len(s.Histograms)
		var values []model.SamplePair
		for _, p := range s.Values {
			v := float64(p.Value)
			switch {
			case math.IsNaN(v):
				continue // a gap
			case math.IsInf(v, 0):
				infinite++
				continue
			case math.Abs(v) < 1/largest:
				v = 0
			}
			values = append(values, model.SamplePair{Timestamp: p.Timestamp, Value: model.SampleValue(min(max(v, -largest), largest))})
		}
		switch {
		case len(values) == 0:
		case len(lines) == maxLines:
			more++
		default:
			lines = append(lines, &model.SampleStream{Metric: s.Metric, Values: values})
		}
	}
	if histograms > 0 {
		notes = append(notes, fmt.Sprintf("%d native histograms are not drawn: ask for histogram_quantile or histogram_avg of them", histograms))
	}
	if infinite > 0 {
		notes = append(notes, fmt.Sprintf("%d infinite values are not drawn", infinite))
	}
	if more > 0 {
		notes = append(notes, fmt.Sprintf("%d more series are not drawn: aggregate, or use topk", more))
	}
	return lines, notes
}

// covered returns the range of the axis: what was asked for, else, for an instant query, where samples are.
func covered(lines []*model.SampleStream, asked span) span {
	if asked.step > 0 {
		return asked
	}
	first, last := lines[0].Values[0].Timestamp, lines[0].Values[0].Timestamp
	gap := time.Duration(0)
	for _, s := range lines {
		for i, p := range s.Values {
			first, last = min(first, p.Timestamp), max(last, p.Timestamp)
			if i > 0 {
				gap = max(gap, p.Timestamp.Sub(s.Values[i-1].Timestamp))
			}
		}
	}
	// Nobody knows how dense raw samples should be, so that none counts as missing.
	return span{start: first.Time(), end: last.Time(), step: max(gap, time.Millisecond)}
}

// bounds returns the range of the values, wide enough to be drawn.
func bounds(lines []*model.SampleStream) (low, high float64) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, s := range lines {
		for _, p := range s.Values {
			low, high = min(low, float64(p.Value)), max(high, float64(p.Value))
		}
	}
	// A flat line stands in the middle. So does one whose values differ by less than the axis can tell.
	if margin := max(math.Abs(low), math.Abs(high)) * 1e-9; high-low <= margin {
		margin = max(math.Abs(high)/10, 1)
		low, high = low-margin, high+margin
	}
	return low, high
}

// axisFormat returns how values on the axis are written: with as many digits as tell its rows apart.
func axisFormat(low, high float64) func(float64) string {
	decimals := 2 - int(math.Floor(math.Log10(high-low)))
	if most := max(math.Abs(low), math.Abs(high)); decimals > 9 || most >= 1e12 {
		return func(v float64) string { return strconv.FormatFloat(v, 'g', 10, 64) }
	}
	return func(v float64) string { return strconv.FormatFloat(v, 'f', max(decimals, 0), 64) }
}

// raster returns one value for each column: the mean of its samples, a point on the line between two samples that are at
// most a step apart, or NaN. Samples are sorted by time.
func raster(samples []model.SamplePair, asked span, columns int) []float64 {
	start, total := asked.start.UnixMilli(), max(asked.end.Sub(asked.start).Milliseconds(), 1)
	sums, counts := make([]float64, columns), make([]float64, columns)
	column := func(t model.Time) int {
		return min(max(int(math.Round(float64(int64(t)-start)/float64(total)*float64(columns-1))), 0), columns-1)
	}
	for _, p := range samples {
		c := column(p.Timestamp)
		counts[c]++
		sums[c] += (float64(p.Value) - sums[c]) / counts[c] // the mean so far: a sum could overflow
	}
	for c := range sums {
		if counts[c] == 0 {
			sums[c] = math.NaN()
		}
	}
	for i := 1; i < len(samples); i++ {
		if samples[i].Timestamp.Sub(samples[i-1].Timestamp) > asked.step+asked.step/2 {
			continue
		}
		from, to := column(samples[i-1].Timestamp), column(samples[i].Timestamp)
		for c := from + 1; c < to; c++ {
			part := float64(c-from) / float64(to-from)
			sums[c] = sums[from]*(1-part) + sums[to]*part
		}
	}
	return sums
}

// marks returns how lines are told apart: by colour, else by letter, and a single one not at all.
func marks(n int, coloured bool) ([]asciigraph.AnsiColor, []asciigraph.CharSet) {
	if n == 1 {
		return nil, nil
	}
	palette := []asciigraph.AnsiColor{
		asciigraph.Green, asciigraph.Blue, asciigraph.Yellow, asciigraph.Red, asciigraph.Cyan, asciigraph.Magenta,
		asciigraph.White, asciigraph.Orange, asciigraph.Pink, asciigraph.Purple,
	}
	if coloured && n <= len(palette) {
		return palette[:n], nil
	}
	charsets := make([]asciigraph.CharSet, n)
	for i := range charsets {
		charsets[i] = asciigraph.CreateCharSet(string(rune('a' + i)))
	}
	return nil, charsets
}

// timeLayout is how times on the axis are written: with no more than the range needs.
func timeLayout(s span) string {
	switch d := s.end.Sub(s.start); {
	case d <= 10*time.Minute:
		return "15:04:05"
	case d <= 24*time.Hour:
		return "15:04"
	case d <= 10*24*time.Hour:
		return "01-02 15:04"
	default:
		return "2006-01-02"
	}
}
