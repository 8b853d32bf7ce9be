package manifest

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/internal/errkind"
)

// swapIDBytes of randomness tell the versions of rivals apart.
const swapIDBytes = 16

// swap works the edits into a new version and returns what became of them, in their order, and the versions in the bucket
// when it looked. Rivals that win a number make it try the next one, until ctx ends. The caller has the turn.
func (o *Owner) swap(ctx context.Context, c *catalog, edits []edit) ([]result, []entry, error) {
	for {
		base, err := o.base(ctx, c)
		if err != nil {
			return nil, nil, err
		}
		id, err := o.swapID()
		if err != nil {
			return nil, nil, err
		}
		d := base.draft(o.now().UnixMilli(), id)
		results := d.applyAll(edits)
		next := d.finished()
		if next == base {
			newest, err := o.confirm(ctx, c, base, results)
			if err != nil {
				return nil, nil, err
			}
			if newest != base {
				continue
			}
			return results, nil, nil
		}
		began := time.Now()
		won, err := o.create(ctx, c, next)
		o.metrics.swapSeconds.Observe(time.Since(began).Seconds())
		if err != nil {
			o.metrics.swaps.WithLabelValues(swapFailed).Inc()
			return nil, nil, err
		}
		if !won {
			continue
		}
		results, entries, err := o.settle(ctx, c, d, edits, results)
		if err == nil && results == nil {
			continue
		}
		return results, entries, err
	}
}

// confirm returns the newest version when an edit does not fit the base: an edit that fails proves nothing while there
// may be a newer one. An edit that has been fulfilled stays so, and needs no look.
func (o *Owner) confirm(ctx context.Context, c *catalog, base *Manifest, results []result) (*Manifest, error) {
	if !slices.ContainsFunc(results, func(r result) bool { return r.err != nil }) {
		return base, nil
	}
	return o.lookFrom(ctx, c)
}

// base returns the version to build on. Whether it is the newest, create finds out.
func (o *Owner) base(ctx context.Context, c *catalog) (*Manifest, error) {
	if o.trusted(c) {
		return c.current.Load(), nil
	}
	return o.load(ctx, c)
}

func (o *Owner) swapID() (string, error) {
	var id [swapIDBytes]byte
	if _, err := io.ReadFull(o.random, id[:]); err != nil {
		return "", fmt.Errorf("draw swap ID: %w", err)
	}
	return hex.EncodeToString(id[:]), nil
}

// create tries to take the number of next. Whatever the bucket answers but success, the object under that number
// decides: an own put may have been applied although the answer was a conflict, an error, or none at all.
func (o *Owner) create(ctx context.Context, c *catalog, next *Manifest) (won bool, _ error) {
	data, err := Encode(next)
	if err != nil {
		return false, err
	}
	put := o.bkt.PutIfAbsent(ctx, Key(c.tenant, next.Version), data)
	if put == nil {
		o.metrics.swaps.WithLabelValues(swapWon).Inc()
		return true, nil
	}
	there, err := o.read(ctx, c.tenant, next.Version)
	switch {
	case errors.Is(err, errAbsent) && errors.Is(put, bucket.ErrExists):
		// Taken and gone: this owner is so far behind that the version was deleted. Look anew.
		c.confirmed = time.Time{}
		return false, errkind.New(errkind.Unavailable, "version %d came and went: %w", next.Version, put)
	case errors.Is(err, errAbsent):
		return false, unavailable(put) // it may still arrive, and be found by the next attempt
	case err != nil:
		return false, o.unreadable(c, fmt.Errorf("%w (after: %w)", err, put))
	case there.SwapID == next.SwapID:
		o.metrics.swaps.WithLabelValues(swapRecovered).Inc()
		return true, nil
	}
	o.metrics.swaps.WithLabelValues(swapLost).Inc()
	c.current.Store(there)
	return false, nil
}

// settle makes sure that the draft, which this owner has created, continues the history of the tenant. An owner that
// stood still can take a number that had been used and deleted long before; then higher versions exist that know nothing
// of it. In that case the results are nil and the swap has to be repeated on the true history.
func (o *Owner) settle(
	ctx context.Context, c *catalog, d *draft, edits []edit, first []result,
) (results []result, entries []entry, _ error) {
	began := o.now()
	c.confirmed = time.Time{} // until proven; an error leaves it to the next call to look
	entries, err := o.list(ctx, c.tenant)
	if err != nil {
		return nil, nil, err
	}
	newest := d.next
	if n := len(entries); n > 0 && entries[n-1].version > d.next.Version {
		if newest, _, err = o.newestListed(ctx, c); err != nil {
			return nil, nil, o.unreadable(c, err)
		}
	}
	again := newest.draft(0, "")
	results = again.applyAll(edits)
	for i := range results {
		again.changed = again.changed || results[i].err != nil && first[i].err == nil
	}
	deleted := newest != d.next && newest.finished() && !d.base.finished()
	if deleted { // with the versions before it: this one is of no use to anybody
		o.undo(ctx, c.tenant, d.next, newest)
	}
	if again.changed {
		if !deleted && forked(entries, d.next.Version) {
			o.undo(ctx, c.tenant, d.next, newest)
		}
		return nil, nil, nil
	}
	c.current.Store(newest)
	o.noteNewest(c, newest, began)
	o.metrics.added.Add(float64(d.added))
	o.metrics.removed.WithLabelValues(removedReplaced).Add(float64(d.replaced))
	o.metrics.removed.WithLabelValues(removedDropped).Add(float64(d.dropped))
	o.noteChange(c.tenant)
	return results, entries, nil
}

// forked reports whether a version is no part of the history: versions above it that nobody has deleted yet were there
// before it, by the store's clock.
func forked(entries []entry, version uint64) bool {
	i := slices.IndexFunc(entries, func(e entry) bool { return e.version == version })
	return i >= 0 && i+keepVersions < len(entries) && entries[i+1].written.Before(entries[i].written)
}

// undo deletes a version that is no part of the history, best effort: nobody lists up to it, and nobody who counts up
// from a version that still exists meets it.
func (o *Owner) undo(ctx context.Context, tenantID string, forked, newest *Manifest) {
	o.metrics.swaps.WithLabelValues(swapForked).Inc()
	err := o.bkt.Delete(ctx, Key(tenantID, forked.Version))
	o.log.Warn("manifest version written after a long pause was undone",
		"tenant", tenantID, "version", forked.Version, "newest", newest.Version, "err", err)
}
