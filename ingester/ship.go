package ingester

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/tracing"
)

const (
	// shipRetryFirst and shipRetryMost bound the pause after a failed ship; it doubles in between. Five minutes is short
	// beside the 12 h for which blocks are kept, and thousands of tenants at that pace do not keep a store down.
	shipRetryFirst = 5 * time.Second
	shipRetryMost  = 5 * time.Minute
)

// blockCatalog is what the shipper needs of the tenants' manifests.
type blockCatalog interface {
	Current(ctx context.Context, tenant string) (*manifest.Manifest, error)
	Add(ctx context.Context, tenant string, b manifest.Block) (manifest.Added, error)
}

// uploadBlock copies the block folder dir to the bucket, meta.json last. It may be repeated.
type uploadBlock func(ctx context.Context, bkt bucket.Bucket, tenant, dir, writer string) (manifest.Block, error)

// shipper copies local blocks to the bucket and has them listed. It keeps no record of its own: the manifest alone says
// what is shipped, so a restart at any point repeats at most one upload. Safe for concurrent use by several tenants.
type shipper struct {
	bkt     bucket.Bucket
	catalog blockCatalog
	upload  uploadBlock
	writer  string
	tracing *tracing.Provider // nil: none
	now     func() time.Time
	log     *slog.Logger
	metrics shipMetrics

	mu      sync.Mutex
	failing map[string]shipPause // by tenant; absent when the last ship went well
}

type shipPause struct {
	pause time.Duration
	until time.Time
}

type shipMetrics struct {
	shipped  prometheus.Counter
	failures prometheus.Counter
}

// newShipper starts nothing. writer goes into duramen.writer of each block's meta.json.
func newShipper(bkt bucket.Bucket, catalog blockCatalog, writer string, now func() time.Time, log *slog.Logger,
	reg prometheus.Registerer,
) *shipper {
	return &shipper{
		bkt: bkt, catalog: catalog, upload: block.Upload, writer: writer, now: now, log: log,
		metrics: shipMetrics{
			shipped: promauto.With(reg).NewCounter(prometheus.CounterOpts{
				Name: "duramen_ingester_blocks_shipped_total",
				Help: "Local blocks that were uploaded and are listed by the manifest. No rise for hours under load means that " +
					"blocks stay on this disk.",
			}),
			failures: promauto.With(reg).NewCounter(prometheus.CounterOpts{
				Name: "duramen_ingester_block_ship_failures_total",
				Help: "Attempts to ship a tenant's blocks that failed at least in part and will be repeated. A steady rise " +
					"means that the bucket is unreachable: local blocks pile up.",
			}),
		},
		failing: map[string]shipPause{},
	}
}

// ship brings l up to date with the tenant's manifest, uploads every block that it does not list, oldest first, and
// adds it. An error of one block does not stop the others; all are returned. Repeat it for ever, not before
// nextAttempt. One call a tenant at a time; blocks must not be closed meanwhile.
func (s *shipper) ship(ctx context.Context, tenantID string, l *localBlocks, blocks []*tsdb.Block) error {
	err := errors.Join(s.shipAll(ctx, tenantID, l, blocks), l.err())
	s.pause(tenantID, err)
	if err != nil {
		return fmt.Errorf("ship blocks of tenant %s: %w", tenantID, err)
	}
	return nil
}

func (s *shipper) shipAll(ctx context.Context, tenantID string, l *localBlocks, blocks []*tsdb.Block) error {
	l.keepOnly(blocks)
	if len(blocks) == 0 {
		return nil
	}
	m, err := s.catalog.Current(ctx, tenantID)
	if err != nil {
		return err
	}
	relist(l, m, blocks)
	todo := l.unshipped(blocks)
	slices.SortFunc(todo, func(a, b *tsdb.Block) int { return cmp.Compare(a.MinTime(), b.MinTime()) })
	var errs []error
	for _, b := range todo {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		if err := s.shipOne(ctx, tenantID, l, b); err != nil {
			errs = append(errs, fmt.Errorf("block %s: %w", b.Meta().ULID, err))
		}
	}
	return errors.Join(errs...)
}

func (s *shipper) shipOne(ctx context.Context, tenantID string, l *localBlocks, b *tsdb.Block) (err error) {
	ctx, span := s.startShipSpan(ctx, tenantID, b)
	defer func() {
		span.Fail(err)
		span.End()
	}()
	begin, id := s.now(), b.Meta().ULID
	entry, err := s.upload(ctx, s.bkt, tenantID, b.Dir(), s.writer)
	if err != nil {
		return err
	}
	added, err := s.add(ctx, tenantID, entry)
	if err != nil {
		return err
	}
	l.setListed(id, added.Version, time.Time{})
	s.metrics.shipped.Inc()
	s.log.Info("block shipped", "tenant", tenantID, "block", id, "mint", entry.MinTime, "maxt", entry.MaxTime,
		"bytes", entry.SizeBytes, "sidecar_bytes", entry.SidecarBytes, "version", added.Version, "covered", added.Covered, "duration", s.now().Sub(begin))
	return nil
}

// add has the manifest list a block.
func (s *shipper) add(ctx context.Context, tenantID string, entry manifest.Block) (manifest.Added, error) {
	ctx, span := tracing.Start(ctx, "manifest.add")
	defer span.End()
	added, err := s.catalog.Add(ctx, tenantID, entry)
	span.Int("version", int64(added.Version))
	span.Fail(err)
	return added, err
}

// relist notes which blocks the manifest lists, by name or inside a block made of them, and which it does not.
func relist(l *localBlocks, m *manifest.Manifest, blocks []*tsdb.Block) {
	type entry struct {
		version uint64
		at      time.Time
	}
	known := make(map[ulid.ULID]entry, len(m.Blocks))
	note := func(id ulid.ULID, e entry) {
		if old, ok := known[id]; !ok || e.version < old.version {
			known[id] = e
		}
	}
	for i := range m.Removed {
		note(m.Removed[i].ULID, entry{m.Version, time.UnixMilli(m.Removed[i].RemovedAt)})
	}
	for i := range m.Blocks {
		e := entry{m.Blocks[i].AddedVersion, time.UnixMilli(m.Blocks[i].AddedAt)}
		note(m.Blocks[i].ULID, e)
		for _, source := range m.Blocks[i].Sources {
			note(source, e)
		}
	}
	for _, b := range blocks {
		id := b.Meta().ULID
		if e, ok := known[id]; ok {
			l.setListed(id, e.version, e.at)
		} else {
			l.setUnlisted(id)
		}
	}
}

// pause notes how the tenant's last ship went.
func (s *shipper) pause(tenantID string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		delete(s.failing, tenantID)
		return
	}
	s.metrics.failures.Inc()
	p := s.failing[tenantID]
	p.pause = min(max(2*p.pause, shipRetryFirst), shipRetryMost)
	p.until = s.now().Add(p.pause)
	s.failing[tenantID] = p
}

// nextAttempt returns when a tenant whose last ship failed should be tried again, the zero time for now.
func (s *shipper) nextAttempt(tenantID string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failing[tenantID].until
}

// forget drops what is known of a tenant that is no longer here.
func (s *shipper) forget(tenantID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.failing, tenantID)
}
