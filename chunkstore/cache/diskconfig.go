package cache

import (
	"flag"
	"fmt"
)

const (
	// autoDiskBytes bounds what the disk cache takes when nobody says how much, and autoDiskShare, one in so many, the
	// part of the free space of its volume at start.
	autoDiskBytes = 10 << 30
	autoDiskShare = 5
	// minDiskBytes is the least disk cache: below it nothing stays long enough to be found again.
	minDiskBytes = 16 << 20
)

// AutoDiskBytes as MaxBytes means a share of the volume.
const AutoDiskBytes = -1

// DiskConfig holds what an operator may set of the disk cache.
type DiskConfig struct {
	// Dir is where it lies; empty means a place that the process chooses.
	Dir string `yaml:"dir"`
	// MaxBytes is the most it takes; 0 is no disk cache, AutoDiskBytes a share of the volume.
	MaxBytes int64 `yaml:"max_bytes"`

	// MinFreeBytes is what others on the volume need free; it is not for operators. The cache leaves at least 5 GiB, or a
	// sixteenth of a volume that is smaller than 80 GiB.
	MinFreeBytes int64 `yaml:"-"`
}

// RegisterFlags adds the settings to f with their defaults.
func (c *DiskConfig) RegisterFlags(f *flag.FlagSet) {
	f.StringVar(&c.Dir, "chunkstore.disk-cache.dir", "",
		"Directory on a local disk for ranges of objects that were read from the bucket. Empty means chunkstore/cache in "+
			"-data-dir. One process at a time uses it; it may be deleted while none does.")
	f.Int64Var(&c.MaxBytes, "chunkstore.disk-cache.max-bytes", AutoDiskBytes,
		"Most bytes that the disk cache takes. 0 means no disk cache. -1 means 10 GiB or a fifth of what is free on the "+
			"volume at start, whichever is less, and none when the bucket is on the filesystem itself. It gives way when "+
			"the volume runs full.")
}

// Validate says which setting is wrong and what would be right.
func (c *DiskConfig) Validate() error {
	if c.MaxBytes < AutoDiskBytes || c.MaxBytes > 0 && c.MaxBytes < minDiskBytes {
		return fmt.Errorf("chunkstore.disk_cache.max_bytes is %d: set 0 (none), %d (a share of the volume), or at least %d",
			c.MaxBytes, AutoDiskBytes, minDiskBytes)
	}
	return nil
}
