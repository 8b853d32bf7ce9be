package querier

import (
	"container/list"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
)

const (
	// pollEvery is how often the bucket is asked for a newer manifest of a tenant that is queried. With trustFor it keeps
	// what another process has listed from being invisible for five seconds.
	pollEvery = 2 * time.Second
	// trustFor is how long after a look a query does not look for itself.
	trustFor = pollEvery + time.Second
	// maxManifestAge is how long a manifest may be used that nobody could compare with the bucket. Objects of a block stay
	// for longer than that after the block has left the manifest.
	maxManifestAge = 30 * time.Minute
	// lookPatience is how long a query waits for a look that it can do without.
	lookPatience = time.Second
	// pollTimeout ends a look of the poller.
	pollTimeout = 10 * time.Second
	// pollFor is how long after its last query a tenant is polled.
	pollFor = 5 * time.Minute
	// mostPolled bounds the tenants that are polled, those queried last; pollParallel the requests at the same time.
	mostPolled, pollParallel = 1000, 16
	// mostKnown bounds the tenants that are remembered at all.
	mostKnown = 20_000
)

// versions keeps what a query pins fresh: manifests of tenants that are queried are compared with the bucket every few
// seconds, by run when it runs, else by the queries. Safe for concurrent use.
type versions struct {
	source  Manifests
	notes   *remembered
	now     func() time.Time
	metrics versionMetrics

	mu     sync.Mutex
	known  map[string]*list.Element // of *knownVersion
	recent *list.List               // the one queried last in front
	events moment
}

// moment orders events of versions: looks that begin, and what queries learn.
type moment uint64

type versionMetrics struct {
	polled  prometheus.Gauge
	looks   prometheus.Counter
	failed  prometheus.Counter
	tooLate prometheus.Counter
}

// knownVersion is what is known of a tenant's manifest; guarded by versions.mu.
type knownVersion struct {
	tenantID string
	queried  time.Time
	looked   time.Time // when the last look that succeeded began; zero is never
	lookedAt moment    // the same
	failed   time.Time // when the last look failed; zero when one has succeeded since
	began    time.Time // when the look began that goes on now; zero when there is none
	bare     time.Time // when the tenant last had neither a manifest nor a block; zero is never
}

func newVersions(source Manifests, notes *remembered, now func() time.Time, m versionMetrics) *versions {
	return &versions{
		source: source, notes: notes, now: now, metrics: m, known: map[string]*list.Element{}, recent: list.New(),
	}
}

// moment returns that of now: each look that begins from now on is later.
func (v *versions) moment() moment {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.events++
	return v.events
}

// pin returns the manifest for a query. It is the newest of a few seconds ago, or, when the bucket cannot be asked, of half
// an hour ago at most, but none that was looked at before since. Else the error is the bucket's.
func (v *versions) pin(ctx context.Context, tenantID string, since moment) (*manifest.Manifest, error) {
	now := v.now()
	k := v.query(tenantID, now)
	age := now.Sub(k.looked)
	usable := !k.looked.IsZero() && age >= 0 && age <= maxManifestAge && k.lookedAt >= since
	if usable && (age <= trustFor || k.failing(now)) {
		return v.source.Current(ctx, tenantID)
	}
	patience, cancel := ctx, context.CancelFunc(func() {})
	if usable {
		patience, cancel = context.WithTimeout(ctx, lookPatience)
	}
	defer cancel()
	m, err := v.look(patience, tenantID)
	switch {
	case err == nil:
		return m, nil
	case usable && ctx.Err() == nil && errkind.Of(err) != errkind.Corrupt:
		return v.source.Current(ctx, tenantID)
	case !k.looked.IsZero() && age > maxManifestAge && errkind.Of(err) == errkind.Unavailable:
		v.metrics.tooLate.Inc()
		return nil, fmt.Errorf("what is known of the bucket is %s old, and %s at most is used: %w",
			age.Round(time.Second), maxManifestAge, err)
	default:
		return nil, err
	}
}

// glance returns the manifest for a query that needs none to be whole: it says what was deleted and lost, as of a few
// seconds ago. When nothing is known of the tenant, as after a start, the bucket is asked, for a moment: without an answer
// the manifest says what was remembered, of the last life as a rule. When that is nothing either it is empty, and the query
// goes on. In both cases doubt is what the query is told.
func (v *versions) glance(ctx context.Context, tenantID string) (m *manifest.Manifest, doubt error) {
	now := v.now()
	k := v.query(tenantID, now) // so that it is polled from now on
	if m := v.source.Known(tenantID); m != nil {
		return m, nil
	}
	if !k.failing(now) {
		ctx, cancel := context.WithTimeout(ctx, lookPatience)
		defer cancel()
		if m, err := v.look(ctx, tenantID); err == nil {
			return m, nil
		}
	}
	if m, at := v.notes.recall(tenantID); m != nil {
		return m, fmt.Errorf("deletions of series are as of %s: the bucket, which knows of later ones, could not be asked",
			instant(at.UnixMilli()))
	}
	return &manifest.Manifest{Tenant: tenantID}, errUnknown
}

// failing reports that a look has failed lately, or goes on for longer than a query would wait for it.
func (k knownVersion) failing(now time.Time) bool {
	return !k.failed.IsZero() && now.Sub(k.failed) <= trustFor || !k.began.IsZero() && now.Sub(k.began) > lookPatience
}

// look asks the bucket for the newest manifest.
func (v *versions) look(ctx context.Context, tenantID string) (*manifest.Manifest, error) {
	began, at := v.now(), v.moment()
	v.change(tenantID, func(k *knownVersion) {
		if k.began.IsZero() {
			k.began = began
		}
	})
	v.metrics.looks.Inc()
	m, err := v.source.Refresh(ctx, tenantID)
	v.change(tenantID, func(k *knownVersion) {
		k.began = time.Time{}
		switch {
		case err == nil && k.lookedAt < at:
			k.looked, k.lookedAt, k.failed = began, at, time.Time{}
		case err != nil:
			k.failed = v.now()
		}
	})
	if err != nil {
		v.metrics.failed.Inc()
		return nil, err
	}
	v.notes.keep(tenantID, m)
	return m, nil
}

// refuseUnlisted returns an error when a tenant has blocks in the bucket and no manifest: an answer without them would be a
// part.
func (v *versions) refuseUnlisted(ctx context.Context, tenantID string) error {
	now := v.now()
	if age := now.Sub(v.query(tenantID, now).bare); age >= 0 && age <= trustFor {
		return nil
	}
	id, err := v.source.Unlisted(ctx, tenantID)
	switch {
	case err != nil:
		return err
	case id != ulid.ULID{}:
		return errkind.New(errkind.Unavailable, "there is none, and block %s lies in the bucket: until the tenant's folder has "+
			"been compared with its manifest (manifest.reconcile_interval), nobody knows what it holds", id)
	}
	v.change(tenantID, func(k *knownVersion) { k.bare = now })
	return nil
}

// query notes a query and returns what is known of the tenant.
func (v *versions) query(tenantID string, now time.Time) knownVersion {
	v.mu.Lock()
	defer v.mu.Unlock()
	e, ok := v.known[tenantID]
	if !ok {
		e = v.recent.PushFront(&knownVersion{tenantID: tenantID})
		v.known[tenantID] = e
		if v.recent.Len() > mostKnown {
			v.forget(v.recent.Back())
		}
	}
	v.recent.MoveToFront(e)
	k := knownOf(e)
	k.queried = now
	return *k
}

func (v *versions) change(tenantID string, f func(*knownVersion)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if e, ok := v.known[tenantID]; ok {
		f(knownOf(e))
	}
}

// run polls until ctx ends, and waits for all looks that it began.
func (v *versions) run(ctx context.Context) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			v.poll(ctx)
		}
	}
}

func (v *versions) poll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	var looks errgroup.Group
	looks.SetLimit(pollParallel)
	for _, tenantID := range v.due() {
		looks.Go(func() error {
			_, _ = v.look(ctx, tenantID) // noted by look; a query that needs it will meet the error as well
			return nil
		})
	}
	_ = looks.Wait()
}

// due returns the tenants to poll and forgets those of whom nothing is worth knowing.
func (v *versions) due() (tenants []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.now()
	for e := v.recent.Front(); e != nil; {
		k, this := knownOf(e), e
		e = e.Next()
		switch {
		case now.Sub(k.queried) <= pollFor:
			if len(tenants) < mostPolled {
				tenants = append(tenants, k.tenantID)
			}
		case now.Sub(k.looked) > maxManifestAge:
			v.forget(this)
		}
	}
	v.metrics.polled.Set(float64(len(tenants)))
	return tenants
}

// forget drops an entry. The caller holds mu.
func (v *versions) forget(e *list.Element) {
	v.recent.Remove(e)
	delete(v.known, knownOf(e).tenantID)
}

func knownOf(e *list.Element) *knownVersion { return e.Value.(*knownVersion) } //nolint:forcetypeassert // it holds nothing else
