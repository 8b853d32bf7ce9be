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
	// RemoteReadSampleLimit bounds the samples of an unstreamed answer of remote read; 0 does not.
	RemoteReadSampleLimit int `yaml:"remote_read_sample_limit"`
	// RemoteReadConcurrentLimit bounds the remote reads that run at the same time; 0 does not.
	RemoteReadConcurrentLimit int `yaml:"remote_read_concurrent_limit"`
	// RemoteReadMaxBytesInFrame is the size from which on a series is divided over frames of a streamed answer.
	RemoteReadMaxBytesInFrame int `yaml:"remote_read_max_bytes_in_frame"`

	// EnableAdminAPI answers requests to delete series; without it they get 500, as from Prometheus.
	EnableAdminAPI bool `yaml:"enable_admin_api"`

	// MemoryShare is the part of the process' memory limit for what queries hold; 0 leaves it to MaxSamples.
	MemoryShare float64 `yaml:"memory_share"`

	// MemoryBytes is what MemoryShare comes to. It is wiring; 0 does not bound.
	MemoryBytes int64 `yaml:"-"`
	// Dir is a folder of its own for what is remembered of tenants over restarts. It is wiring; "" remembers nothing.
	Dir string `yaml:"-"`
	// UseStartTimestamps lets rate, irate, increase, resets and start_timestamp look at start timestamps. It is wiring:
	// where they are stored, they are used.
	UseStartTimestamps bool `yaml:"-"`
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
	f.Float64Var(&c.MemoryShare, "querier.memory-share", 0.3,
		"Part of the memory limit (see chunkstore.memory.limit_bytes) for series and samples that queries hold. Half of it is "+
			"divided among querier.max_concurrent small queries. One that needs more waits for one of a few large slots, an "+
			"eighth as many, among which the other half is divided; over that it gets 422. 0 leaves it to "+
			"querier.max_samples alone.")
	f.DurationVar(&c.LookbackDelta, "querier.lookback-delta", 5*time.Minute,
		"How old a sample may be to stand for its series at an instant.")
	f.IntVar(&c.MaxConcurrent, "querier.max-concurrent", 20,
		"Queries that run at the same time: PromQL, federation, lists of series and labels. Three of four at most are over "+
			"samples in the bucket, and from eight on seven of eight at most are of one tenant. Others wait for their turn "+
			"within their timeout; tenants take turns.")
	f.BoolVar(&c.EnablePromQLExperimentalFunctions, "querier.enable-promql-experimental-functions", false,
		"Allow PromQL functions that Prometheus calls experimental; they may change or go.")
	f.BoolVar(&c.EnableAdminAPI, "querier.enable-admin-api", false,
		"Answer /prometheus/api/v1/admin/tsdb: whoever can send a request for a tenant can then delete its samples.")
	f.IntVar(&c.RemoteReadSampleLimit, "querier.remote-read-sample-limit", 50_000_000,
		"Samples in an answer of remote read that is not streamed; 0 is no limit. A request over it gets 400.")
	f.IntVar(&c.RemoteReadConcurrentLimit, "querier.remote-read-concurrent-limit", 10,
		"Remote reads that run at the same time, shared out as querier.max_concurrent; others wait for their turn within "+
			"the timeout. 0 is no limit.")
	f.IntVar(&c.RemoteReadMaxBytesInFrame, "querier.remote-read-max-bytes-in-frame", 40<<20,
		"Bytes of one series in a streamed answer of remote read from which on it is divided over several frames. "+
			"Prometheus takes up to 50 MB in a frame, and answers wrongly over a series that is divided.")
}

// Validate says which setting is wrong and what would be right.
func (c *Config) Validate() error {
	switch {
	case c.Timeout <= 0:
		return fmt.Errorf("querier.timeout is %s: set a positive duration such as 2m", c.Timeout)
	case c.MaxSamples <= 0:
		return fmt.Errorf("querier.max_samples is %d: set a positive number such as 50000000", c.MaxSamples)
	case !(c.MemoryShare >= 0 && c.MemoryShare <= 0.6):
		return fmt.Errorf("querier.memory_share is %g: set a part of 1 up to 0.6, such as 0.3, or 0", c.MemoryShare)
	case c.LookbackDelta <= 0:
		return fmt.Errorf("querier.lookback_delta is %s: set a positive duration such as 5m", c.LookbackDelta)
	case c.MaxConcurrent <= 0:
		return fmt.Errorf("querier.max_concurrent is %d: set a positive number such as 20", c.MaxConcurrent)
	case c.RemoteReadSampleLimit < 0:
		return fmt.Errorf("querier.remote_read_sample_limit is %d: set a positive number such as 50000000, or 0 for no limit",
			c.RemoteReadSampleLimit)
	case c.RemoteReadConcurrentLimit < 0:
		return fmt.Errorf("querier.remote_read_concurrent_limit is %d: set a positive number such as 10, or 0 for no limit",
			c.RemoteReadConcurrentLimit)
	case c.RemoteReadMaxBytesInFrame <= 0:
		return fmt.Errorf("querier.remote_read_max_bytes_in_frame is %d: set a positive number such as 41943040",
			c.RemoteReadMaxBytesInFrame)
	default:
		return nil
	}
}
