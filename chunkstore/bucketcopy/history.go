package bucketcopy

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

// keepVersions is how many of the newest versions go along: those that a manifest's owner keeps.
const keepVersions = 5

// histories are the newest versions of a tenant in both buckets; nil where there is none.
type histories struct {
	from, to *version
	diverged bool
}

// histories reads both, and returns ErrDiverged unless the destination's is the beginning of the source's.
func (c *Copier) histories(ctx context.Context, tenantID string) (h histories, err error) {
	if h.from, err = newest(ctx, c.src, tenantID); err != nil {
		return h, fmt.Errorf("source: %w", err)
	}
	if h.to, err = newest(ctx, c.dst, tenantID); err != nil {
		return h, fmt.Errorf("destination: %w", err)
	}
	if h.to == nil {
		return h, nil
	}
	if err := c.related(ctx, tenantID, h); errors.Is(err, ErrDiverged) && c.o.ReplaceDiverged && h.from != nil {
		h.diverged = true
	} else if err != nil {
		return h, err
	}
	return h, nil
}

// related says whether the destination's newest version is one that the source has had.
func (c *Copier) related(ctx context.Context, tenantID string, h histories) error {
	if h.from == nil {
		return fmt.Errorf("%w: it is at version %d, the source has no manifest", ErrDiverged, h.to.Version)
	}
	if h.to.Version > h.from.Version {
		return fmt.Errorf("%w: it is at version %d, the source at %d", ErrDiverged, h.to.Version, h.from.Version)
	}
	same, err := read(ctx, c.src, tenantID, h.to.Version)
	if err == nil {
		if !bytes.Equal(same.raw, h.to.raw) {
			return fmt.Errorf("%w: version %d is another one there", ErrDiverged, h.to.Version)
		}
		return nil
	}
	if !errors.Is(err, bucket.ErrNotFound) {
		return fmt.Errorf("source: %w", err)
	}
	// The source has deleted that version, as it does after some hours. What it listed, the newest one still knows.
	for _, b := range h.to.Blocks {
		there, listed := h.from.Find(b.ULID)
		if listed && (there.AddedVersion != b.AddedVersion || there.AddedAt != b.AddedAt) || !h.from.Knows(b.ULID) {
			return fmt.Errorf("%w: its version %d lists block %s, which the source has never had or added at another time",
				ErrDiverged, h.to.Version, b.ULID)
		}
	}
	return nil
}

// manifests puts the source's newest version, and before it those of the last few whose blocks were copied.
func (c *Copier) manifests(ctx context.Context, tenantID string, h histories) error {
	if h.diverged {
		return c.replace(ctx, tenantID, h)
	}
	first := max(h.from.Version-min(h.from.Version, keepVersions-1), h.to.version()+1, 1)
	for n := first; n < h.from.Version; n++ {
		v, err := read(ctx, c.src, tenantID, n)
		if errors.Is(err, bucket.ErrNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("source: %w", err)
		}
		if !within(v.Manifest, h.from.Manifest) {
			continue // it lists blocks that have been merged or removed since
		}
		if err := c.put(ctx, manifest.Key(tenantID, n), v.raw); err != nil {
			return err
		}
	}
	return c.put(ctx, manifest.Key(tenantID, h.from.Version), h.from.raw)
}

// within reports whether all blocks of a are listed by b.
func within(a, b *manifest.Manifest) bool {
	for _, block := range a.Blocks {
		if _, ok := b.Find(block.ULID); !ok {
			return false
		}
	}
	return true
}

// replace puts the source's state behind the destination's own history: as its next version or, when the source is further,
// as the source's own. A server that reads the destination counts versions up, and finds the latter only when it starts
// again. Blocks of the destination that the source does not list stay as objects that no manifest names.
func (c *Copier) replace(ctx context.Context, tenantID string, h histories) error {
	if h.from.Version > h.to.Version {
		return c.put(ctx, manifest.Key(tenantID, h.from.Version), h.from.raw)
	}
	next := *h.from.Manifest
	next.Version = h.to.Version + 1
	var id [16]byte
	if _, err := io.ReadFull(rand.Reader, id[:]); err != nil {
		return fmt.Errorf("draw swap ID: %w", err)
	}
	next.SwapID = hex.EncodeToString(id[:])
	raw, err := manifest.Encode(&next)
	if err != nil {
		return err
	}
	return c.put(ctx, manifest.Key(tenantID, next.Version), raw)
}

// put creates a manifest version. Whatever the bucket answers, the object under the key decides.
func (c *Copier) put(ctx context.Context, key string, raw []byte) error {
	err := c.dst.PutIfAbsent(ctx, key, raw)
	if err == nil && c.o.Verify == VerifySizes {
		return nil
	}
	there, readErr := fetch(ctx, c.dst, key)
	switch {
	case errors.Is(readErr, bucket.ErrNotFound) && err != nil:
		return err
	case readErr != nil:
		return errors.Join(err, readErr)
	case !bytes.Equal(there, raw):
		return fmt.Errorf("%w: %s was written there meanwhile", ErrDiverged, key)
	}
	return nil
}

// newest returns the newest version of a tenant, or nil.
func newest(ctx context.Context, bkt bucket.Bucket, tenantID string) (*version, error) {
	for range restarts {
		last := uint64(0)
		err := bkt.List(ctx, manifest.Prefix(tenantID), false, func(o bucket.Object) error {
			if n, ok := manifest.ParseKey(tenantID, o.Key); ok {
				last = n
			}
			return nil
		})
		if err != nil || last == 0 {
			return nil, err
		}
		v, err := read(ctx, bkt, tenantID, last)
		if !errors.Is(err, bucket.ErrNotFound) { // else it was deleted since, and there is a newer one
			return v, err
		}
	}
	return nil, fmt.Errorf("manifest versions of tenant %s that are listed are gone when read", tenantID)
}

// read returns one version, or bucket.ErrNotFound, or ErrManifest.
func read(ctx context.Context, bkt bucket.Bucket, tenantID string, n uint64) (*version, error) {
	key := manifest.Key(tenantID, n)
	raw, err := fetch(ctx, bkt, key)
	if err != nil {
		return nil, err
	}
	m, err := manifest.Decode(raw)
	if err == nil && (m.Tenant != tenantID || m.Version != n) {
		err = fmt.Errorf("it holds version %d of tenant %s", m.Version, m.Tenant)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrManifest, key, err)
	}
	return &version{m, raw}, nil
}
