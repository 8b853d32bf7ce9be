package ingester

import (
	"context"
	"fmt"
	"math"
	"sync"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/storage"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
)

// Querier returns a querier over what this ingester owes to a query that pinned view: all of its own with t ≥ view.Cut,
// and at any t what manifest view.Version does not list. It may return more of its own. mint and maxt are inclusive, in
// milliseconds. Held says whether the view still fits; ask it before reading on. A tenant without data here gets an empty
// querier.
//
// The querier must be closed, and until then it holds back cuts, deletions and the closing of the TSDB. One goroutine
// may use it at a time; strings and samples are valid until Close.
//
// Kinds of errors: Unavailable while starting, stopping or reopening, Gone for a tenant that is to be deleted, Corrupt when
// a local block that the view counts on could not be read and was set aside.
func (i *Ingester) Querier(ctx context.Context, tenantID string, view duramenpb.View, mint, maxt int64,
) (storage.Querier, duramenpb.Held, error) {
	o, err := i.owe(ctx, tenantID, view, mint, maxt)
	if err != nil || o.life == nil {
		return storage.NoopQuerier(), o.held, err
	}
	if o.mint > maxt {
		o.life.release()
		return storage.NoopQuerier(), o.held, nil
	}
	q, err := o.life.db.Querier(o.mint, maxt)
	if err != nil {
		o.life.release()
		return nil, o.held, errkind.Wrap(errkind.Unavailable, fmt.Errorf("query recent data of %s: %w", tenantID, err))
	}
	return &heldQuerier{Querier: q, handle: handle{life: o.life}}, o.life.heldNow(), nil
}

// ChunkQuerier is Querier for chunks.
func (i *Ingester) ChunkQuerier(ctx context.Context, tenantID string, view duramenpb.View, mint, maxt int64,
) (storage.ChunkQuerier, duramenpb.Held, error) {
	o, err := i.owe(ctx, tenantID, view, mint, maxt)
	if err != nil || o.life == nil {
		return storage.NoopChunkedQuerier(), o.held, err
	}
	if o.mint > maxt {
		o.life.release()
		return storage.NoopChunkedQuerier(), o.held, nil
	}
	q, err := o.life.db.ChunkQuerier(o.mint, maxt)
	if err != nil {
		o.life.release()
		return nil, o.held, errkind.Wrap(errkind.Unavailable, fmt.Errorf("query recent data of %s: %w", tenantID, err))
	}
	return &heldChunkQuerier{ChunkQuerier: q, handle: handle{life: o.life}}, o.life.heldNow(), nil
}

// Plan says what Querier would say beside its answer, and keeps nothing open.
//
// Kinds of errors: those of Querier.
func (i *Ingester) Plan(ctx context.Context, tenantID string, view duramenpb.View, mint, maxt int64) (
	duramenpb.Held, error,
) {
	o, err := i.owe(ctx, tenantID, view, mint, maxt)
	if err == nil && o.life != nil {
		o.life.release()
	}
	return o.held, err
}

// find takes a handle on a tenant's life for a read; nil when the tenant has no data here. The caller releases it.
func (i *Ingester) find(ctx context.Context, tenantID string) (*life, error) {
	if err := i.serving(); err != nil {
		return nil, err
	}
	if err := i.dooms.refuse(tenantID); err != nil {
		return nil, err
	}
	t, err := i.tenants.get(tenantID, false)
	if err != nil || t == nil {
		return nil, err
	}
	return t.acquire(ctx)
}

// owed is what a query has to read here: from mint on in life, which is nil when there is nothing.
type owed struct {
	life *life
	mint int64
	held duramenpb.Held
}

// owe takes a handle and finds the lowest time that the view leaves to this ingester.
func (i *Ingester) owe(ctx context.Context, tenantID string, view duramenpb.View, mint, maxt int64) (owed, error) {
	nothing := owed{held: duramenpb.Held{Floor: math.MinInt64}}
	if err := i.serving(); err != nil {
		return nothing, err
	}
	nothing.held.Floor = i.tenants.born
	l, err := i.find(ctx, tenantID)
	if err != nil || l == nil {
		return nothing, err
	}
	if err := l.checkQuarantine(view, mint, maxt); err != nil {
		l.release()
		return nothing, err
	}
	return owed{life: l, mint: max(mint, min(view.Cut, l.lowestUnlisted(view.Version))), held: l.heldNow()}, nil
}

// lowestUnlisted returns the lowest time at which this TSDB may hold what manifest version does not list.
//
// The order of the steps decides. Data moves from the head into a block, and the block is loaded before the head's lower
// bound rises; so the head is read first, the blocks after it. What moves before the head is read is found in the blocks,
// what moves later was counted in the head. The querier is opened only after that, from the bound found here, and takes
// whatever then holds the data. A sample that enters below the bound meanwhile was not acknowledged before the query
// began. A block that is deleted before the querier opens is not missed in silence: localBlocks raises its floor and
// version, durably, before the block goes, and Held is read once the querier is open, so that it tells of every deletion
// the querier could have suffered.
func (l *life) lowestUnlisted(version uint64) int64 {
	head := l.db.Head()
	lowest := head.MinTime() // the largest int64 while nothing was stored
	if head.MaxOOOTime() != math.MinInt64 {
		lowest = min(lowest, head.MinOOOTime())
	}
	for _, b := range l.db.Blocks() {
		if v, ok := l.blocks.listedVersion(b.Meta().ULID); !ok || v > version {
			lowest = min(lowest, b.MinTime())
		}
	}
	return lowest
}

func (l *life) heldNow() duramenpb.Held {
	return duramenpb.Held{Floor: l.blocks.floor(), DeletedVersion: l.blocks.deletedVersion()}
}

// quarantineListing remembers which manifest version lists a block that was set aside here. Safe for concurrent use.
type quarantineListing struct {
	mu     sync.Mutex
	listed map[ulid.ULID]uint64
}

// learn takes the versions from a manifest.
func (q *quarantineListing) learn(blocks []quarantinedBlock, m *manifest.Manifest) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, b := range blocks {
		if found, ok := m.Find(b.ULID); ok {
			if q.listed == nil {
				q.listed = map[ulid.ULID]uint64{}
			}
			q.listed[b.ULID] = found.AddedVersion
		}
	}
}

func (q *quarantineListing) version(id ulid.ULID) (uint64, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	v, ok := q.listed[id]
	return v, ok
}

// checkQuarantine fails a query that touches a block which could not be read and was set aside, unless the view's
// manifest lists the block and the query leaves its span to the bucket.
func (l *life) checkQuarantine(view duramenpb.View, mint, maxt int64) error {
	for _, q := range l.report.Quarantined {
		if maxt < q.MinTime || mint >= q.MaxTime {
			continue
		}
		if v, ok := l.quarantine.version(q.ULID); ok && v <= view.Version && min(q.MaxTime-1, maxt) < view.Cut {
			continue
		}
		return errkind.New(errkind.Corrupt, "local block %s of tenant %s cannot be read and is not known to be in the bucket: "+
			"%s", q.ULID, l.tenant.id, q.Reason)
	}
	return nil
}

// handle gives a life back once.
type handle struct {
	life *life
	once sync.Once
}

type heldQuerier struct {
	storage.Querier
	handle
}

// Close closes the querier and gives its handle back. Further calls do nothing.
func (q *heldQuerier) Close() error {
	var err error
	q.once.Do(func() {
		err = q.Querier.Close()
		q.life.release()
	})
	return err
}

type heldChunkQuerier struct {
	storage.ChunkQuerier
	handle
}

// Close closes the querier and gives its handle back. Further calls do nothing.
func (q *heldChunkQuerier) Close() error {
	var err error
	q.once.Do(func() {
		err = q.ChunkQuerier.Close()
		q.life.release()
	})
	return err
}
