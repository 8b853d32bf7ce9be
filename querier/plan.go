package querier

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/tombstone"
	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/tracing"
)

const (
	// recentRange is how far back a query asks ingesters alone. They keep 12 h; the hour between is their time to delete
	// while queries run.
	recentRange = 11 * time.Hour
	// maxPlans bounds the plans of one query. Each further one follows a block that an ingester deleted between two of
	// our reads, so that even the second is rare.
	maxPlans = 5
)

// plan is a View with what the store answers of it.
type plan struct {
	view duramenpb.View
	// blocks are those of the manifest that overlap [mint, storeMaxt]; none means that the store is not asked.
	blocks    []manifest.Block
	storeMaxt int64
	// lost are the ranges in [mint, maxt] of which samples are known to be lost.
	lost []manifest.LostRange
	// hidden are the deletions of times in [mint, maxt].
	hidden *tombstone.Set
	// doubt is why these two may lack something; nil when they do not.
	doubt error
}

// makePlan divides [mint, maxt] at the cut. It is pure. A nil manifest is right only for a range at or above the cut.
func makePlan(m *manifest.Manifest, cut, mint, maxt int64) plan {
	p := plan{view: duramenpb.View{Cut: cut}}
	if m == nil {
		return p
	}
	p.view.Version = m.Version
	p.lost = m.LostIn(mint, maxt)
	p.storeMaxt = min(maxt, cut-1)
	if mint > p.storeMaxt {
		return p
	}
	for _, b := range m.Blocks {
		if b.Overlaps(mint, p.storeMaxt) {
			p.blocks = append(p.blocks, b)
		}
	}
	return p
}

// tiers is a planned query: the open queriers of both tiers.
type tiers[Q storage.LabelQuerier] struct {
	recent Q
	store  Q
	// both is false when recent data is the whole answer and store is unset.
	both bool
	// warnings are the plan's own.
	warnings annotations.Annotations
	// hidden is what deletions hide of recent data; the store hides its own.
	hidden *tombstone.Set
	// retained is from when on samples are shown, math.MinInt64 for all.
	retained int64
}

func (t tiers[Q]) Close() error {
	err := t.recent.Close()
	if t.both {
		err = errors.Join(err, t.store.Close())
	}
	return err
}

// openRecent and openStore open one tier.
type (
	openRecent[Q any] func(ctx context.Context, tenantID string, v duramenpb.View, mint, maxt int64) (
		Q, duramenpb.Held, error)
	openStore[Q any] func(tenant string, blocks []manifest.Block, hidden *tombstone.Set, mint, maxt int64) (Q, error)
)

// source is how queriers of both tiers are opened, and one that finds nothing.
type source[Q storage.LabelQuerier] struct {
	recent openRecent[Q]
	store  openStore[Q]
	none   Q
}

// open plans a query over [mint, maxt] and opens both tiers; ctx may want a fresh manifest. When an ingester's answer
// does not complete the plan, it plans again on a fresh manifest with the cut raised to the ingester's floor. What is
// beyond the tenant's retention is left out.
func open[Q storage.LabelQuerier](
	ctx context.Context, q *Querier, tenantID string, mint, maxt int64, from source[Q],
) (_ tiers[Q], err error) {
	ctx, span := tracing.Start(ctx, "querier.plan")
	var p plan
	plans := 0
	defer func() { endPlan(span, tenantID, p, plans, err) }()
	retained := q.retained(tenantID)
	if mint = max(mint, retained); mint > maxt {
		return tiers[Q]{recent: from.none, retained: retained}, nil
	}
	cut, since := q.cut(tenantID)
	departed := q.departures.known()
	since = max(since, departed.learnt)
	if wantsFresh(ctx) {
		since = q.versions.moment()
	}
	var held duramenpb.Held
	for plans < maxPlans {
		plans++
		m, err := q.manifest(ctx, tenantID, mint, cut, since)
		if err != nil {
			return tiers[Q]{}, err
		}
		if err := q.refuseDeleted(tenantID, m); err != nil {
			return tiers[Q]{}, err
		}
		p = makePlan(m, cut, mint, maxt)
		if m == nil {
			var doubt error
			m, doubt = q.versions.glance(ctx, tenantID)
			p.lost, p.doubt = m.LostIn(mint, maxt), doubt
		}
		if p.hidden, err = q.hidden(m, mint, maxt); err != nil {
			return tiers[Q]{}, err
		}
		var r Q
		r, held, err = from.recent(ctx, tenantID, p.view, mint, maxt)
		if err != nil {
			return tiers[Q]{}, fmt.Errorf("query recent samples of tenant %s: %w", tenantID, err)
		}
		// Who has left says no more that a manifest is too old for what it held.
		unknown := mint < cut && held.Departures > departed.count
		if held.Fits(p.view, mint) && !unknown {
			if len(p.lost) > 0 {
				q.metrics.lost.Inc()
			}
			t := tiers[Q]{recent: r, warnings: p.warnings(), hidden: p.hidden, retained: retained}
			return withStore(tenantID, t, p, mint, from.store)
		}
		if err := r.Close(); err != nil {
			return tiers[Q]{}, fmt.Errorf("close the querier of recent samples of tenant %s: %w", tenantID, err)
		}
		q.metrics.replans.Inc()
		since = q.versions.moment()
		departed = q.departures.learn(held.Departures, since)
		q.floors.raise(tenantID, held.Floor, since)
		cut = max(cut, held.Floor)
	}
	return tiers[Q]{}, errkind.New(errkind.Unavailable,
		"query tenant %s: ingesters deleted blocks that no manifest lists yet after %d plans "+
			"(floor %d, deleted up to manifest version %d); try again", tenantID, maxPlans, held.Floor, held.DeletedVersion)
}

// cut returns the time from which on recent data is the whole answer, as far as is known before a query is planned, and
// when that was learnt: a query below the cut needs a manifest that was looked at later.
func (q *Querier) cut(tenantID string) (cut int64, since moment) {
	usual := q.now().Add(-recentRange).UnixMilli()
	if f, ok := q.floors.get(tenantID, usual); ok {
		return f.floor, f.learnt
	}
	return usual, 0
}

// withStore adds the store's tier to what is open already.
func withStore[Q storage.LabelQuerier](
	tenantID string, t tiers[Q], p plan, mint int64, store openStore[Q],
) (tiers[Q], error) {
	if len(p.blocks) == 0 {
		return t, nil
	}
	s, err := store(tenantID, p.blocks, p.hidden, mint, p.storeMaxt)
	if err != nil {
		return tiers[Q]{}, errors.Join(fmt.Errorf("query blocks of tenant %s: %w", tenantID, err), t.recent.Close())
	}
	t.store, t.both = s, true
	return t, nil
}

// manifest returns the version to pin; nil when the range needs none, so that recent data is answered while the bucket
// is away. It was looked at after since.
func (q *Querier) manifest(
	ctx context.Context, tenantID string, mint, cut int64, since moment,
) (*manifest.Manifest, error) {
	if mint >= cut {
		return nil, nil
	}
	ctx, cancel := beforeDeadline(ctx)
	defer cancel()
	m, err := q.versions.pin(ctx, tenantID, since)
	if err == nil && m.Version == 0 {
		err = q.versions.refuseUnlisted(ctx, tenantID)
	}
	if err == nil {
		return m, nil
	}
	err = fmt.Errorf("query samples before %s, which are in the bucket: manifest of tenant %s: %w",
		time.UnixMilli(cut).UTC().Format(time.RFC3339), tenantID, err)
	var kinded *errkind.Error
	if !errors.As(err, &kinded) && !errors.Is(err, context.Canceled) {
		err = errkind.Wrap(errkind.Unavailable, err)
	}
	return nil, err
}

// floors remembers, per tenant, the highest floor that an ingester reported, to plan right the first time. Floors below
// the usual cut say nothing and are forgotten. What lies below a floor may be in the bucket alone since the floor rose, so
// it goes with the moment when it was learnt, and queries below it use no manifest that was looked at before.
type floors struct {
	mu       sync.Mutex
	byTenant map[string]knownFloor
}

type knownFloor struct {
	floor  int64
	learnt moment
}

func newFloors() *floors { return &floors{byTenant: map[string]knownFloor{}} }

// get returns the floor of a tenant when it is above the usual cut.
func (f *floors) get(tenantID string, usual int64) (knownFloor, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k, ok := f.byTenant[tenantID]
	if ok && k.floor <= usual {
		delete(f.byTenant, tenantID)
		return k, false
	}
	return k, ok
}

func (f *floors) raise(tenantID string, floor int64, learnt moment) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if old, ok := f.byTenant[tenantID]; !ok || old.floor < floor {
		f.byTenant[tenantID] = knownFloor{floor, learnt}
	}
}

// departures remembers how many members are known to have left, and the moment of versions when the last one was learnt.
// What they held is in the bucket alone, so that a query uses no manifest that was looked at before.
type departures struct {
	mu   sync.Mutex
	last departure
}

type departure struct {
	count  uint64
	learnt moment
}

func (d *departures) known() departure {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last
}

// learn notes a count that was told at a moment, and returns the highest.
func (d *departures) learn(count uint64, at moment) departure {
	d.mu.Lock()
	defer d.mu.Unlock()
	if count > d.last.count {
		d.last = departure{count, at}
	}
	return d.last
}
