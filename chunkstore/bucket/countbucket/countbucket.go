// Package countbucket owns a bucket that writes down every operation: what it asked for, how many bytes it moved and in
// which wave of round trips it fell, with a latency added on demand. It refuses to be used outside tests and benchmarks,
// because it keeps what it notes. Read package faultbucket for a bucket that fails instead.
package countbucket

import (
	"context"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/duramendb/duramen/chunkstore/bucket"
)

// Op is one operation.
type Op struct {
	// Method is the name of the method of bucket.Bucket.
	Method string
	// Key is the key, the prefix of a List, or the keys of a Delete joined by blanks.
	Key string
	// Offset and Length are the range that a GetRange asked for.
	Offset, Length int64
	// Bytes is what the body yielded so far, or the size of a put.
	Bytes int64
	// Began and Ended are positions in the one order of all beginnings and ends, counted from 1. Ended is 0 while the
	// operation runs. One that returns a body ends with the last byte that was asked for, with the end of the body, or
	// when it is closed, whatever comes first.
	Began, Ended int
	// Failed is set when the operation or the reading of its body gave an error.
	Failed bool
}

// Bucket is a bucket that counts. It is safe for concurrent use.
type Bucket struct {
	bkt bucket.Bucket

	mu       sync.Mutex
	latency  time.Duration
	events   int
	inFlight int
	peak     int
	ops      []*Op
}

// New returns b with a count of all operations from now on.
func New(b bucket.Bucket) *Bucket { return &Bucket{bkt: b} }

// SetLatency makes each operation that begins from now on wait for d before it does anything. The time is that of package
// time, so inside a bubble of testing/synctest it is fake, and the fake time that passes is the sum of dependent waits.
func (b *Bucket) SetLatency(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.latency = d
}

// Reset forgets the operations that have ended.
func (b *Bucket) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ops = slices.DeleteFunc(b.ops, func(op *Op) bool { return op.Ended > 0 })
	b.peak = b.inFlight
}

// Ops returns the operations since the last Reset in the order in which they began.
func (b *Bucket) Ops() Ops {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(Ops, len(b.ops))
	for i, op := range b.ops {
		out[i] = *op
	}
	return out
}

// PeakInFlight returns how many operations ran at the same time at most since the last Reset.
func (b *Bucket) PeakInFlight() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.peak
}

// begin notes an operation and waits for the latency. With an error the operation has ended.
func (b *Bucket) begin(ctx context.Context, op Op) (*Op, error) {
	b.mu.Lock()
	b.events++
	op.Began = b.events
	b.ops = append(b.ops, &op)
	b.inFlight++
	b.peak = max(b.peak, b.inFlight)
	latency := b.latency
	b.mu.Unlock()
	if latency <= 0 {
		return &op, nil
	}
	timer := time.NewTimer(latency)
	defer timer.Stop()
	select {
	case <-timer.C:
		return &op, nil
	case <-ctx.Done():
		b.end(&op, ctx.Err())
		return &op, ctx.Err()
	}
}

// end notes the end of an operation, the first time that it is called for it.
func (b *Bucket) end(op *Op, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	op.Failed = op.Failed || err != nil
	if op.Ended == 0 {
		b.events++
		op.Ended = b.events
		b.inFlight--
	}
}

// Name implements bucket.Bucket.
func (b *Bucket) Name() string { return b.bkt.Name() }

// Get implements bucket.Bucket.
func (b *Bucket) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	return b.open(ctx, Op{Method: "Get", Key: key, Length: -1},
		func() (io.ReadCloser, error) { return b.bkt.Get(ctx, key) })
}

// GetRange implements bucket.Bucket.
func (b *Bucket) GetRange(ctx context.Context, key string, off, length int64) (io.ReadCloser, error) {
	return b.open(ctx, Op{Method: "GetRange", Key: key, Offset: off, Length: length},
		func() (io.ReadCloser, error) { return b.bkt.GetRange(ctx, key, off, length) })
}

func (b *Bucket) open(ctx context.Context, asked Op, fn func() (io.ReadCloser, error)) (io.ReadCloser, error) {
	op, err := b.begin(ctx, asked)
	if err != nil {
		return nil, err
	}
	r, err := fn()
	if err != nil {
		b.end(op, err)
		return nil, err
	}
	return &body{ReadCloser: r, b: b, op: op}, nil
}

// body counts the bytes of a read.
type body struct {
	io.ReadCloser

	b  *Bucket
	op *Op
}

func (r *body) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.b.mu.Lock()
	r.op.Bytes += int64(n)
	all := r.op.Bytes == r.op.Length
	r.b.mu.Unlock()
	switch {
	case err == io.EOF:
		r.b.end(r.op, nil)
	case err != nil, all:
		r.b.end(r.op, err)
	}
	return n, err
}

func (r *body) Close() error {
	r.b.end(r.op, nil)
	return r.ReadCloser.Close()
}

// Stat implements bucket.Bucket.
func (b *Bucket) Stat(ctx context.Context, key string) (bucket.Object, error) {
	op, err := b.begin(ctx, Op{Method: "Stat", Key: key})
	if err != nil {
		return bucket.Object{}, err
	}
	o, err := b.bkt.Stat(ctx, key)
	b.end(op, err)
	return o, err
}

// Put implements bucket.Bucket.
func (b *Bucket) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	return b.do(ctx, Op{Method: "Put", Key: key, Bytes: size}, func() error { return b.bkt.Put(ctx, key, r, size) })
}

// PutIfAbsent implements bucket.Bucket.
func (b *Bucket) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	return b.do(ctx, Op{Method: "PutIfAbsent", Key: key, Bytes: int64(len(data))},
		func() error { return b.bkt.PutIfAbsent(ctx, key, data) })
}

// List implements bucket.Bucket. It counts as one operation, however many pages a store would need.
func (b *Bucket) List(ctx context.Context, prefix string, recursive bool, fn func(bucket.Object) error) error {
	return b.do(ctx, Op{Method: "List", Key: prefix}, func() error { return b.bkt.List(ctx, prefix, recursive, fn) })
}

// Delete implements bucket.Bucket.
func (b *Bucket) Delete(ctx context.Context, keys ...string) error {
	return b.do(ctx, Op{Method: "Delete", Key: strings.Join(keys, " ")}, func() error { return b.bkt.Delete(ctx, keys...) })
}

func (b *Bucket) do(ctx context.Context, asked Op, fn func() error) error {
	op, err := b.begin(ctx, asked)
	if err != nil {
		return err
	}
	err = fn()
	b.end(op, err)
	return err
}
