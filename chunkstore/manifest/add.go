package manifest

import (
	"context"
	"fmt"
)

// Add announces a block that is completely in the bucket. On return it is listed, AddedAt and AddedVersion being set by
// the owner, or covered, as the answer says. Announcing a block again gives the same answer. Calls that arrive while a
// version is being written go into the next one together.
//
// After an error the block may or may not be listed: call Add again. Errors are as for Current; an entry that cannot be
// right is of kind Invalid.
func (o *Owner) Add(ctx context.Context, tenantID string, b Block) (Added, error) {
	added, err := o.add(ctx, tenantID, b)
	if err != nil {
		return Added{}, fmt.Errorf("add block %s to manifest of tenant %s: %w", b.ULID, tenantID, err)
	}
	return added, nil
}

func (o *Owner) add(ctx context.Context, tenantID string, b Block) (Added, error) {
	b, err := b.prepared()
	if err != nil {
		return Added{}, err
	}
	return o.submit(ctx, tenantID, addition{b})
}
