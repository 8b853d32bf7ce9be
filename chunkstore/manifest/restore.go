package manifest

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/duramendb/duramen/internal/errkind"
)

// ErrReadable means that a manifest is not restored because its newest version can be read. It is of kind Invalid.
var ErrReadable = errors.New("the newest version of the manifest can be read")

// State is what a version holds beside its number.
type State struct {
	Blocks       []Block
	Removed      []RemovedBlock
	Lost         []LostRange
	Deletions    []Deletion
	NextDeletion uint64
	Doomed       *TenantDeletion
}

// Restore writes a state as the version behind the highest number in the bucket, whatever that version holds. It is the
// way out when a manifest cannot be read; a newest version that can be read is ErrReadable unless force is set. The
// number has to be free, so of two who restore one wins, and one that is announced to meanwhile is not overwritten.
//
// Blocks keep AddedAt and AddedVersion where they have them and the new version is not below.
func (o *Owner) Restore(ctx context.Context, tenantID string, s State, force bool) (*Manifest, error) {
	c, err := o.use(tenantID)
	if err != nil {
		return nil, err
	}
	defer o.release(c)
	if err := c.lock(ctx); err != nil {
		return nil, fmt.Errorf("restore manifest of tenant %s: wait for %s: %w", tenantID, o.bkt.Name(), err)
	}
	defer c.unlock()
	m, err := o.restore(ctx, c, s, force)
	if err != nil {
		return nil, fmt.Errorf("restore manifest of tenant %s: %w", tenantID, err)
	}
	return m, nil
}

func (o *Owner) restore(ctx context.Context, c *catalog, s State, force bool) (*Manifest, error) {
	entries, err := o.list(ctx, c.tenant)
	if err != nil {
		return nil, err
	}
	highest := uint64(0)
	if len(entries) > 0 {
		highest = entries[len(entries)-1].version
		switch _, err := o.read(ctx, c.tenant, highest); {
		case err == nil && !force:
			return nil, errkind.New(errkind.Invalid, "version %d: %w", highest, ErrReadable)
		case err != nil && errkind.Of(err) != errkind.Corrupt:
			return nil, unavailable(err)
		}
	}
	next, err := o.restored(c.tenant, highest+1, s)
	if err != nil {
		return nil, err
	}
	won, err := o.create(ctx, c, next)
	if err != nil {
		return nil, err
	}
	if !won {
		return nil, errkind.New(errkind.Unavailable, "version %d was written meanwhile by somebody else", next.Version)
	}
	c.current.Store(next)
	o.noteChange(c.tenant)
	return next, nil
}

// restored makes a version of a state.
func (o *Owner) restored(tenantID string, version uint64, s State) (*Manifest, error) {
	id, err := o.swapID()
	if err != nil {
		return nil, err
	}
	m := &Manifest{
		Tenant: tenantID, Version: version, SwapID: id,
		Removed: slices.Clone(s.Removed), Lost: slices.Clone(s.Lost),
		Deletions: slices.Clone(s.Deletions), NextDeletion: s.NextDeletion, Doomed: s.Doomed,
	}
	for _, b := range s.Blocks {
		if b, err = b.prepared(); err != nil {
			return nil, err
		}
		if b.AddedVersion == 0 || b.AddedVersion > version {
			b.AddedVersion, b.AddedAt = version, o.now().UnixMilli()
		}
		m.Blocks = append(m.Blocks, b)
	}
	slices.SortFunc(m.Blocks, compareBlocks)
	slices.SortFunc(m.Lost, compareLost)
	m.Lost = slices.CompactFunc(m.Lost, func(a, b LostRange) bool { return compareLost(a, b) == 0 })
	m.normalise()
	return m, m.validate()
}

// Readable returns the newest version in the bucket that can be read, version 0 when there is none, and the number of the
// newest one. It is for a manifest that is to be restored: nothing else may take an older version for the truth.
func (o *Owner) Readable(ctx context.Context, tenantID string) (m *Manifest, newest uint64, err error) {
	entries, err := o.list(ctx, tenantID)
	if err != nil {
		return nil, 0, fmt.Errorf("list versions of tenant %s: %w", tenantID, err)
	}
	for i, e := range slices.Backward(entries) {
		m, err := o.read(ctx, tenantID, e.version)
		if err == nil {
			return m, entries[len(entries)-1].version, nil
		}
		if errkind.Of(err) != errkind.Corrupt && !errors.Is(err, errAbsent) {
			return nil, 0, fmt.Errorf("read version %d of tenant %s: %w", entries[i].version, tenantID, err)
		}
	}
	if n := len(entries); n > 0 {
		newest = entries[n-1].version
	}
	return &Manifest{Tenant: tenantID}, newest, nil
}
