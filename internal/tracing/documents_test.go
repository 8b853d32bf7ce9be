package tracing

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestEverySpanIsDocumented compares the names of spans in the code with docs/tracing.md.
func TestEverySpanIsDocumented(t *testing.T) {
	const root = "../.."
	name := regexp.MustCompile(`["\x60]((?:distributor|replicate|ingester|querier|manifest|gateway|bucket)\.[a-z_]+)["\x60]`)
	var inCode []string
	for _, dir := range []string{
		"distributor", "distributor/replicate", "ingester", "ingester/ingestrpc", "querier", "chunkstore/bucket", "chunkstore/gateway",
	} {
		files, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
		require.NoError(t, err)
		for _, file := range files {
			if base := filepath.Base(file); base == "config.go" || strings.HasSuffix(base, "_test.go") {
				continue // names of settings look alike
			}
			data, err := os.ReadFile(file)
			require.NoError(t, err)
			for _, m := range name.FindAllStringSubmatch(string(data), -1) {
				inCode = append(inCode, m[1])
			}
		}
	}
	data, err := os.ReadFile(filepath.Join(root, "docs", "tracing.md"))
	require.NoError(t, err)
	var documented []string
	for _, m := range name.FindAllStringSubmatch(string(data), -1) {
		documented = append(documented, m[1])
	}
	slices.Sort(inCode)
	slices.Sort(documented)
	require.Greater(t, len(inCode), 10)
	require.Equal(t, slices.Compact(inCode), slices.Compact(documented))
}
