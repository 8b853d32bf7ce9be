package salvage

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

// DefaultKeep is how long the objects of a damaged block stay after it was replaced.
const DefaultKeep = 45 * 24 * time.Hour

// Config are the settings.
type Config struct {
	// Scratch is a folder on the local disk, which may not exist yet. A salvage takes the size of the block there, in a
	// folder of its own that it removes.
	Scratch string `yaml:"-"`
	// MinFreeBytes of the volume of Scratch are left to others. A salvage that would need them fails, and may be repeated
	// when there is room.
	MinFreeBytes int64 `yaml:"-"`
	// MaxMemoryBytes bounds what a salvage holds in memory, roughly; 0 means DefaultMaxMemoryBytes. A block that takes more is
	// ErrTooLarge.
	MaxMemoryBytes int64 `yaml:"-"`
	// Keep is how long the objects of the damaged block are kept.
	Keep time.Duration `yaml:"keep_damaged"`
}

// RegisterFlags adds the settings.
func (c *Config) RegisterFlags(f *flag.FlagSet) {
	f.DurationVar(&c.Keep, "compactor.keep-damaged", DefaultKeep,
		"How long the objects of a damaged block stay in the bucket after what was readable of it has become a new block.")
}

func (c *Config) maxMemory() int64 {
	if c.MaxMemoryBytes == 0 {
		return DefaultMaxMemoryBytes
	}
	return c.MaxMemoryBytes
}

// Validate checks the settings.
func (c *Config) Validate() error {
	if c.Keep < 0 {
		return errors.New("-compactor.keep-damaged is negative")
	}
	return nil
}

// Request is one salvage.
type Request struct {
	Tenant string
	// Damaged is the block as the manifest lists it.
	Damaged manifest.Block
	// Others are blocks that may hold the same chunks: those of the same slot.
	Others []manifest.Block
	// Origins are blocks that the damaged one was made of, as FindOrigins finds them: what cannot be read is taken from them.
	Origins Origins
	// AcceptLoss has the block given up when nothing of it is in the bucket. Without it that is ErrNothingThere, unless
	// nothing is lost by it.
	AcceptLoss bool
	// Writer is stored as duramen.writer of the new block and begins with manifest.CompactorWriter. ULID is the new block's; one
	// with another last byte may be taken in its place.
	Writer string
	ULID   ulid.ULID
	// Cause is what led here, for the report.
	Cause string
	// Dry writes nothing into the bucket: the report says what would be.
	Dry bool
	// Now is the time for the report.
	Now time.Time
}

// Result is what a salvage made.
type Result struct {
	// Block is the entry of the new block, complete and verified in the bucket; of a dry run it was not written.
	Block manifest.Block
	// Empty is set when nothing could be read: there is no new block.
	Empty bool
	// Healed is set when all samples are where they were and only what describes them was written again: there is no new
	// block, and the damaged one stays listed.
	Healed bool
	Report *Report
}

// Run reads all that can be read of a damaged block and writes it into the bucket as a new block. Nothing else changes:
// Commit puts the new block in the place of the old one.
//
// An error of kind Unavailable means that the bucket or the disk failed, and that the call may be repeated with another
// ULID; what was written is left to the sweep of lost outputs. ErrNothingThere, ErrTooLarge: see there. Any other error means
// that the block cannot be dealt with.
func Run(ctx context.Context, cfg Config, bkt bucket.Bucket, r Request) (*Result, error) {
	res, err := run(ctx, cfg, bkt, r)
	if err != nil {
		return nil, fmt.Errorf("salvage block %s: %w", r.Damaged.ULID, err)
	}
	return res, nil
}
