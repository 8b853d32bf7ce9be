package manifest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/duramendb/duramen/internal/errkind"
)

// RememberDeletions is how long a deletion is remembered at least, for blocks that an ingester ships late.
const RememberDeletions = 30 * 24 * time.Hour

// Delete records a deletion and returns it as it was recorded: with its ID, with CreatedAt set to now when it is 0, and
// with a MaxTime that is not above CreatedAt. From then on queries that have this version do not show what it means. One
// with equal selectors, times and CreatedAt that is there already is returned in its place, so that a call that names
// CreatedAt may be repeated after an error. Errors are as for Add.
func (o *Owner) Delete(ctx context.Context, tenantID string, d Deletion) (Deletion, error) {
	if d.CreatedAt == 0 {
		d.CreatedAt = o.now().UnixMilli()
	}
	d.ID, d.Selectors, d.MaxTime = 0, slices.Clone(d.Selectors), min(d.MaxTime, d.CreatedAt)
	err := d.validate()
	e := &deleting{wanted: d}
	if err == nil {
		_, err = o.submit(ctx, tenantID, e)
	}
	if err != nil {
		return Deletion{}, fmt.Errorf("record deletion in manifest of tenant %s: %w", tenantID, err)
	}
	return e.recorded, nil
}

// CancelDeletion takes a deletion back: what it means and is still in a block shows again. One that was cancelled or
// forgotten is cancelled already; one that there never was is an error of kind NotFound. Other errors are as for Add.
func (o *Owner) CancelDeletion(ctx context.Context, tenantID string, id uint64) error {
	if _, err := o.submit(ctx, tenantID, cancellation(id)); err != nil {
		return fmt.Errorf("cancel deletion %d in manifest of tenant %s: %w", id, tenantID, err)
	}
	return nil
}

// HastenDeletions asks for the deletions with these IDs, or all when there are none, to be worked into the blocks without
// the usual delay. Those that concern no block are passed over. Errors are as for Add.
func (o *Owner) HastenDeletions(ctx context.Context, tenantID string, ids ...uint64) error {
	if _, err := o.submit(ctx, tenantID, haste(slices.Clone(ids))); err != nil {
		return fmt.Errorf("hasten deletions in manifest of tenant %s: %w", tenantID, err)
	}
	return nil
}

// ForgetDeletions takes deletions out of the manifest that are done: each concerns no listed block and is older than
// RememberDeletions, or the error is ErrConflict. One that is not there is forgotten already. Other errors are as for Add.
func (o *Owner) ForgetDeletions(ctx context.Context, tenantID string, ids ...uint64) error {
	if len(ids) == 0 {
		return nil
	}
	if _, err := o.submit(ctx, tenantID, forgetting(slices.Clone(ids))); err != nil {
		return fmt.Errorf("forget %d deletions in manifest of tenant %s: %w", len(ids), tenantID, err)
	}
	return nil
}

// Forgettable returns the deletions that ForgetDeletions would take out at a time in milliseconds since the Unix epoch.
func (m *Manifest) Forgettable(at int64) (ids []uint64) {
	for i := range m.Deletions {
		if d := &m.Deletions[i]; m.checkForget(d, at) == nil {
			ids = append(ids, d.ID)
		}
	}
	return ids
}

func (m *Manifest) checkForget(d *Deletion, at int64) error {
	if at-d.CreatedAt < RememberDeletions.Milliseconds() {
		return conflict("deletion %d, which it forgets, is younger than %v", d.ID, RememberDeletions)
	}
	if i := slices.IndexFunc(m.Blocks, func(b Block) bool { return d.Concerns(&b) }); i >= 0 {
		return conflict("deletion %d, which it forgets, concerns block %s", d.ID, m.Blocks[i].ULID)
	}
	return nil
}

// deleting records a deletion.
type deleting struct{ wanted, recorded Deletion }

func (e *deleting) apply(d *draft) (Added, error) {
	for _, there := range d.next.Deletions {
		if there.same(&e.wanted) {
			e.recorded = there
			return Added{Version: d.version()}, nil
		}
	}
	e.recorded = e.wanted
	e.recorded.ID = max(1, d.next.NextDeletion)
	d.next.NextDeletion = e.recorded.ID + 1
	d.next.Deletions = append(d.next.Deletions, e.recorded)
	d.changed = true
	return Added{Version: d.next.Version}, nil
}

// same reports whether both mean the same samples.
func (d *Deletion) same(other *Deletion) bool {
	return d.MinTime == other.MinTime && d.MaxTime == other.MaxTime && d.CreatedAt == other.CreatedAt &&
		slices.Equal(d.Selectors, other.Selectors)
}

// cancellation is the ID of a deletion that is taken back.
type cancellation uint64

func (e cancellation) apply(d *draft) (Added, error) {
	id := uint64(e)
	if id == 0 || id >= d.next.NextDeletion {
		return Added{}, errkind.New(errkind.NotFound, "there is no deletion %d", id)
	}
	d.withoutDeletions(id)
	return Added{Version: d.version()}, nil
}

// forgetting are the IDs of deletions that are done.
type forgetting []uint64

func (e forgetting) apply(d *draft) (Added, error) {
	for _, id := range e {
		if there, ok := d.next.findDeletion(id); ok {
			if err := d.next.checkForget(there, d.at); err != nil {
				return Added{}, err
			}
		}
	}
	d.withoutDeletions(e...)
	return Added{Version: d.version()}, nil
}

// withoutDeletions takes deletions out.
func (d *draft) withoutDeletions(ids ...uint64) {
	before := len(d.next.Deletions)
	d.next.Deletions = slices.DeleteFunc(slices.Clone(d.next.Deletions), func(each Deletion) bool {
		return slices.Contains(ids, each.ID)
	})
	d.changed = d.changed || len(d.next.Deletions) < before
	d.next.normalise()
}

// haste are the IDs of deletions that are urgent; none means all.
type haste []uint64

func (e haste) apply(d *draft) (Added, error) {
	cloned := false
	for i := range d.next.Deletions {
		each := &d.next.Deletions[i]
		wanted := len(e) == 0 || slices.Contains(e, each.ID)
		if !wanted || each.Urgent || !slices.ContainsFunc(d.next.Blocks, func(b Block) bool { return each.Concerns(&b) }) {
			continue
		}
		if !cloned {
			d.next.Deletions, cloned = slices.Clone(d.next.Deletions), true
		}
		d.next.Deletions[i].Urgent = true
		d.changed = true
	}
	return Added{Version: d.version()}, nil
}
