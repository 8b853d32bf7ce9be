package bucket

import (
	"context"
	"fmt"
	"io"
)

// contextReader is a reader that ends with its context, for sources that know no context themselves.
type contextReader struct {
	ctx context.Context //nolint:containedctx // it bounds one body and lives no longer
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// body is a contextReader over a part of something that has to be closed.
type body struct {
	contextReader
	io.Closer
}

func newBody(ctx context.Context, r io.Reader, c io.Closer) io.ReadCloser {
	return body{contextReader{ctx, r}, c}
}

// copyExactly copies r to w and fails unless r yields exactly size bytes before ctx ends.
func copyExactly(ctx context.Context, w io.Writer, r io.Reader, size int64) error {
	if size < 0 {
		return fmt.Errorf("negative size %d", size)
	}
	r = contextReader{ctx, r}
	n, err := io.Copy(w, io.LimitReader(r, size))
	if err != nil {
		return err
	}
	if n < size {
		return fmt.Errorf("body has %d bytes instead of %d: %w", n, size, io.ErrUnexpectedEOF)
	}
	switch more, err := io.CopyN(io.Discard, r, 1); {
	case more > 0:
		return fmt.Errorf("body has more than %d bytes", size)
	case err != io.EOF: //nolint:errorlint // CopyN returns the bare EOF of an exhausted reader
		return err
	default:
		return nil
	}
}

// checkRange refuses what GetRange calls an error.
func checkRange(off, length int64) error {
	if off < 0 || length < 0 {
		return fmt.Errorf("negative range: offset %d, length %d", off, length)
	}
	return nil
}
