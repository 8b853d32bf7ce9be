package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/duramendb/duramen/chunkstore/bucket"
)

// Get implements bucket.Bucket.
func (b *Bucket) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	if err := bucket.ValidateKey(key); err != nil {
		return nil, fmt.Errorf("get: %w", err)
	}
	r, err := retry(ctx, b, func() (io.ReadCloser, error) { return b.get(ctx, key) })
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	return r, nil
}

func (b *Bucket) get(ctx context.Context, key string) (io.ReadCloser, error) {
	r, info, _, err := b.client.GetObject(ctx, b.cfg.BucketName, key, minio.GetObjectOptions{})
	if err != nil {
		return nil, err
	}
	if info.Size < 0 {
		return nil, errors.Join(fmt.Errorf("%w: an object without a length", ErrNotS3), r.Close())
	}
	return b.newBody(ctx, r, key, info.Size), nil
}

// GetRange implements bucket.Bucket.
func (b *Bucket) GetRange(ctx context.Context, key string, off, length int64) (io.ReadCloser, error) {
	if err := bucket.ValidateKey(key); err != nil {
		return nil, fmt.Errorf("get range: %w", err)
	}
	if off < 0 || length < 0 {
		return nil, fmt.Errorf("get range of %s: negative range: offset %d, length %d", key, off, length)
	}
	if length == 0 {
		// The protocol has no empty ranges; what is left is whether the object exists.
		if _, err := b.stat(ctx, key); err != nil {
			return nil, fmt.Errorf("get range of %s: %w", key, err)
		}
		return http.NoBody, nil
	}
	r, err := retry(ctx, b, func() (io.ReadCloser, error) { return b.getRange(ctx, key, off, length) })
	if err != nil {
		return nil, fmt.Errorf("get range of %s: %w", key, err)
	}
	return r, nil
}

func (b *Bucket) getRange(ctx context.Context, key string, off, length int64) (io.ReadCloser, error) {
	last := int64(math.MaxInt64)
	if length <= math.MaxInt64-off {
		last = off + length - 1
	}
	opts := minio.GetObjectOptions{}
	opts.Set("Range", fmt.Sprintf("bytes=%d-%d", off, last))
	r, info, header, err := b.client.GetObject(ctx, b.cfg.BucketName, key, opts)
	if err != nil {
		if answer, ok := answerOf(err); ok && answer.StatusCode == http.StatusRequestedRangeNotSatisfiable {
			return http.NoBody, nil // the object exists and ends before off
		}
		return nil, err
	}
	n, err := rangeLength(header.Get("Content-Range"), info.Size, off, last)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return b.newBody(ctx, r, key, n), nil
}

// rangeLength says how many bytes a body has to have that answers a request for the bytes off to last, both inclusive.
func rangeLength(contentRange string, contentLength, off, last int64) (int64, error) {
	if contentRange == "" && off == 0 && contentLength >= 0 && contentLength-1 <= last {
		return contentLength, nil // the whole object, which is the range
	}
	first, end, size, err := parseContentRange(contentRange)
	if err != nil {
		return 0, fmt.Errorf("%w to the range %d-%d: %w", ErrNotS3, off, last, err)
	}
	want := min(last, size-1)
	if first != off || end != want || contentLength >= 0 && contentLength != end-first+1 {
		return 0, fmt.Errorf("%w to the range %d-%d: %q with a length of %d",
			ErrNotS3, off, last, contentRange, contentLength)
	}
	return end - first + 1, nil
}

// parseContentRange parses "bytes FIRST-END/SIZE".
func parseContentRange(s string) (first, end, size int64, err error) {
	bad := fmt.Errorf("Content-Range is %q", s)
	bounds, total, ok := strings.Cut(strings.TrimPrefix(s, "bytes "), "/")
	if !ok {
		return 0, 0, 0, bad
	}
	from, to, ok := strings.Cut(bounds, "-")
	if !ok {
		return 0, 0, 0, bad
	}
	for _, number := range []struct {
		text string
		into *int64
	}{{from, &first}, {to, &end}, {total, &size}} {
		n, err := strconv.ParseUint(number.text, 10, 63)
		if err != nil {
			return 0, 0, 0, bad
		}
		*number.into = int64(n)
	}
	return first, end, size, nil
}

// Stat implements bucket.Bucket.
func (b *Bucket) Stat(ctx context.Context, key string) (bucket.Object, error) {
	if err := bucket.ValidateKey(key); err != nil {
		return bucket.Object{}, fmt.Errorf("stat: %w", err)
	}
	o, err := b.stat(ctx, key)
	if err != nil {
		return bucket.Object{}, fmt.Errorf("stat %s: %w", key, err)
	}
	return o, nil
}

func (b *Bucket) stat(ctx context.Context, key string) (bucket.Object, error) {
	return retry(ctx, b, func() (bucket.Object, error) {
		info, err := b.client.StatObject(ctx, b.cfg.BucketName, key, minio.StatObjectOptions{})
		if answer, ok := answerOf(err); ok && answer.StatusCode == http.StatusNotFound {
			return bucket.Object{}, b.confirmMissing(ctx, key)
		}
		if err == nil && info.Size < 0 {
			err = fmt.Errorf("%w: an object without a length", ErrNotS3)
		}
		return bucket.Object{Key: key, Size: info.Size, LastModified: info.LastModified}, err
	})
}

// confirmMissing finds out what a 404 to HEAD means, which has no body that would say so. It always returns an error.
func (b *Bucket) confirmMissing(ctx context.Context, key string) error {
	r, err := b.getRange(ctx, key, 0, 1)
	if err != nil {
		return err
	}
	return errors.Join(fmt.Errorf("%w: the object is missing and there", ErrNotS3), r.Close())
}
