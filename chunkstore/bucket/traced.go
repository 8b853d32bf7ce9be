package bucket

import (
	"context"
	"errors"
	"io"

	"github.com/duramendb/duramen/internal/tracing"
)

// Traced returns b with a span for each operation that a trace asks for. That of a Get or a GetRange ends with its body.
func Traced(b Bucket) Bucket { return &traced{b} }

type traced struct{ Bucket }

func (b *traced) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	ctx, span := startSpan(ctx, "bucket.get", key)
	r, err := b.Bucket.Get(ctx, key)
	return tracedBody(span, r, err)
}

func (b *traced) GetRange(ctx context.Context, key string, off, length int64) (io.ReadCloser, error) {
	ctx, span := startSpan(ctx, "bucket.get_range", key)
	span.Int("offset", off)
	r, err := b.Bucket.GetRange(ctx, key, off, length)
	return tracedBody(span, r, err)
}

func (b *traced) Stat(ctx context.Context, key string) (Object, error) {
	ctx, span := startSpan(ctx, "bucket.stat", key)
	o, err := b.Bucket.Stat(ctx, key)
	return o, endSpan(span, err)
}

func (b *traced) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	ctx, span := startSpan(ctx, "bucket.put", key)
	span.Int("bytes", size)
	return endSpan(span, b.Bucket.Put(ctx, key, r, size))
}

func (b *traced) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	ctx, span := startSpan(ctx, "bucket.put_if_absent", key)
	span.Int("bytes", int64(len(data)))
	return endSpan(span, b.Bucket.PutIfAbsent(ctx, key, data))
}

func (b *traced) List(ctx context.Context, prefix string, recursive bool, fn func(Object) error) error {
	ctx, span := startSpan(ctx, "bucket.list", prefix)
	objects := int64(0)
	err := b.Bucket.List(ctx, prefix, recursive, func(o Object) error {
		objects++
		return fn(o)
	})
	span.Int("objects", objects)
	return endSpan(span, err)
}

func (b *traced) Delete(ctx context.Context, keys ...string) error {
	first := ""
	if len(keys) > 0 {
		first = keys[0]
	}
	ctx, span := startSpan(ctx, "bucket.delete", first)
	span.Int("objects", int64(len(keys)))
	return endSpan(span, b.Bucket.Delete(ctx, keys...))
}

func startSpan(ctx context.Context, name, key string) (context.Context, tracing.Span) {
	ctx, span := tracing.Start(ctx, name)
	span.String("key", key)
	return ctx, span
}

// endSpan returns err. What a caller asks for and is told is no failure of the bucket.
func endSpan(span tracing.Span, err error) error {
	switch {
	case errors.Is(err, ErrNotFound):
		span.String("result", "not found")
	case errors.Is(err, ErrExists):
		span.String("result", "exists")
	default:
		span.Fail(err)
	}
	span.End()
	return err
}

func tracedBody(span tracing.Span, r io.ReadCloser, err error) (io.ReadCloser, error) {
	if err != nil {
		return nil, endSpan(span, err)
	}
	if !span.Recording() {
		return r, nil
	}
	return &spanBody{ReadCloser: r, span: span}, nil
}

// spanBody ends the span of a read when the body is closed.
type spanBody struct {
	io.ReadCloser

	span  tracing.Span
	bytes int64
	err   error
	ended bool
}

func (b *spanBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.bytes += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return n, err
}

func (b *spanBody) Close() error {
	if !b.ended {
		b.ended = true
		b.span.Int("bytes", b.bytes)
		_ = endSpan(b.span, b.err)
	}
	return b.ReadCloser.Close()
}
