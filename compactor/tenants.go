package compactor

import (
	"context"
	"time"

	"github.com/duramendb/duramen/chunkstore/manifest"
)

// listEvery is how often the bucket is asked which tenants there are. Those that this process hears of by a change of
// their manifest need no listing.
const listEvery = 10 * time.Minute

// tenantState is what is known of a tenant of this process.
type tenantState struct {
	id string

	// turn is held by whoever looks at the tenant. A channel, because waiting has to end with the waiter's context.
	turn chan struct{}

	// The rest is guarded by Compactor.mu.

	lookAt    time.Time // when it is to be looked at next
	refreshAt time.Time // when the bucket is to be asked for a newer version
	looks     uint64    // looks that are over
	changedAt time.Time // when its manifest was last seen to change
	found     *manifest.Manifest
	lastLook  time.Time
	failedAt  time.Time // since when it cannot be looked at; zero when the last look went well
	lastError string
}

func newTenantState(id string) *tenantState {
	return &tenantState{id: id, turn: make(chan struct{}, 1)}
}

// list adds the tenants that are in the bucket.
func (c *Compactor) list(ctx context.Context) error {
	tenants, err := c.manifests.Tenants(ctx)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range tenants {
		c.changed[id] = struct{}{}
		if c.tenants[id] != nil {
			delete(c.changed, id)
		}
	}
	return nil
}

// settle takes in tenants that have changed or were listed, and lets go of those that are no longer this process'.
func (c *Compactor) settle(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.changed {
		if _, here := c.cluster.Owner(id); !here {
			continue
		}
		t := c.tenants[id]
		if t == nil {
			t = newTenantState(id)
			c.tenants[id] = t
		}
		t.lookAt = now
	}
	clear(c.changed)
	for id := range c.tenants {
		if _, here := c.cluster.Owner(id); !here {
			delete(c.tenants, id)
		}
	}
}
