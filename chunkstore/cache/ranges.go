package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/duramendb/duramen/chunkstore/bucket"
)

const (
	// readParallel bounds the requests of one Read, which are for one object.
	readParallel = 16
	// allParallel bounds the requests of all Reads together: connections to a store are not free.
	allParallel = 256
)

// Ranges reads parts of objects from the local disk where it has them and from the bucket otherwise. Objects never
// change. Safe for concurrent use; goroutines that a Read starts end with it.
type Ranges struct {
	bkt     bucket.Bucket
	disk    *Disk // nil: none
	log     *slog.Logger
	metrics *rangesMetrics
	gets    *semaphore.Weighted

	mu      sync.Mutex
	flights map[flightKey]*flight
}

// flightKey names the requests that may share an answer.
type flightKey struct {
	obj   Object
	span  Span
	parts int
}

// flight is a request on its way. err and abandoned are set before done is closed.
type flight struct {
	fetch     fetch
	done      chan struct{}
	err       error
	abandoned bool
}

// NewRanges returns a reader of bkt that keeps what it reads on disk; a nil disk keeps nothing.
func NewRanges(bkt bucket.Bucket, disk *Disk, log *slog.Logger, reg prometheus.Registerer) *Ranges {
	return &Ranges{
		bkt: bkt, disk: disk, log: log, metrics: newRangesMetrics(reg),
		gets: semaphore.NewWeighted(allParallel), flights: map[flightKey]*flight{},
	}
}

// Read returns the bytes of each span of obj, in the order of spans, which may overlap and repeat. What has to be
// fetched is fetched at once: requests are joined over gaps of up to 256 KiB, cut at 8 MiB and made in parallel, and none
// needs the answer to another, so a Read costs one round trip. Requests for the same bytes that are on their way for
// another Read are shared.
//
// The slices may share memory with one another and are not to be written to; together they hold at most an eighth more
// bytes than the spans. They live as long as anybody keeps one of them.
//
// An error says the key and the range: ErrSpan for a span outside of obj, ErrShort when the object turns out to be
// shorter or the body was cut off, bucket.ErrNotFound when it is gone, or what the bucket said. Then nothing is
// returned.
func (r *Ranges) Read(ctx context.Context, obj Object, spans []Span) ([][]byte, error) {
	return r.read(ctx, obj, spans, false)
}

// Refetch is Read past all caches: the bytes that they gave did not pass the caller's checks. What comes replaces them.
func (r *Ranges) Refetch(ctx context.Context, obj Object, spans []Span) ([][]byte, error) {
	r.metrics.refetches.Inc()
	return r.read(ctx, obj, spans, true)
}

func (r *Ranges) read(ctx context.Context, obj Object, spans []Span, fresh bool) ([][]byte, error) {
	if err := checkSpans(obj, spans); err != nil {
		return nil, err
	}
	r.metrics.reads.Inc()
	into := regions(spans)
	todo := fetches(r.missing(obj, into, fresh))
	if err := r.fetchAll(ctx, obj, todo, fresh); err != nil {
		return nil, err
	}
	out := cutSpans(into, spans)
	for _, data := range out {
		r.metrics.asked.Add(float64(len(data)))
	}
	return out, nil
}

// missing fills the regions from disk and returns what it does not have.
func (r *Ranges) missing(obj Object, into []region, fresh bool) []part {
	var parts []part
	for _, to := range into {
		whole := Span{to.offset, int64(len(to.data))}
		lacking := []Span{whole}
		switch {
		case r.disk == nil:
		case fresh:
			r.disk.Drop(obj, whole)
		default:
			lacking = r.disk.Read(obj, to.offset, to.data)
		}
		found := whole.Length
		for _, s := range lacking {
			found -= s.Length
			parts = append(parts, part{s, to.bytes(s)})
		}
		r.metrics.fromDisk.Add(float64(found))
	}
	return parts
}

func (r *Ranges) fetchAll(ctx context.Context, obj Object, todo []fetch, fresh bool) error {
	if len(todo) == 1 {
		return r.fetch(ctx, obj, todo[0], fresh)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readParallel)
	for _, f := range todo {
		g.Go(func() error { return r.fetch(ctx, obj, f, fresh) })
	}
	return g.Wait()
}

// fetch fills the parts of f, by a request of its own or from one that is on its way.
func (r *Ranges) fetch(ctx context.Context, obj Object, f fetch, fresh bool) error {
	if fresh {
		return r.get(ctx, obj, f)
	}
	key := flightKey{obj, f.Span, len(f.parts)}
	for {
		r.mu.Lock()
		other, ok := r.flights[key]
		if !ok {
			break
		}
		r.mu.Unlock()
		if !f.same(other.fetch) {
			return r.get(ctx, obj, f)
		}
		select {
		case <-other.done:
		case <-ctx.Done():
			return fmt.Errorf("read %s, offset %d, length %d: %w", obj.Key, f.Offset, f.Length, ctx.Err())
		}
		if !other.abandoned {
			if other.err == nil {
				r.metrics.shared.Inc()
				f.copyFrom(other.fetch)
			}
			return other.err
		}
	}
	own := &flight{fetch: f, done: make(chan struct{})}
	r.flights[key] = own
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.flights, key)
		close(own.done)
	}()
	own.abandoned = true // until get returns
	own.err = r.get(ctx, obj, f)
	own.abandoned = own.err != nil && ctx.Err() != nil
	return own.err
}

// get makes the request and keeps what came on disk. A body that breaks off with an error of the connection, which says
// nothing about the object, is asked for once more; the bucket itself retries only what fails before.
func (r *Ranges) get(ctx context.Context, obj Object, f fetch) error {
	err := r.gets.Acquire(ctx, 1)
	if err == nil {
		err = r.receive(ctx, obj, f)
		if broken := (brokenBodyError{}); errors.As(err, &broken) && ctx.Err() == nil {
			r.metrics.broken.Inc()
			err = r.receive(ctx, obj, f)
		}
		r.gets.Release(1)
	}
	if err != nil {
		return fmt.Errorf("read %s, offset %d, length %d: %w", obj.Key, f.Offset, f.Length, err)
	}
	if r.disk != nil {
		for _, p := range f.parts {
			r.disk.Write(obj, p.Offset, p.data)
		}
	}
	return nil
}

// receive reads the body of the request into the parts and throws the gaps away.
func (r *Ranges) receive(ctx context.Context, obj Object, f fetch) error {
	r.metrics.requests.Inc()
	body, err := r.bkt.GetRange(ctx, obj.Key, f.Offset, f.Length)
	if err != nil {
		return err
	}
	defer body.Close()
	at := f.Offset
	defer func() { r.metrics.fetched.Add(float64(at - f.Offset)) }()
	for _, p := range f.parts {
		n, err := io.CopyN(io.Discard, body, p.Offset-at)
		at += n
		if err == nil {
			var n int
			n, err = io.ReadFull(body, p.data)
			at += int64(n)
		}
		if err != nil {
			return bodyError(err, at-f.Offset)
		}
	}
	// The end is read as well: it shows an object that is longer than its size, and lets the connection be used again.
	switch n, err := io.CopyN(io.Discard, body, 1); {
	case n > 0:
		return fmt.Errorf("%w: more bytes than asked for", ErrShort)
	case !errors.Is(err, io.EOF):
		return brokenBodyError{err}
	}
	return nil
}

// bodyError makes ErrShort of a body that ended after n bytes, and a brokenBodyError of anything else.
func bodyError(err error, n int64) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: the body ends after %d bytes", ErrShort, n)
	}
	return brokenBodyError{err}
}

// brokenBodyError is what the bucket said in the middle of a body.
type brokenBodyError struct{ error }

func (e brokenBodyError) Unwrap() error { return e.error }

// same reports whether two fetches are for the same parts.
func (f fetch) same(other fetch) bool {
	if f.Span != other.Span || len(f.parts) != len(other.parts) {
		return false
	}
	for i := range f.parts {
		if f.parts[i].Span != other.parts[i].Span {
			return false
		}
	}
	return true
}

// copyFrom fills the parts from those of a fetch that is the same and done.
func (f fetch) copyFrom(other fetch) {
	for i, p := range f.parts {
		copy(p.data, other.parts[i].data)
	}
}
