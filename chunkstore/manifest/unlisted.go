package manifest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/tenant"
)

// announceWithin is how long after a block is complete in the bucket its announcement may be on its way.
const announceWithin = time.Minute

// errFound ends a listing.
var errFound = errors.New("found")

// Unlisted names a complete block in the folder of a tenant that has no manifest, one that lies there for a while; the
// zero ULID when there is none. Such a block is of a peer, or the manifests were lost. Until its folder has been compared
// with the manifest, as Compared says, nobody knows which samples it holds, and an answer without it would be a part.
//
// It costs a listing, and nothing for a tenant that has been compared. A failing bucket is an error of kind Unavailable.
func (o *Owner) Unlisted(ctx context.Context, tenantID string) (ulid.ULID, error) {
	if err := tenant.ValidateID(tenantID); err != nil {
		return ulid.ULID{}, err
	}
	if o.wasCompared(tenantID) {
		return ulid.ULID{}, nil
	}
	var found ulid.ULID
	err := o.bkt.List(ctx, tenantID+"/", false, func(e bucket.Object) error {
		folder, isFolder := strings.CutSuffix(strings.TrimPrefix(e.Key, tenantID+"/"), "/")
		id, err := ulid.ParseStrict(folder)
		if !isFolder || err != nil {
			return nil //nolint:nilerr // not the folder of a block
		}
		switch meta, err := o.bkt.Stat(ctx, e.Key+"meta.json"); {
		case errors.Is(err, bucket.ErrNotFound):
			return nil // incomplete
		case err != nil:
			return err
		case o.now().Sub(meta.LastModified) < announceWithin:
			return nil
		}
		found = id
		return errFound
	})
	if err != nil && !errors.Is(err, errFound) {
		return ulid.ULID{}, fmt.Errorf("list blocks of tenant %s, which has no manifest: %w", tenantID, unavailable(err))
	}
	return found, nil
}

// Compared notes that a tenant's folder has been compared with its manifest: what lies there and is not listed now is left
// out on purpose.
func (o *Owner) Compared(tenantID string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.compared[tenantID] = struct{}{}
}

func (o *Owner) wasCompared(tenantID string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ok := o.compared[tenantID]
	return ok
}
