package replicate

import (
	"flag"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestConfigValidate(t *testing.T) {
	var c Config
	c.RegisterFlags(flag.NewFlagSet("", flag.ContinueOnError))
	require.NoError(t, c.Validate())
	for want, change := range map[string]func(c *Config){
		"max_inflight_bytes is 0; use more than 0": func(c *Config) { c.MaxInflightBytes = 0 },
		"max_inflight_bytes is -1":                 func(c *Config) { c.MaxInflightBytes = -1 },
		"max_late_bytes is -1":                     func(c *Config) { c.MaxLateBytes = -1 },
		"table_bytes is -1":                        func(c *Config) { c.TableBytes = -1 },
		"push_timeout is 0s":                       func(c *Config) { c.PushTimeout = 0 },
		"late_timeout is 1s; use at least":         func(c *Config) { c.LateTimeout = time.Second },
	} {
		bad := c
		change(&bad)
		require.ErrorContains(t, bad.Validate(), want)
	}
	c.TableBytes, c.MaxLateBytes = 0, 0 // nothing is kept of series, and no replica may be late
	require.NoError(t, c.Validate())
}
