package ingester

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"github.com/duramendb/duramen/tenant"
)

// nothingUnshipped is the ShippedUpTo of a tenant of which the bucket has everything.
const nothingUnshipped = math.MaxInt64

// ShippedUpTo returns a time in milliseconds since the Unix epoch: of all samples that were accepted so far, none with an
// earlier timestamp is outside the bucket. It is the present when the bucket has everything, and 0 while a tenant of an
// earlier life is yet to be opened. A sample that arrives late makes it fall again.
//
// What a tenant holds is looked at anew when its TSDB is open, and else is what was known last. The tick of a cluster
// asks, every few seconds; it costs about a microsecond a tenant.
func (i *Ingester) ShippedUpTo() int64 {
	if phase(i.phase.Load()) == phaseStarting {
		return 0
	}
	lowest := i.now().UnixMilli()
	for _, t := range i.tenants.all() {
		lowest = min(lowest, t.lookAtShipped())
	}
	return max(0, lowest)
}

// lookAtShipped is ShippedUpTo of one tenant.
func (t *tenantDB) lookAtShipped() int64 {
	if l := t.tryAcquire(); l != nil {
		oldest := l.oldestUnshipped()
		t.mu.Lock()
		if t.state == tenantOpen { // else a write has failed meanwhile, see fail
			t.shippedUpTo.Store(oldest)
		}
		t.mu.Unlock()
		l.release()
	}
	return t.shippedUpTo.Load()
}

// oldestUnshipped is the lowest timestamp that the bucket is not known to have. Memory is looked at before blocks: a cut
// that runs meanwhile adds its block before memory lets go, so that nothing is missed.
func (l *life) oldestUnshipped() int64 {
	head, oldest := l.db.Head(), int64(nothingUnshipped)
	// A cut takes the mark of what is out of order before its block is there, and puts it back when it fails.
	if l.oooPending.Load() || l.cutting.Load() || l.oooPending.Load() {
		oldest = min(oldest, head.MinOOOTime())
	}
	if mint := head.MinTime(); mint <= l.highest.Load() {
		oldest = min(oldest, mint)
	}
	for _, b := range l.blocks.unshipped(l.db.Blocks()) {
		oldest = min(oldest, b.MinTime())
	}
	for _, q := range l.report.Quarantined {
		if _, ok := l.quarantine.version(q.ULID); !ok {
			oldest = min(oldest, q.MinTime)
		}
	}
	return oldest
}

// UnshippedOnDisk names the tenants in an ingester's folder of which the bucket is not known to have everything, for
// those who have to decide before an ingester runs. A folder that does not exist holds none.
func UnshippedOnDisk(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list tenants: %w", err)
	}
	var tenants []string
	for _, e := range entries {
		if e.IsDir() && tenant.ValidateID(e.Name()) == nil && !isIdle(filepath.Join(dir, e.Name())) {
			tenants = append(tenants, e.Name())
		}
	}
	return tenants, nil
}
