package query

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestStep(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"30s": 30 * time.Second, "5m": 5 * time.Minute, "1d": 24 * time.Hour, "15": 15 * time.Second, "0.5": 500 * time.Millisecond,
	} {
		got, err := step(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got)
	}
	for _, text := range []string{"", "0", "-1", "-5m", "0s", "x", "NaN", "Inf", "0.0001"} {
		_, err := step(text)
		require.ErrorContains(t, err, "is no step", text)
	}
	require.Equal(t, time.Minute, defaultStep(time.Hour, 60))
	require.Equal(t, time.Second, defaultStep(time.Second, 60), "never below a second")
	require.Equal(t, 24*time.Second, defaultStep(time.Hour, 150))
}
