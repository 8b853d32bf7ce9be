package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/reader"
	"github.com/duramendb/duramen/internal/errkind"
)

const (
	// builds is how many indexes are read and sidecars built at the same time. One takes a core, and memory by the number
	// of its chunks and distinct label values.
	builds = 2
	// jobTimeout bounds one job, for a bucket that stands still. The index of a block of 10 million series is some 5 GB.
	jobTimeout = time.Hour
	// damagedFor is how long a block whose index is damaged is not read again, by all of whose queries it would be.
	damagedFor = 10 * time.Minute
	// maxDamaged bounds how many of them are remembered.
	maxDamaged = 10_000
)

// Config says where sidecars are built. It is wiring, not settings.
type Config struct {
	// Dir is a folder that nobody else uses; what is in it is deleted. It holds the index and the sidecar of the blocks
	// that are being worked on, and sidecars that the bucket does not take.
	Dir string
	// ReserveBytes stay free on the volume of Dir, 0 means 256 MiB. Others write there, too.
	ReserveBytes int64
	// KeepBytes bounds the sidecars that are kept in Dir because the bucket does not take them, 0 means 2 GiB.
	KeepBytes int64
}

// Notes is where the sizes of a sidecar are written down: manifest.Owner.
type Notes interface {
	Annotate(ctx context.Context, tenant string, notes ...manifest.Annotation) error
}

// Maker builds sidecars. It is safe for concurrent use; its goroutines begin with Ensure and end with Close.
type Maker struct {
	cfg     Config
	bkt     bucket.Bucket
	notes   Notes
	now     func() time.Time
	free    func(dir string) (int64, error)
	log     *slog.Logger
	metrics *metrics
	turns   *turns
	kept    *kept
	pending annotations

	ctx    context.Context //nolint:containedctx // of all work that outlives the query that began it; ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // all goroutines
	empty  func() error   // deletes Dir, once

	mu      sync.Mutex
	closed  bool
	jobs    map[blockKey]*job
	damaged map[blockKey]damage
}

type blockKey struct {
	tenant string
	id     ulid.ULID
}

// damage is what was found out about a block that cannot be read.
type damage struct {
	err   error
	until time.Time
}

// job is one block's Ensure, for all who wait for it.
type job struct {
	waiters int
	started bool // it has had its turn, and goes on without waiters: the next query needs it
	abandon context.CancelFunc
	done    chan struct{}
	info    reader.SidecarInfo // valid when done is closed, as is err
	err     error
}

var _ reader.Sidecars = (*Maker)(nil)

// New returns a Maker for the blocks in bkt. notes may be nil. It touches neither bucket nor disk.
func New(
	cfg Config, bkt bucket.Bucket, notes Notes, now func() time.Time, log *slog.Logger, reg prometheus.Registerer,
) *Maker {
	if cfg.ReserveBytes == 0 {
		cfg.ReserveBytes = 256 << 20
	}
	if cfg.KeepBytes == 0 {
		cfg.KeepBytes = 2 << 30
	}
	m := &Maker{
		cfg: cfg, bkt: bkt, notes: notes, now: now, free: freeBytes, log: log, metrics: newMetrics(reg),
		turns: newTurns(builds), jobs: map[blockKey]*job{}, damaged: map[blockKey]damage{},
	}
	m.kept = &kept{m: m, files: map[string]keptFile{}}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.empty = sync.OnceValue(func() error { return os.RemoveAll(cfg.Dir) })
	return m
}

// Bucket returns the bucket with the sidecars that it would not take laid over it. Who reads a sidecar after Ensure reads
// it there.
func (m *Maker) Bucket() bucket.Bucket { return overlay{m.bkt, m.kept} }

// Ensure implements reader.Sidecars. An entry of b with sizes means that the sidecar was read and did not please: then all
// of it is checked, else its directory. One build a block goes on at a time, for all who ask, and two in all; who waits
// leaves with ctx.
//
// A sidecar that the bucket does not take is kept on the local disk until it does, for who reads through Bucket.
//
// A block whose index is damaged is an error of kind Corrupt that names it, one that is gone wraps bucket.ErrNotFound. A
// bucket that fails or a disk without room is one of kind Unavailable.
func (m *Maker) Ensure(ctx context.Context, tenant string, b manifest.Block) (reader.SidecarInfo, error) {
	key := blockKey{tenant, b.ULID}
	j, err := m.join(key, b)
	if err != nil {
		return reader.SidecarInfo{}, err
	}
	select {
	case <-j.done:
		return j.info, j.err
	case <-ctx.Done():
		m.leave(key, j)
		return reader.SidecarInfo{}, fmt.Errorf("sidecar of block %s of tenant %s: %w", b.ULID, tenant, ctx.Err())
	}
}

// join returns the block's job, which it begins when there is none.
func (m *Maker) join(key blockKey, b manifest.Block) (*job, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, errkind.New(errkind.Unavailable, "sidecar of block %s of tenant %s: shutting down", key.id, key.tenant)
	}
	if d, ok := m.damaged[key]; ok {
		if m.now().Before(d.until) {
			return nil, d.err
		}
		delete(m.damaged, key)
	}
	if j, ok := m.jobs[key]; ok {
		j.waiters++
		return j, nil
	}
	turn, abandon := context.WithCancel(m.ctx)
	j := &job{waiters: 1, abandon: abandon, done: make(chan struct{})}
	m.jobs[key] = j
	m.wg.Go(func() { m.work(turn, key, b, j) })
	return j, nil
}

// leave takes a waiter off a job. A job without waiters that has not begun ends.
func (m *Maker) leave(key blockKey, j *job) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if j.waiters--; j.waiters == 0 && !j.started {
		m.forget(key, j) // who comes now begins another one
		j.abandon()
	}
}

// start reports whether a job whose turn it is goes on.
func (m *Maker) start(j *job) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	j.started = j.waiters > 0
	return j.started
}

func (m *Maker) forget(key blockKey, j *job) {
	if m.jobs[key] == j {
		delete(m.jobs, key)
	}
}

// work does a job. turn ends the waiting for its turn.
func (m *Maker) work(turn context.Context, key blockKey, b manifest.Block, j *job) {
	defer j.abandon()
	ctx, cancel := context.WithTimeout(m.ctx, jobTimeout)
	defer cancel()
	s, err := m.ensure(ctx, turn, key, b, j)
	if err != nil {
		err = fmt.Errorf("sidecar of block %s of tenant %s: %w", key.id, key.tenant, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if errkind.Of(err) == errkind.Corrupt {
		m.remember(key, err)
	}
	m.forget(key, j)
	j.info, j.err = reader.SidecarInfo{SidecarBytes: s.Bytes, DirectoryBytes: s.DirectoryBytes}, err
	close(j.done)
}

// remember keeps a block from being read again and again.
func (m *Maker) remember(key blockKey, err error) {
	m.log.Warn("index of a block is damaged", "tenant", key.tenant, "block", key.id, "err", err)
	if len(m.damaged) >= maxDamaged {
		maps.DeleteFunc(m.damaged, func(_ blockKey, d damage) bool { return !m.now().Before(d.until) })
	}
	if len(m.damaged) < maxDamaged {
		m.damaged[key] = damage{err, m.now().Add(damagedFor)}
	}
}

// ensure finds the sidecar or builds it when its turn comes.
func (m *Maker) ensure(ctx, turn context.Context, key blockKey, b manifest.Block, j *job) (block.Sidecar, error) {
	o, err := m.objects(ctx, key)
	if err != nil {
		return block.Sidecar{}, err
	}
	s, err := m.find(ctx, key, b, o)
	switch {
	case err == nil:
		m.metrics.ensured.WithLabelValues(found).Inc()
		m.annotate(key, s)
		return s, m.kept.remove(block.Key(key.tenant, key.id, block.SidecarName))
	case !errors.Is(err, block.ErrNoSidecar):
		return block.Sidecar{}, err
	}
	if k, ok := m.kept.get(block.Key(key.tenant, key.id, block.SidecarName)); ok {
		return k.Sidecar, m.sendKept(ctx, key, k)
	}
	done, err := m.turns.wait(turn, key.tenant)
	if err != nil {
		return block.Sidecar{}, errkind.Wrap(errkind.Canceled, err)
	}
	defer done()
	if !m.start(j) {
		return block.Sidecar{}, context.Canceled
	}
	begin := m.now()
	s, err = m.build(ctx, key, b, o)
	if err != nil {
		m.metrics.ensured.WithLabelValues(outcome(err)).Inc()
		return s, err
	}
	m.metrics.ensured.WithLabelValues(built).Inc()
	m.metrics.seconds.Observe(m.now().Sub(begin).Seconds())
	m.log.Info("sidecar built", "tenant", key.tenant, "block", key.id, "index_bytes", o.index, "bytes", s.Bytes,
		"duration", m.now().Sub(begin))
	return s, nil
}

// Close ends all work, waits for it, and deletes what is on the local disk. Ensure fails from then on.
func (m *Maker) Close() error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.cancel()
	m.wg.Wait()
	return os.RemoveAll(m.cfg.Dir)
}
