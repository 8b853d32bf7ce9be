package reader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/budget"
	"github.com/duramendb/duramen/chunkstore/cache"
	"github.com/duramendb/duramen/chunkstore/index"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
)

// Local is the Source that reads the bucket itself: directories and decoded pages through memory, bytes through the disk
// cache, chunk buffers from a pool. It is safe for concurrent use and runs no goroutine of its own; a session waits for
// those that it starts.
type Local struct {
	cfg      Config
	bkt      bucket.Bucket
	sidecars Sidecars
	ranges   *cache.Ranges
	pool     *budget.Pool
	limits   Limits
	log      *slog.Logger
	metrics  *metrics
	dec      *index.Decoder
	gate     chan struct{} // of reads of directories

	directories *cache.Memory[blockKey, *directory]
	pages       *cache.Memory[pageKey, *index.Page]

	// suspects are blocks whose sidecar turned out to be damaged behind its directory, with its sizes. Before it is used
	// again Sidecars looks at all of it.
	mu       sync.Mutex
	suspects map[blockKey]SidecarInfo
}

var _ Source = (*Local)(nil)

// parallelDirectories bounds the directories that all queries read at the same time. It is the blocks of one query.
const parallelDirectories = defaultParallelBlocks

// blockKey names a block of a tenant.
type blockKey struct {
	tenant string
	id     ulid.ULID
}

// NewLocal returns a Source of bkt. A nil disk means none. It reads nothing yet; Close it when all sessions are closed.
func NewLocal(
	cfg Config, bkt bucket.Bucket, sidecars Sidecars, disk *cache.Disk, pool *budget.Pool, limits Limits,
	log *slog.Logger, reg prometheus.Registerer,
) (*Local, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	dec, err := index.NewDecoder()
	if err != nil {
		return nil, fmt.Errorf("make the decoder of sidecars: %w", err)
	}
	return &Local{
		cfg: cfg, bkt: bkt, sidecars: sidecars, ranges: cache.NewRanges(bkt, disk, log, reg), pool: pool, limits: limits,
		log: log, metrics: newMetrics(reg), dec: dec, gate: make(chan struct{}, parallelDirectories), suspects: map[blockKey]SidecarInfo{},
		directories: cache.NewMemory[blockKey]("directories", cfg.DirectoryCacheBytes, (*directory).bytes, reg),
		pages:       cache.NewMemory[pageKey]("pages", cfg.PageCacheBytes, (*index.Page).Bytes, reg),
	}, nil
}

// Close drops what is cached in memory.
func (l *Local) Close() error {
	l.directories.Purge()
	l.pages.Purge()
	l.dec.Close()
	return nil
}

// sidecarKey and segmentKey name the objects of a block.
func sidecarKey(tenant string, id ulid.ULID) string { return block.Key(tenant, id, block.SidecarName) }

func segmentKey(tenant string, id ulid.ULID, segment uint32) string {
	return block.Key(tenant, id, block.SegmentName(int(segment)+1)) // references count segments from 0
}

// readObject returns spans of an object of a block, fresh past the caches. Its errors are explained. A body that is short
// is asked for once more: it may have been cut on its way.
func (l *Local) readObject(
	ctx context.Context, tenant string, id ulid.ULID, obj cache.Object, spans []cache.Span, fresh bool,
) ([][]byte, error) {
	read := l.ranges.Read
	if fresh {
		read = l.ranges.Refetch
	}
	out, err := read(ctx, obj, spans)
	if errors.Is(err, cache.ErrShort) {
		l.metrics.refetches.Inc()
		if out, err = l.ranges.Refetch(ctx, obj, spans); errors.Is(err, cache.ErrShort) {
			err = l.explainShort(ctx, obj, err)
		}
	}
	if errors.Is(err, cache.ErrSpan) {
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err != nil {
		return nil, l.failed(objectError(tenant, id, obj.Key, l.lateError(err)))
	}
	return out, nil
}

// explainShort tells an object of the wrong size, which is damaged, from a bucket that does not send all of it.
func (l *Local) explainShort(ctx context.Context, obj cache.Object, err error) error {
	switch is, statErr := l.bkt.Stat(ctx, obj.Key); {
	case statErr != nil:
		return fmt.Errorf("%w (and %w)", err, statErr)
	case is.Size != obj.Size:
		return fmt.Errorf("%w: it has %d bytes instead of %d: %w", ErrDamaged, is.Size, obj.Size, err)
	default:
		return err
	}
}

// errLate is the part of an error that lateError adds.
var errLate = errors.New("did not answer in time")

// lateError names the bucket when the time of a query is up, whoever it was that waited for the bucket, and not for memory.
func (l *Local) lateError(err error) error {
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errLate) || errkind.Of(err) == errkind.Limited {
		return err
	}
	return fmt.Errorf("%s %w: %w", l.bkt.Name(), errLate, err)
}

// Session implements Source.
func (l *Local) Session(tenant string, blocks []manifest.Block, mint, maxt int64) Session {
	return &session{l: l, tenant: tenant, blocks: blocks, mint: mint, maxt: maxt}
}
