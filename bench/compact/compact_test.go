package main

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMain lets the test binary be the process of one side, as the command is.
func TestMain(m *testing.M) {
	side := os.Getenv(sideVariable)
	if side == "" {
		os.Exit(m.Run())
	}
	if err := work(context.Background(), side); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// TestBars: those that do not depend on the machine, over a day of 2,000 series.
func TestBars(t *testing.T) {
	err := run(t.Context(), []string{"-series", "2000", "-rounds", "1", "-assert-cpu=false", "-dir", t.TempDir()})
	require.NoError(t, err)
}

func TestMissedBarsAreErrors(t *testing.T) {
	good := figures{Copied: 98, Encoded: 2, Index: 100, disk: 150, Memory: 1 << 20, cpu: 1}
	prometheus := figures{cpu: 3, Index: 100}
	require.NoError(t, report(good, prometheus, true))
	for name, change := range map[string]func(*figures){
		"copied": func(f *figures) { f.Encoded = 20 },
		"disk":   func(f *figures) { f.disk = 221 },
		"memory": func(f *figures) { f.Memory = 1 << 30 },
		"CPU":    func(f *figures) { f.cpu = 2 },
	} {
		bad := good
		change(&bad)
		require.ErrorIs(t, report(bad, prometheus, true), errMissed, name)
	}
}
