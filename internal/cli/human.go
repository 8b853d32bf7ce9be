package cli

import (
	"strconv"
	"time"
)

// Bytes writes a number of bytes for people, with three digits or more: 1.50 KiB, 25.0 MiB, 1023 B.
func Bytes(n int64) string {
	return scaled(float64(n), 1024, []string{" B", " KiB", " MiB", " GiB", " TiB", " PiB"})
}

// Count writes a number of things for people: 999, 1.50k, 25.0M.
func Count(n int64) string {
	return scaled(float64(n), 1000, []string{"", "k", "M", "G", "T"})
}

func scaled(v, base float64, units []string) string {
	i := 0
	for ; i < len(units)-1 && (v >= base || v <= -base); i++ {
		v /= base
	}
	digits := 0
	if i > 0 {
		switch {
		case v < 10 && v > -10:
			digits = 2
		case v < 100 && v > -100:
			digits = 1
		}
	}
	return strconv.FormatFloat(v, 'f', digits, 64) + units[i]
}

// quantity writes n in the unit: bytes in their multiples, everything else as a count with the unit's name.
func quantity(n int64, unit string) string {
	if unit == "bytes" {
		return Bytes(n)
	}
	return Count(n)
}

// short writes a duration without fractions that nobody reads.
func short(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	default:
		return d.Round(time.Second).String()
	}
}
