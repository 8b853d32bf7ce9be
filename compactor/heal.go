package compactor

import (
	"context"
	"maps"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/compactor/salvage"
)

// Damage knows what is wrong with listed blocks: the reconciler, which lists what there is.
type Damage interface {
	// Damaged are those that miss objects.
	Damaged(tenantID string) map[ulid.ULID]string
	// Foreign are those that somebody else deletes, and what was seen of it: nothing of the tenant may be merged meanwhile.
	Foreign(tenantID string) map[ulid.ULID]string
}

// WatchDamage has the compactor look at the blocks that d names, and stop where somebody else deletes. It is called before
// the service starts.
func (c *Compactor) WatchDamage(d Damage) { c.damage = d }

// damageTime is how long a block that misses objects, and not only meta.json, is not looked at again.
const damageTime = time.Hour

// heal writes the meta.json of listed blocks again that is missing while all else is there, and has a worker make a block
// again that misses more than that from what it was made of, when that is still there. What else is wrong with a block is left to the
// merge that meets it.
func (c *Compactor) heal(ctx context.Context, t *tenantState, m *manifest.Manifest) {
	if c.damage == nil {
		return
	}
	for id, what := range c.damage.Damaged(m.Tenant) {
		b, listed := m.Find(id)
		if !listed || !c.mayLook(id) {
			continue
		}
		healed, err := salvage.HealMeta(ctx, c.bkt, m.Tenant, *b)
		if err == nil && !healed {
			err = c.remake(ctx, t, m, b, what)
		}
		switch {
		case err != nil && ctx.Err() == nil:
			c.log.Warn("block that misses objects was not made whole, trying again", "tenant", m.Tenant, "block", id,
				"again_in", damageTime, "err", err)
		case healed:
			c.log.Warn("meta.json of a block was missing and was written again", "tenant", m.Tenant, "block", id)
		}
	}
}

// remake asks for a salvage of a block that misses objects when there is something that it was made of: no merge may ever
// meet it, and that goes when nobody misses it any more.
func (c *Compactor) remake(
	ctx context.Context, t *tenantState, m *manifest.Manifest, b *manifest.Block, what string,
) error {
	c.mu.Lock()
	_, left := t.excluded[b.ULID]
	c.mu.Unlock()
	if left {
		return nil
	}
	origins, err := salvage.FindOrigins(ctx, c.bkt, m, b, c.now().UnixMilli())
	if err != nil || len(origins.Inputs) == 0 {
		return err
	}
	c.askRepair(t, b, what)
	return nil
}

// mayLook reports whether a block was not looked at lately, and notes that it is now.
func (c *Compactor) mayLook(id ulid.ULID) bool {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.looked, func(_ ulid.ULID, at time.Time) bool { return now.Sub(at) >= damageTime })
	if _, lately := c.looked[id]; lately {
		return false
	}
	if c.looked == nil {
		c.looked = map[ulid.ULID]time.Time{}
	}
	c.looked[id] = now
	return true
}
