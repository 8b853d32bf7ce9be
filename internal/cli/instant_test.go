package cli

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestInstant(t *testing.T) {
	now := time.Date(2026, 7, 30, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"now":                       now,
		"-1h":                       now.Add(-time.Hour),
		"+90m":                      now.Add(90 * time.Minute),
		"-1h30m":                    now.Add(-90 * time.Minute),
		"now-1d":                    now.AddDate(0, 0, -1),
		"now+5m":                    now.Add(5 * time.Minute),
		"-2w":                       now.AddDate(0, 0, -14),
		"1700000000":                time.Unix(1700000000, 0).UTC(),
		"1700000000.123":            time.UnixMilli(1700000000123).UTC(),
		"-1":                        time.Unix(-1, 0).UTC(),
		"2026-07-30T12:00:00Z":      now,
		"2026-07-30T14:00:00+02:00": now,
		"2026-07-30T12:00:00.25Z":   now.Add(250 * time.Millisecond),
		"2026-07-30T12:00:00":       now,
		"2026-07-30 12:00":          now,
		"2026-07-30":                now.Add(-12 * time.Hour),
	} {
		got, err := Instant(text, now)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "yesterday", "1h", "nowish", "-", "now-", "-1x", "NaN", "1e300", "2026-13-01"} {
		_, err := Instant(text, now)
		require.ErrorContains(t, err, "is no time", text)
	}
}
