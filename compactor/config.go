package compactor

import (
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"time"

	"github.com/duramendb/duramen/compactor/merge"
	"github.com/duramendb/duramen/compactor/plan"
	"github.com/duramendb/duramen/compactor/salvage"
)

// Config is about merging blocks in the bucket.
type Config struct {
	// Dir is where jobs keep files while they run; it is emptied at the start. Writer names this process in the blocks that
	// it writes and begins with manifest.CompactorWriter. MinFreeBytes of the volume of Dir are left to others. The app
	// sets them.
	Dir          string `yaml:"-"`
	Writer       string `yaml:"-"`
	MinFreeBytes int64  `yaml:"-"`

	Concurrency int           `yaml:"concurrency"`
	Interval    time.Duration `yaml:"interval"`

	MaxSymbolBytes int64         `yaml:"max_symbol_bytes"`
	MaxIndexBytes  int64         `yaml:"max_index_bytes"`
	DeletionDelay  time.Duration `yaml:"deletion_delay"`

	Salvage salvage.Config `yaml:",inline"`
}

// RegisterFlags registers the flags and sets the defaults.
func (c *Config) RegisterFlags(f *flag.FlagSet) {
	f.IntVar(&c.Concurrency, "compactor.concurrency", 2,
		"Jobs that run at a time, of different tenants or times. Each takes one core and up to half a GiB of memory, besides "+
			"compactor.max-symbol-bytes. One of two or more takes slots of two hours alone, so that no tenant's slots wait for "+
			"another's day; with 1, a day rests while slots are merged.")
	f.Int64Var(&c.MaxSymbolBytes, "compactor.max-symbol-bytes", merge.DefaultSymbolBytes,
		"The most memory that a job takes for names and values of labels, in bytes: about 300 for each different one, and 4 more "+
			"for each block that has it. Blocks that need more are left as they are, so that one tenant with too many series cannot "+
			"take the memory of all.")
	f.DurationVar(&c.Interval, "compactor.interval", 5*time.Minute,
		"How often each tenant's blocks are looked through for what is to be merged, rewritten or has expired; at once after "+
			"this process changed them. 0 means never, but for POST /compactor/run: use it while a compactor of Cortex, Mimir "+
			"or Thanos works on the bucket.")
	f.Int64Var(&c.MaxIndexBytes, "compactor.max-index-bytes", plan.DefaultMaxIndexBytes,
		"The largest index of a block that is made, in bytes, by prediction and while it is written. Blocks that would give "+
			"a larger one are left as they are. The format ends at 64 GiB.")
	f.DurationVar(&c.DeletionDelay, "compactor.deletion-delay", plan.DefaultDeletionDelay,
		"How old the deletion of series is before blocks are rewritten for its sake alone; until then it can be taken back, "+
			"and several are worked in together. Queries do not show what is deleted from the beginning.")
	c.Salvage.RegisterFlags(f)
}

// Validate returns all faults.
func (c *Config) Validate() error {
	errs := []error{c.Salvage.Validate()}
	if c.Concurrency < 1 {
		errs = append(errs, fmt.Errorf("concurrency is %d; use 1 or more", c.Concurrency))
	}
	if c.Interval != 0 && c.Interval < time.Second {
		errs = append(errs, fmt.Errorf("interval is %v; use at least 1s, such as 5m, or 0 for never", c.Interval))
	}
	if c.MaxSymbolBytes != 0 && c.MaxSymbolBytes < 1<<20 {
		errs = append(errs, fmt.Errorf("max_symbol_bytes is %d; use 1048576 or more, or 0 for %d", c.MaxSymbolBytes,
			int64(merge.DefaultSymbolBytes)))
	}
	if c.MaxIndexBytes < 1<<20 || c.MaxIndexBytes > 64<<30 {
		errs = append(errs, fmt.Errorf("max_index_bytes is %d; use 1048576 to 68719476736, such as %d", c.MaxIndexBytes,
			int64(plan.DefaultMaxIndexBytes)))
	}
	if c.DeletionDelay < 0 {
		errs = append(errs, fmt.Errorf("deletion_delay is %v; use a duration such as 1h, or 0 for at once", c.DeletionDelay))
	}
	return errors.Join(errs...)
}

func (c *Config) merging() merge.Config {
	return merge.Config{
		Scratch: c.Dir, MaxSymbolBytes: c.MaxSymbolBytes, MaxIndexBytes: c.MaxIndexBytes, MinFreeBytes: c.MinFreeBytes,
	}
}

// salvaging has a folder beside those of merges, which are swept.
func (c *Config) salvaging() salvage.Config {
	s := c.Salvage
	s.Scratch, s.MinFreeBytes, s.MaxMemoryBytes = filepath.Join(c.Dir, "salvage"), c.MinFreeBytes, c.MaxSymbolBytes
	return s
}
