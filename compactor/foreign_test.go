package compactor

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/compactor/plan"
)

// deletions is a Damage of blocks that somebody else deletes.
type deletions struct {
	mu    sync.Mutex
	found map[ulid.ULID]string
}

func (d *deletions) Damaged(string) map[ulid.ULID]string { return nil }

func (d *deletions) Foreign(string) map[ulid.ULID]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.found
}

func (d *deletions) set(found map[ulid.ULID]string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.found = found
}

// TestAForeignDeletionStopsTheTenant until it is over, and the alert says so.
func TestAForeignDeletionStopsTheTenant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, bucket.NewInMemory())
		w.add("acme", 3, midnight(), midnight().Add(4*time.Hour))
		d := &deletions{}
		d.set(map[ulid.ULID]string{w.manifest("acme").Blocks[0].ULID: "it bears a mark"})
		w.WatchDamage(d)
		w.start()
		time.Sleep(time.Hour)
		require.Empty(t, w.merger.done())
		require.Len(t, w.manifest("acme").Blocks, 6)
		require.Equal(t, plan.SkipForeignCompactor, w.status("acme").Skips[0].Reason)
		require.Positive(t, w.lag(), "the alert fires")

		d.set(nil)
		time.Sleep(time.Hour)
		require.Len(t, w.merger.done(), 2)
		require.Empty(t, w.status("acme").Skips)
	})
}
