package identity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/duramendb/duramen/chunkstore/bucket"
)

const (
	// lookTimeout ends a look at the identity, so that one that hangs does not keep others from looking.
	lookTimeout = 10 * time.Second
	// swapTrust is how old the last look may be when an object is created on a condition, as manifests are: blocks that
	// one of them lists are deleted elsewhere in the end.
	swapTrust = 10 * time.Second
)

// ErrRefused means that the bucket is not the one that this process, or its cluster, has used before. Nothing was asked of it
// but its identity. The text says what to do.
var ErrRefused = errors.New("this is not the bucket that was used before")

// Config says what a process knows of its bucket.
type Config struct {
	// Known is the identity that the process remembers from an earlier life, "" for none.
	Known string
	// Remember keeps an identity for the next life, durably; "" forgets. nil: this process remembers nothing, and follows its
	// cluster.
	Remember func(id string) error
	// Used says that this process has used a bucket in an earlier life, whatever it remembers of it. When it remembers none it
	// gives no identity, in this life, to one that it finds empty, as a volume that is not mounted looks.
	Used bool
	// Create says that this process gives a bucket that has none an identity. The others take it for a bucket of a release
	// before this one.
	Create bool
	// Leave is the identity in whose place any other is accepted, once: what is known afterwards is another one.
	Leave string
	// Cluster returns the identity that the cluster uses, and who says so; "" when nobody says. nil: there is none.
	Cluster func() (id, by string)
	// Announce tells the cluster which bucket is the right one here, also while another one is in its place; "" when that is
	// not known. It is called again and again. May be nil.
	Announce func(id string)
	// Setting names what an operator sets to choose the bucket.
	Setting string
}

// Guard is a bucket that answers only as long as it is the one that was used before. What it is is looked at before the first
// operation, when a listing finds nothing, before objects are created on a condition, and now and then by Run. A look that
// fails decides nothing, once one has succeeded. Safe for concurrent use.
//
// An error of kind Unavailable that wraps ErrRefused says that the bucket is another one.
type Guard struct {
	bucket.Bucket

	cfg     Config
	now     func() time.Time
	log     *slog.Logger
	metrics metrics

	state atomic.Pointer[state] // nil until a look has succeeded

	looking *semaphore.Weighted // held by who looks; what follows is its own
	known   string
	fresh   bool // nothing was remembered when this process began
	saved   bool // known is remembered
	warned  bool // it was logged that the bucket has no identity
	empty   bool // the bucket was found empty, and that was no reason to give it an identity

	remembered atomic.Pointer[string] // known, as the last look that succeeded left it; never nil

	failure struct {
		sync.Mutex
		at  time.Time // when the last look that failed was over; zero when one has succeeded since
		err error
	}
}

// state is what the last look that succeeded has found.
type state struct {
	id    string    // "" for none
	began time.Time // when that look began
	err   error     // why the bucket is refused, nil when it is not
}

// New returns a guard in front of b that has not looked yet.
func New(cfg Config, b bucket.Bucket, now func() time.Time, log *slog.Logger, reg prometheus.Registerer) *Guard {
	g := &Guard{
		Bucket: b, cfg: cfg, now: now, log: log, metrics: newMetrics(reg),
		looking: semaphore.NewWeighted(1), known: cfg.Known, fresh: cfg.Known == "", saved: cfg.Known != "",
	}
	g.remembered.Store(&cfg.Known)
	return g
}

// Verify looks at the bucket's identity, which costs one request. Calls at the same time share it.
func (g *Guard) Verify(ctx context.Context) error {
	called := g.now()
	if err := g.looking.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("look at the identity of %s: %w", g.Name(), err)
	}
	defer g.looking.Release(1)
	if s := g.state.Load(); s != nil && s.began.After(called) {
		return s.err
	}
	if err := g.failedSince(called); err != nil {
		return err
	}
	began := g.now()
	look, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	id, refused, err := g.look(look)
	if err != nil {
		err = fmt.Errorf("look at the identity of %s: %w", g.Name(), err)
		if ctx.Err() == nil {
			g.noteFailure(err)
		}
		return err
	}
	g.noteFailure(nil)
	known := g.known
	g.remembered.Store(&known)
	g.settle(&state{id: id, began: began, err: refused})
	return refused
}

// settle takes what a look has found, and says what has changed by it.
func (g *Guard) settle(s *state) {
	before := g.state.Swap(s)
	switch was := before != nil && before.err != nil; {
	case s.err != nil && !was:
		g.metrics.refused.Set(1)
		g.log.Error("the bucket is refused: nothing is read from it and nothing is shipped", "bucket", g.Name(), "err", s.err)
	case s.err == nil && was:
		g.metrics.refused.Set(0)
		g.log.Info("the bucket is the one that was used before again", "bucket", g.Name(), "identity", s.id)
	}
}

func (g *Guard) noteFailure(err error) {
	g.failure.Lock()
	defer g.failure.Unlock()
	g.failure.at, g.failure.err = time.Time{}, err
	if err != nil {
		g.failure.at = g.now()
	}
}

// failedSince returns the error of a look that was over after a moment.
func (g *Guard) failedSince(at time.Time) error {
	g.failure.Lock()
	defer g.failure.Unlock()
	if g.failure.at.After(at) {
		return g.failure.err
	}
	return nil
}

// admit says whether an operation may go on.
func (g *Guard) admit(ctx context.Context) error {
	if s := g.state.Load(); s != nil {
		return s.err
	}
	return g.Verify(ctx)
}

// Get implements bucket.Bucket.
func (g *Guard) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	if err := g.admit(ctx); err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	return g.Bucket.Get(ctx, key)
}

// GetRange implements bucket.Bucket.
func (g *Guard) GetRange(ctx context.Context, key string, off, length int64) (io.ReadCloser, error) {
	if err := g.admit(ctx); err != nil {
		return nil, fmt.Errorf("get range of %s: %w", key, err)
	}
	return g.Bucket.GetRange(ctx, key, off, length)
}

// Stat implements bucket.Bucket.
func (g *Guard) Stat(ctx context.Context, key string) (bucket.Object, error) {
	if err := g.admit(ctx); err != nil {
		return bucket.Object{}, fmt.Errorf("stat %s: %w", key, err)
	}
	return g.Bucket.Stat(ctx, key)
}

// Put implements bucket.Bucket.
func (g *Guard) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	if err := g.admit(ctx); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	return g.Bucket.Put(ctx, key, r, size)
}

// PutIfAbsent implements bucket.Bucket.
func (g *Guard) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	err := g.admit(ctx)
	if s := g.state.Load(); err == nil && s != nil && g.now().Sub(s.began) > swapTrust {
		err = g.Verify(ctx)
	}
	if err != nil {
		return fmt.Errorf("put %s if absent: %w", key, err)
	}
	return g.Bucket.PutIfAbsent(ctx, key, data)
}

// List implements bucket.Bucket. Nothing at all is what every listing of a bucket that was emptied, or is another one, finds:
// then the identity is looked at before that is believed.
func (g *Guard) List(ctx context.Context, prefix string, recursive bool, fn func(bucket.Object) error) error {
	if err := g.admit(ctx); err != nil {
		return fmt.Errorf("list %q: %w", prefix, err)
	}
	found := false
	err := g.Bucket.List(ctx, prefix, recursive, func(o bucket.Object) error {
		found = true
		return fn(o)
	})
	if err == nil && !found {
		if err = g.Verify(ctx); err != nil {
			err = fmt.Errorf("list %q: nothing was found: %w", prefix, err)
		}
	}
	return err
}

// Delete implements bucket.Bucket.
func (g *Guard) Delete(ctx context.Context, keys ...string) error {
	if err := g.admit(ctx); err != nil {
		return fmt.Errorf("delete %d objects: %w", len(keys), err)
	}
	return g.Bucket.Delete(ctx, keys...)
}
