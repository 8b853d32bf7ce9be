package blockcheck

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
)

// Inventory is what the bucket holds of a tenant beside what its manifest says.
type Inventory struct {
	Manifest *manifest.Manifest
	// Blocks are the objects by block, those included that the manifest does not list.
	Blocks map[ulid.ULID]*Objects
	// Others are objects that are neither of a block nor of the manifest, sorted by key.
	Others []bucket.Object
}

// Objects are those of one block.
type Objects struct {
	Files map[string]int64 // sizes by name
	Bytes int64
	// Newest is when the object that was written last was written, by the store's clock.
	Newest time.Time
}

// Manifests is where manifests come from: manifest.Owner.
type Manifests interface {
	Refresh(ctx context.Context, tenantID string) (*manifest.Manifest, error)
}

// Take lists all objects of a tenant, and then reads its manifest: a block that the manifest lists was complete before,
// so that one without objects is one that misses them, or that went away in between. The caller asks again for those.
//
// A manifest that cannot be read is an error of kind Corrupt; the inventory is there nevertheless, with an empty manifest.
func Take(ctx context.Context, bkt bucket.Bucket, manifests Manifests, tenantID string) (*Inventory, error) {
	inv := &Inventory{Blocks: map[ulid.ULID]*Objects{}}
	err := bkt.List(ctx, tenantID+"/", true, func(o bucket.Object) error {
		inv.add(tenantID, o)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list objects of tenant %s: %w", tenantID, err)
	}
	if inv.Manifest, err = manifests.Refresh(ctx, tenantID); errkind.Of(err) == errkind.Corrupt {
		inv.Manifest = &manifest.Manifest{Tenant: tenantID}
		return inv, err
	}
	if err != nil {
		return nil, err
	}
	return inv, nil
}

func (inv *Inventory) add(tenantID string, o bucket.Object) {
	_, id, name, ok := block.ParseKey(o.Key)
	if !ok {
		if !strings.HasPrefix(o.Key, manifest.Prefix(tenantID)) {
			inv.Others = append(inv.Others, o)
		}
		return
	}
	b := inv.Blocks[id]
	if b == nil {
		b = &Objects{Files: map[string]int64{}}
		inv.Blocks[id] = b
	}
	b.Files[name] = o.Size
	b.Bytes += o.Size
	if o.LastModified.After(b.Newest) {
		b.Newest = o.LastModified
	}
}

// Unlisted returns the blocks that have objects and are not in the manifest, in their order of time: blocks that are
// being uploaded, that were removed, or that another program has written.
func (inv *Inventory) Unlisted() (ids []ulid.ULID) {
	for id := range inv.Blocks {
		if _, listed := inv.Manifest.Find(id); !listed {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, ulid.ULID.Compare)
	return ids
}

// Removed reports whether the manifest remembers that a block was removed.
func (inv *Inventory) Removed(id ulid.ULID) bool {
	return slices.ContainsFunc(inv.Manifest.Removed, func(r manifest.RemovedBlock) bool { return r.ULID == id })
}
