package ingester

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/compression"

	"github.com/duramendb/duramen/internal/tracing"
)

const (
	// blockRange is the length of every local block: the peers', which their readers and compactors expect.
	blockRange = 2 * time.Hour
	// stripeSize is the size of each head's series table. An empty head takes 3 MB at stock's 16,384 and 0.2 MB at this;
	// 100,000 series make chains of 100 under 1,024 locks, which one appender at a time does not contend for.
	stripeSize = 1024
	// headChunksWriteBuffer is allocated for every open head; stock's default of 4 MiB is meant for one head a process.
	headChunksWriteBuffer = 64 << 10
	// openConcurrency is how many TSDBs replay at a time at start: it bounds the memory of a replay.
	openConcurrency = 2
)

// Config holds what an operator may set.
type Config struct {
	// Dir is where the tenants' folders lie. The app derives it from the data directory.
	Dir string `yaml:"-"`
	// Writer names this ingester in the meta.json of its blocks. The app sets it.
	Writer string `yaml:"-"`
	// Tracing begins the traces of cuts and uploads; nil means none. The app sets it.
	Tracing *tracing.Provider `yaml:"-"`

	WALSync         SyncMode      `yaml:"wal_sync"`
	WALCompression  string        `yaml:"wal_compression"`
	MinFreeBytes    uint64        `yaml:"min_free_bytes"`
	IdleTimeout     time.Duration `yaml:"idle_timeout"`
	BlockRetention  time.Duration `yaml:"block_retention"`
	ShipInterval    time.Duration `yaml:"ship_interval"`
	StartTimestamps bool          `yaml:"start_timestamps"`
}

// RegisterFlags registers the flags and sets the defaults.
func (c *Config) RegisterFlags(f *flag.FlagSet) {
	c.WALSync, c.WALCompression = SyncInterval, compression.None
	f.Func("ingester.wal-sync", "When the write log reaches the disk: \"interval\" (once a second; a power cut loses up to "+
		"a second) or \"commit\" (before each answer). A crash of the process loses nothing either way. (default \"interval\")",
		func(s string) error { c.WALSync = SyncMode(s); return nil })
	f.StringVar(&c.WALCompression, "ingester.wal-compression", c.WALCompression,
		"Compression of the write log: none, snappy or zstd. Saves disk writes, costs about 30 % more CPU per sample.")
	f.Uint64Var(&c.MinFreeBytes, "ingester.min-free-bytes", 64<<20,
		"Writes are refused with 503 while the volume has fewer free bytes; reads and shipping go on. 0: the larger of 2 GiB "+
			"and 5 % of the volume, right for a cluster.")
	f.DurationVar(&c.IdleTimeout, "ingester.idle-timeout", time.Hour,
		"A tenant without writes for this long is flushed to the bucket and its memory given back.")
	f.DurationVar(&c.BlockRetention, "ingester.block-retention", 12*time.Hour,
		"How old a local block must be before it is deleted; it must be in the bucket for an hour, too. At least 12h: "+
			"queries count on it.")
	f.DurationVar(&c.ShipInterval, "ingester.ship-interval", time.Minute, "How often local blocks are looked for to upload.")
	f.BoolVar(&c.StartTimestamps, "ingester.start-timestamps", false,
		"Store the start timestamps of remote write 2.0, and use them in rate, irate, increase, resets and start_timestamp, "+
			"as a Prometheus with the features st-storage and use-start-timestamps. Log and blocks are then written in "+
			"encodings that Prometheus before 3.14 and other readers of blocks may not know. Otherwise they are counted and "+
			"dropped.")
}

// Validate says which field is wrong and what would be right.
func (c *Config) Validate() error {
	var errs []error
	if c.WALSync != SyncInterval && c.WALSync != SyncCommit {
		errs = append(errs, fmt.Errorf("ingester.wal-sync is %q; use %q or %q", c.WALSync, SyncInterval, SyncCommit))
	}
	if !slices.Contains(compression.Types(), c.WALCompression) {
		errs = append(errs, fmt.Errorf("ingester.wal-compression is %q; use %s", c.WALCompression,
			strings.Join(compression.Types(), ", ")))
	}
	if c.IdleTimeout < time.Minute {
		errs = append(errs, fmt.Errorf("ingester.idle-timeout is %s; at least 1m is needed", c.IdleTimeout))
	}
	if c.BlockRetention < 12*time.Hour {
		errs = append(errs, fmt.Errorf("ingester.block-retention is %s; at least 12h is needed", c.BlockRetention))
	}
	if c.ShipInterval < time.Second {
		errs = append(errs, fmt.Errorf("ingester.ship-interval is %s; at least 1s is needed", c.ShipInterval))
	}
	return errors.Join(errs...)
}

// tsdbOptions returns the options of one tenant's TSDB. Stock's own block retention, block compaction and head cut are
// off: local deletion is ours (localblocks.go), merging is the compactor's, cutting is ours (flush.go).
func (c *Config) tsdbOptions(window time.Duration, exemplars int, blocksToDelete tsdb.BlocksToDeleteFunc,
	series tsdb.SeriesLifecycleCallback,
) *tsdb.Options {
	o := tsdb.DefaultOptions()
	o.RetentionDuration = 0
	o.MaxBytes = 0
	o.MinBlockDuration = blockRange.Milliseconds()
	o.MaxBlockDuration = blockRange.Milliseconds()
	o.WALCompression = c.WALCompression
	o.StripeSize = stripeSize
	o.HeadChunksWriteBufferSize = headChunksWriteBuffer
	o.HeadChunksWriteQueueSize = 0 // a queue per head holds memory and hides write errors
	o.IsolationDisabled = false
	o.EnableOverlappingCompaction = false
	o.StaleSeriesCompactionThreshold = 0
	o.EnableSharding = true
	o.EnableExemplarStorage = true
	o.MaxExemplars = int64(exemplars)
	o.OutOfOrderTimeWindow = window.Milliseconds()
	o.BlocksToDelete = blocksToDelete
	o.SeriesLifecycleCallback = series
	if c.StartTimestamps {
		o.EnableSTStorage = true
		o.FloatChunkEncoding = chunkenc.EncXOR2
		o.EnableHistogramSTEncoding = true
	}
	return o
}
