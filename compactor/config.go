package compactor

import (
	"errors"
	"flag"
	"fmt"
	"time"
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
}

// RegisterFlags registers the flags and sets the defaults.
func (c *Config) RegisterFlags(f *flag.FlagSet) {
	f.IntVar(&c.Concurrency, "compactor.concurrency", 1,
		"Jobs that run at a time, of different tenants or times. Each takes one core and up to half a GiB of memory.")
	f.DurationVar(&c.Interval, "compactor.interval", 5*time.Minute,
		"How often each tenant's blocks are looked through for what is to be merged, rewritten or has expired; at once after "+
			"this process changed them. 0 means never, but for POST /compactor/run: use it while a compactor of Cortex, Mimir "+
			"or Thanos works on the bucket.")
}

// Validate returns all faults.
func (c *Config) Validate() error {
	var errs []error
	if c.Concurrency < 1 {
		errs = append(errs, fmt.Errorf("concurrency is %d; use 1 or more", c.Concurrency))
	}
	if c.Interval != 0 && c.Interval < time.Second {
		errs = append(errs, fmt.Errorf("interval is %v; use at least 1s, such as 5m, or 0 for never", c.Interval))
	}
	return errors.Join(errs...)
}
