package querier

import (
	"flag"
	"fmt"
	"time"
)

// Config holds what an operator may set.
type Config struct {
	// Timeout ends a query, with time that it waits for a slot included.
	Timeout time.Duration `yaml:"timeout"`
	// MaxSamples bounds the samples that one query holds in memory at a time.
	MaxSamples int `yaml:"max_samples"`
	// LookbackDelta is how old a sample may be to stand for its series at an instant.
	LookbackDelta time.Duration `yaml:"lookback_delta"`
	// MaxConcurrent bounds the PromQL queries that run at the same time; others wait.
	MaxConcurrent int `yaml:"max_concurrent"`
	// EnablePromQLExperimentalFunctions allows functions that Prometheus still calls experimental.
	EnablePromQLExperimentalFunctions bool `yaml:"enable_promql_experimental_functions"`

	// BuildInfo is what status/buildinfo answers. It is wiring, not a setting.
	BuildInfo BuildInfo `yaml:"-"`
}

// BuildInfo is the answer of status/buildinfo. Clients such as Grafana decide by Version which parts of the Prometheus
// API they use, so it should be the version of Prometheus whose API is spoken; ours belongs into Revision or Branch.
type BuildInfo struct {
	Version, Revision, Branch, BuildUser, BuildDate, GoVersion string
}

// RegisterFlags adds the settings to f with their defaults, which are those of Prometheus.
func (c *Config) RegisterFlags(f *flag.FlagSet) {
	f.DurationVar(&c.Timeout, "querier.timeout", 2*time.Minute,
		"Time after which a query is ended, waiting included.")
	f.IntVar(&c.MaxSamples, "querier.max-samples", 50_000_000,
		"Samples that one query may hold in memory at a time; a query over it gets 422.")
	f.DurationVar(&c.LookbackDelta, "querier.lookback-delta", 5*time.Minute,
		"How old a sample may be to stand for its series at an instant.")
	f.IntVar(&c.MaxConcurrent, "querier.max-concurrent", 20,
		"PromQL queries that run at the same time; others wait for their turn within their timeout.")
	f.BoolVar(&c.EnablePromQLExperimentalFunctions, "querier.enable-promql-experimental-functions", false,
		"Allow PromQL functions that Prometheus calls experimental; they may change or go.")
}

// Validate says which setting is wrong and what would be right.
func (c *Config) Validate() error {
	switch {
	case c.Timeout <= 0:
		return fmt.Errorf("querier.timeout is %s: set a positive duration such as 2m", c.Timeout)
	case c.MaxSamples <= 0:
		return fmt.Errorf("querier.max_samples is %d: set a positive number such as 50000000", c.MaxSamples)
	case c.LookbackDelta <= 0:
		return fmt.Errorf("querier.lookback_delta is %s: set a positive duration such as 5m", c.LookbackDelta)
	case c.MaxConcurrent <= 0:
		return fmt.Errorf("querier.max_concurrent is %d: set a positive number such as 20", c.MaxConcurrent)
	default:
		return nil
	}
}
