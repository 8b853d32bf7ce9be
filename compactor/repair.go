package compactor

import (
	"fmt"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/compactor/plan"
)

// kindRepair is the kind of a job that makes a listed block again whose objects are missing, of what it was made of. No plan
// has such a job: a look asks for it.
const kindRepair plan.Kind = "repair"

// missingObjects is why a block is made again.
type missingObjects struct {
	id   ulid.ULID
	what string
}

// Error implements error.
func (e *missingObjects) Error() string { return fmt.Sprintf("block %s: %s", e.id, e.what) }

// askRepair has a worker try once to make a block again. That takes as long as a merge, so no look does it.
func (c *Compactor) askRepair(t *tenantState, b *manifest.Block, what string) {
	job := plan.Job{
		Kind: kindRepair, ID: string(kindRepair) + "-" + b.ULID.String(), Reason: what,
		MinTime: b.MinTime, MaxTime: b.MaxTime, Level: b.Level, Blocks: []ulid.ULID{b.ULID},
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t.repairs[b.ULID] = job
	c.announce()
}

// nextRepair returns the repair of the oldest block that no other job has. The caller holds Compactor.mu.
func (t *tenantState) nextRepair(busy map[ulid.ULID]struct{}) (next *plan.Job) {
	for id, job := range t.repairs {
		if _, is := busy[id]; is || next != nil && next.Blocks[0].Compare(id) < 0 {
			continue
		}
		next = &job
	}
	return next
}
