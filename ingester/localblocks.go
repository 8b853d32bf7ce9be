package ingester

import (
	"math"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
)

// localBlocks knows which of a tenant's local blocks the manifest lists and which may be deleted. Safe for concurrent use.
type localBlocks struct {
	dir       string
	now       func() time.Time
	retention time.Duration
	mu        sync.Mutex
}

// openLocalBlocks reads <dir>/duramen.json. retention is how old a block's newest sample must be before it may go, 12 h.
func openLocalBlocks(dir string, now func() time.Time, retention time.Duration) (*localBlocks, error) {
	return &localBlocks{dir: dir, now: now, retention: retention}, nil
}

// deletable is a tsdb.BlocksToDeleteFunc.
func (l *localBlocks) deletable(blocks []*tsdb.Block) map[ulid.ULID]struct{} { return nil }

// setListed notes that manifest version lists the block since at, the owner's clock; the zero time is unknown.
func (l *localBlocks) setListed(id ulid.ULID, version uint64, at time.Time) {}

// listedVersion returns the first manifest version known to list the block or what covers it.
func (l *localBlocks) listedVersion(id ulid.ULID) (uint64, bool) { return 0, false }

// floor returns a time in milliseconds: every sample accepted with t ≥ floor is still held here. math.MinInt64 when no
// block was ever deleted.
func (l *localBlocks) floor() int64 { return math.MinInt64 }

// deletedVersion returns the highest manifest version that was the first to list a block deleted here.
func (l *localBlocks) deletedVersion() uint64 { return 0 }

// unshipped returns the blocks that the manifest is not known to list.
func (l *localBlocks) unshipped(blocks []*tsdb.Block) []*tsdb.Block { return nil }
