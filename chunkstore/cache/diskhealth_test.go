package cache

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

// A warning that was just given must not swallow one of another kind: an operator would look for room, not at the disk.
func TestWarningsOfTheDiskAreRationedEachForItself(t *testing.T) {
	var out strings.Builder
	clock := time.Unix(1000, 0)
	h := diskHealth{
		now:     func() time.Time { return clock },
		log:     slog.New(slog.NewTextHandler(&out, nil)),
		metrics: newDiskMetrics(prometheus.NewRegistry()),
		said:    map[string]time.Time{},
	}
	h.say("nearly full")
	for range 5 {
		h.failed("create", errors.New("input/output error"))
		h.say("nearly full")
	}
	require.Equal(t, 1, strings.Count(out.String(), "nearly full"))
	require.Equal(t, 1, strings.Count(out.String(), "disk cache failed"))

	clock = clock.Add(sayInterval)
	h.failed("create", errors.New("input/output error"))
	require.Equal(t, 2, strings.Count(out.String(), "disk cache failed"))
}
