package buildinfo

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRelease(t *testing.T) {
	require.Equal(t, "3.15.0", release("v0.315.0"))
	require.Equal(t, "3.5.1", release("v0.305.1"))
	require.Equal(t, "3.0.0", release(""), "a build without module information")
}

func TestLineNamesTheCommand(t *testing.T) {
	require.Regexp(t, `^thing \S+ \(revision \S+, go1\S+, \w+/\w+, Prometheus 3\.`, Read().Line("thing"))
}
