// Package budget owns how much memory reading may take: what limits the process, the shares of that for the caches and
// for chunks on their way, and a pool from which queries reserve before they read. It refuses to hold the bytes
// themselves: a reservation is a number. Read package cache next for what the shares are spent on.
package budget

import (
	"errors"
	"flag"
	"fmt"
	"time"
)

// The shares of the memory limit when nobody sets any. Together they leave more than half of it to the rest of the
// process: heads of the ingester, the PromQL engine, garbage that waits for the collector.
const (
	defaultDirectoriesShare = 0.05
	defaultPagesShare       = 0.10
	defaultChunksShare      = 0.25
	defaultQueryShare       = 0.25
	defaultMaxWait          = 20 * time.Second
)

// maxShares is how much of the limit the three budgets may be together.
const maxShares = 0.90

// minPoolBytes is the least pool of chunk buffers: two windows of 8 MiB.
const minPoolBytes = 16 << 20

// Config holds what an operator may set.
type Config struct {
	// LimitBytes is the memory limit from which the budgets follow; 0 means what MemoryLimit finds.
	LimitBytes int64 `yaml:"limit_bytes"`
	// DirectoriesShare, PagesShare and ChunksShare are parts of the limit, between 0 and 1.
	DirectoriesShare float64 `yaml:"directories_share"`
	PagesShare       float64 `yaml:"pages_share"`
	ChunksShare      float64 `yaml:"chunks_share"`
	// QueryShare is the part of the chunk buffers that one query may hold.
	QueryShare float64 `yaml:"query_share"`
	// MaxWait is how long a query waits for chunk buffers before it is refused; 0 means as long as it lives.
	MaxWait time.Duration `yaml:"max_wait"`
}

// RegisterFlags adds the settings to f with their defaults.
func (c *Config) RegisterFlags(f *flag.FlagSet) {
	f.Int64Var(&c.LimitBytes, "chunkstore.memory.limit-bytes", 0,
		"Memory limit in bytes from which the budgets of the chunkstore follow. 0 means the smallest of the container's "+
			"limit (cgroup v1 or v2), GOMEMLIMIT and the physical memory. It bounds the budgets, not the process.")
	f.Float64Var(&c.DirectoriesShare, "chunkstore.memory.directories-share", defaultDirectoriesShare,
		"Part of the memory limit for directories of blocks, which say where the series of a metric are.")
	f.Float64Var(&c.PagesShare, "chunkstore.memory.pages-share", defaultPagesShare,
		"Part of the memory limit for decoded pages of series.")
	f.Float64Var(&c.ChunksShare, "chunkstore.memory.chunks-share", defaultChunksShare,
		"Part of the memory limit for chunks on their way from bucket or disk into queries. Queries wait for it.")
	f.Float64Var(&c.QueryShare, "chunkstore.memory.query-share", defaultQueryShare,
		"Part of the chunk buffers that one query may hold at once. A query that needs more is refused with 422.")
	f.DurationVar(&c.MaxWait, "chunkstore.memory.max-wait", defaultMaxWait,
		"How long a query waits for chunk buffers before it is refused with 429. 0 means as long as the query lives.")
}

// Validate says which setting is wrong and what would be right.
func (c *Config) Validate() error {
	var errs []error
	if c.LimitBytes < 0 {
		errs = append(errs, fmt.Errorf("chunkstore.memory.limit_bytes is %d: set 0 (what is found) or more bytes",
			c.LimitBytes))
	}
	for _, s := range []struct {
		name  string
		value float64
		zero  bool // 0 is fine: no cache
	}{
		{"directories_share", c.DirectoriesShare, true},
		{"pages_share", c.PagesShare, true},
		{"chunks_share", c.ChunksShare, false},
		{"query_share", c.QueryShare, false},
	} {
		if !(s.value >= 0 && s.value <= 1) || s.value == 0 && !s.zero { // also not a number
			errs = append(errs, fmt.Errorf("chunkstore.memory.%s is %g: set a part of 1, such as 0.1", s.name, s.value))
		}
	}
	if sum := c.DirectoriesShare + c.PagesShare + c.ChunksShare; sum > maxShares && errs == nil {
		errs = append(errs, fmt.Errorf("chunkstore.memory: directories_share, pages_share and chunks_share are %g together: "+
			"keep them at %g or below, the process needs memory besides", sum, maxShares))
	}
	if c.MaxWait < 0 {
		errs = append(errs, fmt.Errorf("chunkstore.memory.max_wait is %s: set 0 (no limit) or more", c.MaxWait))
	}
	return errors.Join(errs...)
}

// Budgets are bytes for each use, made from a Config and a memory limit.
type Budgets struct {
	// Limit is what the shares are of, Source who said so.
	Limit  int64
	Source string
	// Directories and Pages are for caches; 0 is none.
	Directories, Pages int64
	// Pool is for chunk buffers.
	Pool PoolConfig
}

// Budgets turns shares into bytes. c is valid.
func (c *Config) Budgets() Budgets {
	limit, source := c.LimitBytes, "chunkstore.memory.limit_bytes"
	if limit == 0 {
		limit, source = MemoryLimit()
	}
	pool := max(share(limit, c.ChunksShare), minPoolBytes)
	return Budgets{
		Limit: limit, Source: source,
		Directories: share(limit, c.DirectoriesShare),
		Pages:       share(limit, c.PagesShare),
		Pool:        PoolConfig{Bytes: pool, QueryBytes: max(share(pool, c.QueryShare), minPoolBytes/2), MaxWait: c.MaxWait},
	}
}

func share(bytes int64, part float64) int64 { return int64(float64(bytes) * part) }
