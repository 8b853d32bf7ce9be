package app

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPrometheusRelease(t *testing.T) {
	require.Equal(t, "3.15.0", prometheusRelease("v0.315.0"))
	require.Equal(t, "3.5.1", prometheusRelease("v0.305.1"))
	require.Equal(t, "3.0.0", prometheusRelease(""), "a build without module information")
	require.Contains(t, readBuild().String(), "duramen ")
}
