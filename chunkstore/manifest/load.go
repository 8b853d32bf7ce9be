package manifest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/internal/errkind"
)

const (
	// trustFor is how long a version is trusted to be at most a step behind the newest one: while it is, a missing
	// next version means that there is none. It is well below pruneAfter, because a process that stood still for
	// longer would take a version that has been deleted for one that never was.
	trustFor = pruneAfter / 2

	// maxObjectBytes bounds what is read for one version: some four million blocks.
	maxObjectBytes = 1 << 30

	// listAttempts is how often a listing is repeated whose newest version was gone when it was read.
	listAttempts = 3
)

// load finds the newest version by listing. The caller has the turn.
func (o *Owner) load(ctx context.Context, c *catalog) (*Manifest, error) {
	o.metrics.loads.Inc()
	began := o.now()
	m, found, err := o.newestListed(ctx, c)
	if err != nil {
		return nil, o.unreadable(c, err)
	}
	if m == c.current.Load() { // as the listing says
		o.noteNewest(c, m, began)
		return m, nil
	}
	m, err = o.follow(ctx, c, m, began)
	if err == nil && m.Version == found.version {
		c.listed = found
	}
	return m, err
}

// newestListed returns the newest version by a listing, and its entry there. It is the one in memory when the listing
// shows the very object that it was read from. The caller has the turn.
func (o *Owner) newestListed(ctx context.Context, c *catalog) (*Manifest, entry, error) {
	for range listAttempts {
		entries, err := o.list(ctx, c.tenant)
		if err != nil {
			return nil, entry{}, err
		}
		if len(entries) == 0 {
			return &Manifest{Tenant: c.tenant}, entry{}, nil
		}
		newest := entries[len(entries)-1]
		if m := c.current.Load(); m != nil && m.Version == newest.version && c.listed == newest {
			return m, newest, nil
		}
		m, err := o.read(ctx, c.tenant, newest.version)
		if !errors.Is(err, errAbsent) {
			return m, newest, err
		}
	}
	return nil, entry{}, errkind.New(errkind.Unavailable,
		"listed versions are gone when read, %d times in a row", listAttempts)
}

// look brings the catalog up to the newest version. The caller has the turn.
func (o *Owner) look(ctx context.Context, c *catalog) (*Manifest, error) {
	n := c.looks.Add(1)
	m, err := o.lookFrom(ctx, c)
	if err == nil {
		c.looked.Store(n)
	}
	return m, err
}

func (o *Owner) lookFrom(ctx context.Context, c *catalog) (*Manifest, error) {
	if !o.trusted(c) {
		return o.load(ctx, c)
	}
	return o.follow(ctx, c, c.current.Load(), o.now())
}

// trusted reports whether the catalog holds a version from which the newest can be reached by counting. A clock that
// went backwards proves nothing; and when a tenant is deleted all versions but the last go at once.
func (o *Owner) trusted(c *catalog) bool {
	if m := c.current.Load(); m != nil && m.Deleting() {
		return false
	}
	age := o.now().Round(0).Sub(c.confirmed.Round(0)) // Round: the monotonic clock stands still while a machine sleeps
	return c.current.Load() != nil && !c.confirmed.IsZero() && age >= 0 && age <= trustFor
}

// follow steps from m to the newest version and stores each that it meets. began is when m could be trusted.
func (o *Owner) follow(ctx context.Context, c *catalog, m *Manifest, began time.Time) (*Manifest, error) {
	c.current.Store(m)
	for {
		next, err := o.read(ctx, c.tenant, m.Version+1)
		if errors.Is(err, errAbsent) {
			o.noteNewest(c, m, began)
			return m, nil
		}
		if err != nil {
			return nil, o.unreadable(c, err)
		}
		m = next
		c.current.Store(m)
	}
}

// noteNewest notes that m was the newest version at a moment.
func (o *Owner) noteNewest(c *catalog, m *Manifest, at time.Time) {
	c.confirmed = at
	o.noteLook(c.tenant, m, at)
}

// unreadable makes the tenant fail until the damage is repaired: a version known from before would hide it.
func (o *Owner) unreadable(c *catalog, err error) error {
	if errkind.Of(err) == errkind.Corrupt {
		o.metrics.corrupt.Inc()
		c.current.Store(nil)
	}
	return err
}

// read returns one version, or errAbsent. One that is damaged is read once more: perhaps it was so only on its way.
func (o *Owner) read(ctx context.Context, tenantID string, version uint64) (*Manifest, error) {
	m, err := o.readOnce(ctx, tenantID, version)
	if errkind.Of(err) == errkind.Corrupt {
		m, err = o.readOnce(ctx, tenantID, version)
	}
	return m, err
}

func (o *Owner) readOnce(ctx context.Context, tenantID string, version uint64) (*Manifest, error) {
	key := Key(tenantID, version)
	body, err := o.bkt.Get(ctx, key)
	if errors.Is(err, bucket.ErrNotFound) {
		return nil, fmt.Errorf("%w: %w", errAbsent, err)
	}
	if err != nil {
		return nil, unavailable(err)
	}
	data, err := io.ReadAll(io.LimitReader(body, maxObjectBytes))
	if err := errors.Join(err, body.Close()); err != nil {
		return nil, unavailable(fmt.Errorf("read %s: %w", key, err))
	}
	m, err := Decode(data)
	if err == nil && (m.Tenant != tenantID || m.Version != version) {
		err = errkind.New(errkind.Corrupt, "it holds version %d of tenant %s", m.Version, m.Tenant)
	}
	if err != nil {
		// Before the object is called damaged: was all of it received?
		return nil, fmt.Errorf("read %s: %w", key, cmp.Or(o.receivedInFull(ctx, key, len(data)), err))
	}
	return m, nil
}

// receivedInFull returns an error of kind Unavailable unless the object has n bytes.
func (o *Owner) receivedInFull(ctx context.Context, key string, n int) error {
	e, err := o.bkt.Stat(ctx, key)
	if err != nil {
		return unavailable(err)
	}
	if e.Size != int64(n) {
		return errkind.New(errkind.Unavailable, "received %d of %d bytes", n, e.Size)
	}
	return nil
}

// entry is a version in a listing; written is by the store's clock.
type entry struct {
	version uint64
	written time.Time
}

// list returns the versions in the bucket, ascending.
func (o *Owner) list(ctx context.Context, tenantID string) ([]entry, error) {
	var entries []entry
	err := o.bkt.List(ctx, Prefix(tenantID), false, func(e bucket.Object) error {
		if version, ok := ParseKey(tenantID, e.Key); ok {
			entries = append(entries, entry{version, e.LastModified})
		}
		return nil
	})
	if err != nil {
		return nil, unavailable(err)
	}
	return entries, nil
}
