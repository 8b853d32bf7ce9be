package s3

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/minio/minio-go/v7"

	"github.com/duramendb/duramen/chunkstore/bucket"
)

// maxNamed bounds the keys that one error names.
const maxNamed = 5

// Delete implements bucket.Bucket, 1000 keys a request. A request that fails ends it.
func (b *Bucket) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := bucket.ValidateKey(key); err != nil {
			return fmt.Errorf("delete: %w", err)
		}
	}
	for batch := range slices.Chunk(keys, maxEntries) {
		_, err := retry(ctx, b, func() (struct{}, error) { return struct{}{}, b.deleteBatch(ctx, batch) })
		if err != nil {
			return fmt.Errorf("delete: %w", err)
		}
	}
	return nil
}

// deleteBatch sends one request. It succeeds when the server says of each key that it is gone: the library passes over
// some refusals, and over keys that the answer leaves out.
func (b *Bucket) deleteBatch(ctx context.Context, keys []string) error {
	left := make(map[string]struct{}, len(keys))
	for _, key := range keys {
		left[key] = struct{}{}
	}
	results, err := b.client.RemoveObjectsWithIter(ctx, b.cfg.BucketName, infos(left), minio.RemoveObjectsOptions{})
	if err != nil {
		return err
	}
	var refused []error
	for r := range results {
		answer, answered := answerOf(r.Err)
		switch {
		case r.Err == nil, answered && answer.Code == minio.NoSuchKey && answer.StatusCode == 0:
			delete(left, r.ObjectName)
		case !answered || answer.StatusCode != 0:
			return r.Err // it concerns the request
		default:
			refused = append(refused, fmt.Errorf("%s: %w", r.ObjectName, answerError{answer}))
			delete(left, r.ObjectName)
		}
	}
	for key := range left {
		refused = append(refused, fmt.Errorf("%s: %w: nothing is said about it", key, ErrNotS3))
	}
	if err := ctx.Err(); err != nil && len(refused) > 0 {
		return err
	}
	return joinSome(refused)
}

func infos(keys map[string]struct{}) iter.Seq[minio.ObjectInfo] {
	return func(yield func(minio.ObjectInfo) bool) {
		for key := range keys {
			if !yield(minio.ObjectInfo{Key: key}) {
				return
			}
		}
	}
}

// joinSome joins the first errors and counts the others.
func joinSome(errs []error) error {
	if len(errs) > maxNamed {
		errs = append(errs[:maxNamed:maxNamed], fmt.Errorf("and %d more", len(errs)-maxNamed))
	}
	return errors.Join(errs...)
}
