package query

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/prometheus/common/model"
)

// stamp writes a time in UTC, with milliseconds only when there are any.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.999Z07:00") }

// number writes a value as Prometheus does: digits where they are readable, an exponent for the very large and small.
func number(v float64) string {
	if a := math.Abs(v); a != 0 && !math.IsInf(v, 0) && (a < 1e-6 || a >= 1e21) {
		return strconv.FormatFloat(v, 'e', -1, 64)
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

// writeTable writes an answer for people. The order of series is the server's.
func writeTable(w io.Writer, value model.Value) error {
	var b strings.Builder
	switch v := value.(type) {
	case model.Vector:
		tableOfVector(&b, v)
	case model.Matrix:
		tableOfMatrix(&b, v)
	case *model.Scalar:
		fmt.Fprintf(&b, "at %s\n%s\n", stamp(v.Timestamp.Time()), number(float64(v.Value)))
	case *model.String:
		fmt.Fprintf(&b, "at %s\n%s\n", stamp(v.Timestamp.Time()), v.Value)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// nothing is what a table says when there is no series.
const nothing = "no series\n"

func tableOfVector(b *strings.Builder, v model.Vector) {
	if len(v) == 0 {
		b.WriteString(nothing)
		return
	}
	fmt.Fprintf(b, "at %s\n", stamp(v[0].Timestamp.Time()))
	width := 0
	for _, s := range v {
		width = max(width, utf8.RuneCountInString(s.Metric.String()))
	}
	for _, s := range v {
		name := s.Metric.String()
		fmt.Fprintf(b, "%s%s  ", name, strings.Repeat(" ", width-utf8.RuneCountInString(name)))
		if s.Histogram == nil {
			fmt.Fprintln(b, number(float64(s.Value)))
			continue
		}
		fmt.Fprintln(b, summary(s.Histogram))
		bars(b, s.Histogram)
	}
}

func tableOfMatrix(b *strings.Builder, m model.Matrix) {
	if len(m) == 0 {
		b.WriteString(nothing)
		return
	}
	for _, s := range m {
		fmt.Fprintln(b, s.Metric)
		eachPoint(s, func(t model.Time, text string) { fmt.Fprintf(b, "  %-24s  %s\n", stamp(t.Time()), text) })
	}
}

// eachPoint calls f with the samples of a series by time, floats and histograms together.
func eachPoint(s *model.SampleStream, f func(t model.Time, text string)) {
	floats, histograms := s.Values, s.Histograms
	for len(floats) > 0 || len(histograms) > 0 {
		if len(histograms) == 0 || len(floats) > 0 && floats[0].Timestamp <= histograms[0].Timestamp {
			f(floats[0].Timestamp, number(float64(floats[0].Value)))
			floats = floats[1:]
			continue
		}
		f(histograms[0].Timestamp, compact(histograms[0].Histogram))
		histograms = histograms[1:]
	}
}

// summary is the first line of a histogram.
func summary(h *model.SampleHistogram) string {
	text := fmt.Sprintf("histogram: count %s, sum %s", number(float64(h.Count)), number(float64(h.Sum)))
	if h.Count > 0 {
		text += ", mean " + strconv.FormatFloat(float64(h.Sum)/float64(h.Count), 'g', 6, 64)
	}
	return text
}

// compact is a histogram in one line, with its buckets as ranges: ( and ) leave the border out, [ and ] take it in.
func compact(h *model.SampleHistogram) string {
	var b strings.Builder
	fmt.Fprintf(&b, "{count:%s, sum:%s", number(float64(h.Count)), number(float64(h.Sum)))
	for _, bucket := range h.Buckets {
		fmt.Fprintf(&b, ", %s:%s", borders(bucket), number(float64(bucket.Count)))
	}
	return b.String() + "}"
}

func borders(b *model.HistogramBucket) string {
	left, right := "(", ")"
	if b.Boundaries == 1 || b.Boundaries == 3 {
		left = "["
	}
	if b.Boundaries == 0 || b.Boundaries == 3 {
		right = "]"
	}
	short := func(v model.FloatString) string { return strconv.FormatFloat(float64(v), 'g', 6, 64) }
	return left + short(b.Lower) + "," + short(b.Upper) + right
}

// barWidth is the length of the bar of the fullest bucket.
const barWidth = 40

// bars draws the buckets of a histogram, one a line.
func bars(b *strings.Builder, h *model.SampleHistogram) {
	width, most := 0, 0.0
	for _, bucket := range h.Buckets {
		width = max(width, len(borders(bucket)))
		most = max(most, float64(bucket.Count))
	}
	for _, bucket := range h.Buckets {
		length := 0
		if most > 0 && bucket.Count > 0 {
			length = max(1, int(math.Round(barWidth*float64(bucket.Count)/most)))
		}
		fmt.Fprintf(b, "  %-*s  %s %s\n", width, borders(bucket), strings.Repeat("█", min(length, barWidth)), number(float64(bucket.Count)))
	}
}
