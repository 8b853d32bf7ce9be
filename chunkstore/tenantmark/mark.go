// Package tenantmark owns the deletion of whole tenants: the marks that tell everybody, in the place and form of the peers;
// how processes learn of them; asking for a deletion and taking it back; and deleting all that a tenant has in the bucket.
// It refuses to delete anything before the time of grace is over. Read package manifest for what a deletion is there, and
// docs/manifest.md beside it, "Deletion of a tenant", for the order of the steps.
package tenantmark

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/tenant"
)

const (
	// Prefix is where the marks are, <tenant>/tenant-deletion-mark.json each. No tenant can have the name.
	Prefix = "__markers__/"
	// Name is the last part of a mark's key.
	Name = "tenant-deletion-mark.json"

	// maxBytes bounds what is read of a mark.
	maxBytes = 64 << 10
)

// Key returns where the mark of a tenant is.
func Key(tenantID string) string { return Prefix + tenantID + "/" + Name }

// InFolderKey returns where older peers put the mark of a tenant: into its own folder.
func InFolderKey(tenantID string) string { return tenantID + "/markers/" + Name }

// Mark says that a tenant is to be deleted, or was.
type Mark struct {
	// DeletionTime is when that was asked for, FinishedTime when nothing was left, 0 before. They are in seconds since the
	// Unix epoch, and the peers' fields.
	DeletionTime int64 `json:"deletion_time"`
	FinishedTime int64 `json:"finished_time,omitempty"`
	// Duramen is set in marks of ours.
	Duramen *Section `json:"duramen,omitempty"`
}

// Section is what peers do not have. Times are in milliseconds since the Unix epoch.
type Section struct {
	GraceUntil int64 `json:"grace_until"`
	FinishedAt int64 `json:"finished_at,omitempty"`
	Blocks     int   `json:"blocks,omitempty"`
	Bytes      int64 `json:"bytes,omitempty"`
}

// Of returns the mark for what a manifest says.
func Of(d manifest.TenantDeletion) Mark {
	return Mark{
		DeletionTime: d.RequestedAt / 1000, FinishedTime: ceilSeconds(d.FinishedAt),
		Duramen: &Section{GraceUntil: d.GraceUntil, FinishedAt: d.FinishedAt, Blocks: d.Blocks, Bytes: d.Bytes},
	}
}

func ceilSeconds(ms int64) int64 { return (ms + 999) / 1000 }

// Finished reports whether nothing is left of the tenant that was marked.
func (m *Mark) Finished() bool { return m.FinishedTime != 0 }

// FinishedAt returns when nothing was left, in milliseconds since the Unix epoch.
func (m *Mark) FinishedAt() int64 {
	if m.Duramen != nil && m.Duramen.FinishedAt != 0 {
		return m.Duramen.FinishedAt
	}
	return m.FinishedTime * 1000
}

// Decode reads a mark of ours or of a peer. One that cannot be read is a mark of which nothing more is known: that it is
// there says enough.
func Decode(data []byte) Mark {
	var m Mark
	if json.Unmarshal(data, &m) != nil || m.DeletionTime < 0 || m.FinishedTime < 0 {
		return Mark{}
	}
	return m
}

// Read returns the mark of a tenant, from where it is put now or from the tenant's own folder, and whether there is one.
// An error is one of the bucket, of kind Unavailable.
func Read(ctx context.Context, bkt bucket.Bucket, tenantID string) (m Mark, found bool, _ error) {
	for _, key := range []string{Key(tenantID), InFolderKey(tenantID)} {
		m, found, err := get(ctx, bkt, key)
		if err != nil || found {
			return m, found, err
		}
	}
	return Mark{}, false, nil
}

func get(ctx context.Context, bkt bucket.Bucket, key string) (Mark, bool, error) {
	body, err := bkt.Get(ctx, key)
	if errors.Is(err, bucket.ErrNotFound) {
		return Mark{}, false, nil
	}
	if err != nil {
		return Mark{}, false, unavailable(err)
	}
	data, err := io.ReadAll(io.LimitReader(body, maxBytes))
	if err := errors.Join(err, body.Close()); err != nil {
		return Mark{}, false, unavailable(fmt.Errorf("read %s: %w", key, err))
	}
	return Decode(data), true, nil
}

// Write puts the mark of a tenant where peers look for it.
func Write(ctx context.Context, bkt bucket.Bucket, tenantID string, m Mark) error {
	data, err := json.Marshal(m)
	if err == nil {
		err = unavailable(bkt.Put(ctx, Key(tenantID), bytes.NewReader(data), int64(len(data))))
	}
	if err != nil {
		return fmt.Errorf("mark tenant %s for deletion: %w", tenantID, err)
	}
	return nil
}

// Remove deletes the marks of a tenant, in both places.
func Remove(ctx context.Context, bkt bucket.Bucket, tenantID string) error {
	if err := bkt.Delete(ctx, Key(tenantID), InFolderKey(tenantID)); err != nil {
		return fmt.Errorf("remove mark of tenant %s: %w", tenantID, unavailable(err))
	}
	return nil
}

// List returns the objects of all marks at the top of the bucket, by tenant. It costs one listing.
func List(ctx context.Context, bkt bucket.Bucket) (map[string]bucket.Object, error) {
	marks := map[string]bucket.Object{}
	err := bkt.List(ctx, Prefix, true, func(o bucket.Object) error {
		id, name, _ := strings.Cut(strings.TrimPrefix(o.Key, Prefix), "/")
		if name == Name && tenant.ValidateID(id) == nil {
			marks[id] = o
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list marks of tenants: %w", unavailable(err))
	}
	return marks, nil
}

// Gone is the error of whoever asks for a tenant that is being deleted.
func Gone(tenantID string, since time.Time) error {
	return errkind.New(errkind.Gone, "tenant %s is being deleted, by a request of %s", tenantID,
		since.UTC().Format(time.RFC3339))
}

// unavailable gives an error of the bucket its kind, unless it has one.
func unavailable(err error) error {
	if err == nil || errkind.Of(err) != errkind.Internal {
		return err
	}
	return errkind.Wrap(errkind.Unavailable, err)
}
