package manifest

import (
	"context"
	"errors"
	"fmt"

	"github.com/oklog/ulid/v2"
)

// Annotation is what becomes known of a listed block later. The block's samples are not touched by it.
type Annotation struct {
	ULID ulid.ULID
	// SidecarBytes and DirectoryBytes are as in Block; when both are 0, the entry keeps what it has.
	SidecarBytes, DirectoryBytes int64
	// NoCompact is the reason, empty for none; nil keeps what the entry has.
	NoCompact *string
}

// Annotate writes annotations into the entries of their blocks, all in one version, and none when the entries say so
// already. A block that is not listed, any more or yet, is passed over without an error. Of two annotations at the same
// time the later one counts, field by field. Errors are as for Add.
func (o *Owner) Annotate(ctx context.Context, tenantID string, notes ...Annotation) error {
	if len(notes) == 0 {
		return nil
	}
	for _, n := range notes {
		if err := validateSidecar(n.ULID, n.SidecarBytes, n.DirectoryBytes); err != nil {
			return fmt.Errorf("annotate in manifest of tenant %s: %w", tenantID, err)
		}
	}
	_, err := o.submit(ctx, tenantID, annotations(notes))
	if err != nil && !errors.Is(err, errUnlisted) {
		return fmt.Errorf("annotate block %s and %d others in manifest of tenant %s: %w",
			notes[0].ULID, len(notes)-1, tenantID, err)
	}
	return nil
}

// annotations are worked in together.
type annotations []Annotation

// apply returns errUnlisted only when no block is listed: then a newer version has to be looked for.
func (e annotations) apply(d *draft) (Added, error) {
	places := d.next.places()
	found := false
	for _, n := range e {
		i, listed := places[n.ULID]
		if !listed {
			continue
		}
		found = true
		d.changed = n.annotate(&d.next.Blocks[i]) || d.changed
	}
	if !found {
		return Added{}, errUnlisted
	}
	return Added{Version: d.version()}, nil
}

// annotate reports whether b changed.
func (n *Annotation) annotate(b *Block) bool {
	changed := false
	if n.SidecarBytes != 0 && (b.SidecarBytes != n.SidecarBytes || b.DirectoryBytes != n.DirectoryBytes) {
		b.SidecarBytes, b.DirectoryBytes = n.SidecarBytes, n.DirectoryBytes
		changed = true
	}
	if n.NoCompact != nil && b.NoCompact != *n.NoCompact {
		b.NoCompact = *n.NoCompact
		changed = true
	}
	return changed
}
