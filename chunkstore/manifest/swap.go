package manifest

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/internal/errkind"
)

// swapIDBytes of randomness tell the versions of rivals apart.
const swapIDBytes = 16

// swap lists the blocks in a new version and returns the answers in their order, and the versions in the bucket when it
// looked. Rivals that win a number make it try the next one, until ctx ends. The caller has the turn.
func (o *Owner) swap(ctx context.Context, c *catalog, blocks []Block) ([]Added, []entry, error) {
	for {
		base, err := o.base(ctx, c)
		if err != nil {
			return nil, nil, err
		}
		id, err := o.swapID()
		if err != nil {
			return nil, nil, err
		}
		next, answers := base.withBlocks(blocks, o.now().UnixMilli(), id)
		if next == base {
			return answers, nil, nil
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
		answers, entries, err := o.settle(ctx, c, next, blocks)
		if err != nil || answers != nil {
			return answers, entries, err
		}
	}
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

// settle makes sure that next, which this owner has created, continues the history of the tenant. An owner that stood
// still can take a number that had been used and deleted long before; then higher versions exist that know nothing of
// it. In that case answers are nil and the swap has to be repeated on the true history.
func (o *Owner) settle(
	ctx context.Context, c *catalog, next *Manifest, blocks []Block,
) (answers []Added, entries []entry, _ error) {
	began := o.now()
	c.confirmed = time.Time{} // until proven; an error leaves it to the next call to look
	entries, err := o.list(ctx, c.tenant)
	if err != nil {
		return nil, nil, err
	}
	newest := next
	if n := len(entries); n > 0 && entries[n-1].version > next.Version {
		if newest, err = o.newestListed(ctx, c.tenant); err != nil {
			return nil, nil, o.unreadable(c, err)
		}
	}
	same, answers := newest.withBlocks(blocks, 0, "")
	if same != newest {
		o.undo(ctx, c.tenant, next, newest)
		return nil, nil, nil
	}
	c.current.Store(newest)
	c.confirmed = began
	for _, a := range answers {
		if a.Version == next.Version && !a.Covered {
			o.metrics.added.Inc()
		}
	}
	return answers, entries, nil
}

// undo deletes a version that is no part of the history, best effort: nobody lists up to it, and nobody who counts up
// from a version that still exists meets it.
func (o *Owner) undo(ctx context.Context, tenantID string, forked, newest *Manifest) {
	o.metrics.swaps.WithLabelValues(swapForked).Inc()
	err := o.bkt.Delete(ctx, Key(tenantID, forked.Version))
	o.log.Warn("manifest version written after a long pause was undone",
		"tenant", tenantID, "version", forked.Version, "newest", newest.Version, "err", err)
}
