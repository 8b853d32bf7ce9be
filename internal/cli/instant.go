package cli

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
)

// Instant reads a point in time: "now", a time ago such as "-1h30m" or "now-1d", seconds since the Unix epoch, or a date
// with or without a time of day, in UTC unless it names a zone.
func Instant(text string, now time.Time) (time.Time, error) {
	if rest, ok := strings.CutPrefix(text, "now"); ok {
		if rest == "" {
			return now, nil
		}
		return relative(rest, now)
	}
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		if math.IsNaN(seconds) || math.Abs(seconds) > maxSeconds {
			return time.Time{}, fmt.Errorf("%q is no time that can be asked for", text)
		}
		return time.UnixMilli(int64(math.Round(seconds * 1000))).UTC(), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	return relative(text, now)
}

// maxSeconds keeps milliseconds in an int64 and years in what RFC 3339 can write: about the year 9999.
const maxSeconds = 253_402_300_799

// relative reads a signed duration in Prometheus' units and adds it to now.
func relative(text string, now time.Time) (time.Time, error) {
	if len(text) > 1 && (text[0] == '-' || text[0] == '+') {
		d, err := model.ParseDuration(text[1:])
		if err == nil && text[0] == '-' {
			return now.Add(-time.Duration(d)), nil
		}
		if err == nil {
			return now.Add(time.Duration(d)), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time: write now, -1h, now-1d, 2026-07-30T12:00:00Z or seconds since 1970", text)
}
