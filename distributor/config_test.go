package distributor

import (
	"flag"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestConfigDefaultsAreValidAndWrongOnesAreNamed(t *testing.T) {
	var c Config
	c.RegisterFlags(flag.NewFlagSet("", flag.ContinueOnError))
	require.NoError(t, c.Validate())
	require.EqualValues(t, 256<<20, c.SeriesCacheBytes)
	c.SeriesCacheBytes = -1
	require.EqualError(t, c.Validate(), "series_cache_bytes is -1; use 0 or more")
	c = Config{MaxInflightBytes: 5}
	require.EqualError(t, c.Validate(), "max_inflight_bytes is 5; use 1048576 or more")
}
