package bucket

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Instrument returns b with its operations counted, timed and weighed in reg.
func Instrument(b Bucket, reg prometheus.Registerer) Bucket {
	return &instrumented{Bucket: b, m: newMetrics(reg)}
}

type instrumented struct {
	Bucket

	m *metrics
}

func (b *instrumented) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	defer b.time("get")()
	r, err := b.Bucket.Get(ctx, key)
	return b.body("get", r, err)
}

func (b *instrumented) GetRange(ctx context.Context, key string, off, length int64) (io.ReadCloser, error) {
	defer b.time("get_range")()
	r, err := b.Bucket.GetRange(ctx, key, off, length)
	return b.body("get_range", r, err)
}

func (b *instrumented) Stat(ctx context.Context, key string) (Object, error) {
	defer b.time("stat")()
	o, err := b.Bucket.Stat(ctx, key)
	return o, b.count("stat", err)
}

func (b *instrumented) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	defer b.time("put")()
	return b.count("put", b.Bucket.Put(ctx, key, &countingReader{r, b.m.bytes.WithLabelValues("put")}, size))
}

func (b *instrumented) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	defer b.time("put_if_absent")()
	b.m.bytes.WithLabelValues("put_if_absent").Add(float64(len(data)))
	return b.count("put_if_absent", b.Bucket.PutIfAbsent(ctx, key, data))
}

func (b *instrumented) List(ctx context.Context, prefix string, recursive bool, fn func(Object) error) error {
	defer b.time("list")()
	var stopped error // an error of the callback says nothing about the store
	err := b.Bucket.List(ctx, prefix, recursive, func(o Object) error {
		stopped = fn(o)
		return stopped
	})
	if stopped != nil {
		return err
	}
	return b.count("list", err)
}

func (b *instrumented) Delete(ctx context.Context, keys ...string) error {
	defer b.time("delete")()
	return b.count("delete", b.Bucket.Delete(ctx, keys...))
}

// time counts an operation and returns what observes its duration.
func (b *instrumented) time(operation string) func() {
	b.m.operations.WithLabelValues(operation).Inc()
	start := time.Now()
	return func() { b.m.seconds.WithLabelValues(operation).Observe(time.Since(start).Seconds()) }
}

// count returns err and counts it when it is one of the store.
func (b *instrumented) count(operation string, err error) error {
	switch {
	case err == nil, errors.Is(err, ErrNotFound), errors.Is(err, ErrExists), errors.Is(err, ErrInvalidKey),
		errors.Is(err, context.Canceled):
	default:
		b.m.failures.WithLabelValues(operation).Inc()
	}
	return err
}

func (b *instrumented) body(operation string, r io.ReadCloser, err error) (io.ReadCloser, error) {
	if err != nil {
		return nil, b.count(operation, err)
	}
	return &instrumentedBody{ReadCloser: r, b: b, operation: operation}, nil
}

// instrumentedBody counts the bytes of a body and an error while it is read.
type instrumentedBody struct {
	io.ReadCloser

	b         *instrumented
	operation string
	bytes     int
	failed    bool
}

func (r *instrumentedBody) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.bytes += n
	if err != nil && !errors.Is(err, io.EOF) && !r.failed {
		r.failed = true
		return n, r.b.count(r.operation, err)
	}
	return n, err
}

func (r *instrumentedBody) Close() error {
	r.b.m.bytes.WithLabelValues(r.operation).Add(float64(r.bytes))
	r.bytes = 0
	return r.ReadCloser.Close()
}

type countingReader struct {
	r     io.Reader
	bytes prometheus.Counter
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.bytes.Add(float64(n))
	return n, err
}
