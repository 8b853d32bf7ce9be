package bucket

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Instrument returns b with its operations counted, timed and weighed in reg, by what they are about and by tenant.
func Instrument(b Bucket, reg prometheus.Registerer) Bucket { return instrument(b, time.Now, reg) }

func instrument(b Bucket, now func() time.Time, reg prometheus.Registerer) *instrumented {
	return &instrumented{Bucket: b, now: now, m: newMetrics(now, reg)}
}

type instrumented struct {
	Bucket

	now func() time.Time
	m   *metrics
}

func (b *instrumented) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	c := b.begin(opGet, key)
	r, err := b.Bucket.Get(ctx, key)
	return b.body(c, key, r, err)
}

func (b *instrumented) GetRange(ctx context.Context, key string, off, length int64) (io.ReadCloser, error) {
	c := b.begin(opGetRange, key)
	r, err := b.Bucket.GetRange(ctx, key, off, length)
	return b.body(c, key, r, err)
}

func (b *instrumented) Stat(ctx context.Context, key string) (Object, error) {
	c := b.begin(opStat, key)
	o, err := b.Bucket.Stat(ctx, key)
	return o, b.end(c, err)
}

func (b *instrumented) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	c := b.begin(opPut, key)
	counted := &countingReader{r: r}
	err := b.Bucket.Put(ctx, key, counted, size)
	c.bytes = counted.bytes
	b.m.tenants.know(&c, key)
	return b.end(c, err)
}

func (b *instrumented) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	c := b.begin(opPutIfAbsent, key)
	c.bytes = int64(len(data))
	err := b.Bucket.PutIfAbsent(ctx, key, data)
	b.m.tenants.know(&c, key)
	return b.end(c, err)
}

func (b *instrumented) List(ctx context.Context, prefix string, recursive bool, fn func(Object) error) error {
	c := b.begin(opList, prefix)
	var stopped error // an error of the callback says nothing about the store
	err := b.Bucket.List(ctx, prefix, recursive, func(o Object) error {
		stopped = fn(o)
		return stopped
	})
	if stopped != nil {
		_ = b.end(c, nil)
		return err
	}
	return b.end(c, err)
}

func (b *instrumented) Delete(ctx context.Context, keys ...string) error {
	tenantID, k := classifyAll(keys)
	c := b.beginOf(opDelete, tenantID, k)
	return b.end(c, b.Bucket.Delete(ctx, keys...))
}

// call is one operation under way.
type call struct {
	op     operation
	kind   kind
	tenant *tenantCounters // nil for none
	began  time.Time
	bytes  int64
}

func (b *instrumented) begin(op operation, key string) call {
	tenantID, k := classify(key)
	return b.beginOf(op, tenantID, k)
}

func (b *instrumented) beginOf(op operation, tenantID string, k kind) call {
	now := b.now()
	return call{op: op, kind: k, tenant: b.m.tenants.find(tenantID, now), began: now}
}

// end counts an operation, and returns err.
func (b *instrumented) end(c call, err error) error {
	took := b.now().Sub(c.began).Seconds()
	b.m.seconds[c.op].Observe(took)
	b.m.count(c, took, 1, fault(err))
	return err
}

// body ends an operation whose bytes are still to come, and returns what counts them.
func (b *instrumented) body(c call, key string, r io.ReadCloser, err error) (io.ReadCloser, error) {
	if err != nil {
		return nil, b.end(c, err)
	}
	b.m.tenants.know(&c, key)
	_ = b.end(c, nil)
	return &instrumentedBody{ReadCloser: r, b: b, call: c}, nil
}

// fault says whether err is one of the store.
func fault(err error) bool {
	switch {
	case err == nil, errors.Is(err, ErrNotFound), errors.Is(err, ErrExists), errors.Is(err, ErrInvalidKey),
		errors.Is(err, context.Canceled):
		return false
	default:
		return true
	}
}

// instrumentedBody counts the bytes of a body and an error while it is read.
type instrumentedBody struct {
	io.ReadCloser

	b      *instrumented
	call   call
	failed bool
}

func (r *instrumentedBody) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.call.bytes += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		r.failed = r.failed || fault(err)
	}
	return n, err
}

func (r *instrumentedBody) Close() error {
	r.b.m.count(r.call, 0, 0, r.failed)
	r.call.bytes, r.failed = 0, false // a second Close counts nothing
	return r.ReadCloser.Close()
}

type countingReader struct {
	r     io.Reader
	bytes int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.bytes += int64(n)
	return n, err
}
