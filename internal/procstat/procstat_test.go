package procstat

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestOwnProcess(t *testing.T) {
	pid := os.Getpid()
	before, err := CPU(pid)
	require.NoError(t, err)
	for after := before; after <= before; { // spends CPU until the clock of 10 ms moves
		after, err = CPU(pid)
		require.NoError(t, err)
	}
	rss, err := RSS(pid)
	require.NoError(t, err)
	peak, err := PeakRSS(pid)
	require.NoError(t, err)
	require.Greater(t, rss, int64(1<<20))
	require.GreaterOrEqual(t, peak, int64(1<<20))
	require.Less(t, peak, int64(1<<40))
}

func TestNameMayHoldAnything(t *testing.T) {
	ticks, err := ticksOf([]byte("7 (a b) c) R) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0"))
	require.NoError(t, err)
	require.Equal(t, 2*time.Second, time.Duration(ticks)*time.Second/perSecond)
	_, err = ticksOf([]byte("7 (short) S 1"))
	require.Error(t, err)
	_, err = ticksOf(nil)
	require.Error(t, err)
}

func TestNoSuchProcess(t *testing.T) {
	for _, f := range []func(int) error{
		func(pid int) error { _, err := CPU(pid); return err },
		func(pid int) error { _, err := RSS(pid); return err },
		func(pid int) error { _, err := PeakRSS(pid); return err },
	} {
		require.ErrorIs(t, f(1<<30), os.ErrNotExist)
	}
}
