package query

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
)

// maxSeconds keeps milliseconds in an int64.
const maxSeconds = 253_402_300_799

// step reads a step: a duration in Prometheus' units or seconds.
func step(text string) (time.Duration, error) {
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		if !(seconds >= 0.001 && seconds <= maxSeconds/100) {
			return 0, fmt.Errorf("%q is no step: it is at least 1 ms", text)
		}
		return time.Duration(math.Round(seconds*1000)) * time.Millisecond, nil
	}
	d, err := model.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q is no step: write 30s, 5m or a number of seconds", text)
	}
	return time.Duration(d), nil
}

// defaultStep is the step that gives about as many points as are wanted, in whole seconds.
func defaultStep(span time.Duration, points int) time.Duration {
	s := span / time.Duration(max(points, 1))
	return max(s.Truncate(time.Second), time.Second)
}

// seconds writes a time as the API takes it, exact to the millisecond.
func seconds(t time.Time) string {
	return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64)
}
