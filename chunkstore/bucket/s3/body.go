package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// body is the body of an object that ends with its context and never ends early without an error.
type body struct {
	io.ReadCloser

	ctx  context.Context //nolint:containedctx // it bounds one body and lives no longer
	b    *Bucket
	key  string
	left int64 // bytes that have to come
}

func (b *Bucket) newBody(ctx context.Context, r io.ReadCloser, key string, size int64) io.ReadCloser {
	return &body{r, ctx, b, key, size}
}

func (r *body) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, fmt.Errorf("read %s: %w", r.key, err)
	}
	n, err := r.ReadCloser.Read(p)
	r.left -= int64(n)
	switch {
	case r.left < 0:
		err = fmt.Errorf("%w: %d bytes too many", ErrNotS3, -r.left)
	case errors.Is(err, io.EOF) && r.left > 0:
		err = fmt.Errorf("%d bytes are missing: %w", r.left, io.ErrUnexpectedEOF)
	case err == nil, errors.Is(err, io.EOF):
		return n, err
	}
	return n, fmt.Errorf("read %s: %w", r.key, r.b.explain(r.ctx, err))
}
