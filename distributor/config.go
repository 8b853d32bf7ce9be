package distributor

import (
	"flag"
	"fmt"
)

// Config holds what an operator may set.
type Config struct {
	// SeriesCacheBytes bounds the series caches of all tenants together.
	SeriesCacheBytes int64 `yaml:"series_cache_bytes"`
	// MaxInflightBytes bounds the memory of all requests that are being received, decoded or pushed.
	MaxInflightBytes int64 `yaml:"max_inflight_bytes"`
}

const minInflightBytes = 1 << 20

// RegisterFlags adds the flags of the distributor to f, with their defaults.
func (c *Config) RegisterFlags(f *flag.FlagSet) {
	f.Int64Var(&c.SeriesCacheBytes, "distributor.series-cache-bytes", 256<<20,
		"Memory in bytes for the caches of known series, all tenants together; 53 to 107 bytes a series.")
	f.Int64Var(&c.MaxInflightBytes, "distributor.max-inflight-bytes", 1<<30,
		"Memory in bytes for the bodies of all requests in flight, compressed and decoded. Above it writes are "+
			"answered with 503.")
}

// Validate says which field is wrong, its value and what would be right.
func (c *Config) Validate() error {
	if c.SeriesCacheBytes < 0 {
		return fmt.Errorf("series_cache_bytes is %d; use 0 or more", c.SeriesCacheBytes)
	}
	if c.MaxInflightBytes < minInflightBytes {
		return fmt.Errorf("max_inflight_bytes is %d; use %d or more", c.MaxInflightBytes, minInflightBytes)
	}
	return nil
}
