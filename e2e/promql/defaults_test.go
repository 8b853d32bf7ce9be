package promql

import (
	"flag"
	"testing"

	"github.com/stretchr/testify/require"
)

// setDefaults fills a component's config with the defaults that its flags declare.
func setDefaults(t testing.TB, cfg interface{ RegisterFlags(*flag.FlagSet) }) {
	t.Helper()
	fs := flag.NewFlagSet("defaults", flag.ContinueOnError)
	cfg.RegisterFlags(fs)
	require.NoError(t, fs.Parse(nil))
}
