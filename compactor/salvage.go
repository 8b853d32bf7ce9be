package compactor

import (
	"context"
	"fmt"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/compactor/merge"
	"github.com/duramendb/duramen/internal/errkind"
)

// Salvager deals with one damaged block: what is readable of it takes its place in the manifest, by a swap of its own, and
// what is not is reported. An error of kind Unavailable may pass; any other says that the block cannot be dealt with.
type Salvager interface {
	Salvage(ctx context.Context, m *manifest.Manifest, damaged manifest.Block, cause error) error
}

// treatDamage salvages an input. One that cannot be is left out of plans, so that the others go on.
func (c *Compactor) treatDamage(ctx context.Context, a *activity, damaged *merge.Damaged) (err error) {
	if c.salvager == nil {
		c.exclude(a.tenant, damaged.ULID, verdictTime, damaged.Error())
		return damaged
	}
	if _, here := c.cluster.Owner(a.tenant.id); !here {
		return errMoved
	}
	m, err := c.manifests.Refresh(ctx, a.tenant.id)
	if err != nil {
		return err
	}
	for _, b := range m.Blocks {
		if b.ULID != damaged.ULID {
			continue
		}
		c.log.Error("block is damaged, saving what is readable", "tenant", a.tenant.id, "block", b.ULID, "err", damaged)
		err = c.salvage(ctx, m, b, damaged)
		switch {
		case err == nil:
			c.metrics.salvages.WithLabelValues(salvageDone).Inc()
			return &salvagedError{damaged}
		case ctx.Err() != nil || errkind.Of(err) == errkind.Unavailable:
			c.metrics.salvages.WithLabelValues(salvageFailed).Inc()
			return err
		}
		c.metrics.salvages.WithLabelValues(salvageImpossible).Inc()
		c.exclude(a.tenant, b.ULID, verdictTime, fmt.Sprintf("%v; it could not be salvaged: %v", damaged, err))
		return damaged
	}
	return errStale // somebody else has dealt with it
}

// salvage calls the salvager, whose panic is the failure of this block.
func (c *Compactor) salvage(ctx context.Context, m *manifest.Manifest, b manifest.Block, cause error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = c.panicked("salvage panicked", m.Tenant, p)
		}
	}()
	return c.salvager.Salvage(ctx, m, b, cause)
}
