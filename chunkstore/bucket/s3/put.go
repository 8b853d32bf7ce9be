package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/minio/minio-go/v7"

	"github.com/duramendb/duramen/chunkstore/bucket"
)

// Put implements bucket.Bucket. The body, or a part of it, is in memory before it is sent: so a reader of another
// length is found out before there is an object, a lost request can be sent again, and no connection reads from r when
// Put has returned.
func (b *Bucket) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	if err := bucket.ValidateKey(key); err != nil {
		return fmt.Errorf("put: %w", err)
	}
	if err := b.put(ctx, key, r, size); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	return nil
}

func (b *Bucket) put(ctx context.Context, key string, r io.Reader, size int64) error {
	switch {
	case size < 0:
		return fmt.Errorf("negative size %d", size)
	case size > b.cfg.PartSizeBytes:
		return b.putParts(ctx, key, r, size)
	}
	release, err := b.acquire(ctx, size)
	if err != nil {
		return err
	}
	defer release()
	data, err := readBody(ctx, r, size, true)
	if err != nil {
		return err
	}
	_, err = retry(ctx, b, func() (minio.UploadInfo, error) {
		return b.putObject(ctx, key, data, b.putOptions())
	})
	return err
}

// PutIfAbsent implements bucket.Bucket: one request with "If-None-Match: *", never repeated.
func (b *Bucket) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	if err := bucket.ValidateKey(key); err != nil {
		return fmt.Errorf("put if absent: %w", err)
	}
	opts := b.putOptions()
	opts.SetMatchETagExcept("*")
	// A copy, because a connection may read from it for a moment longer when the server answers early.
	_, err := b.putObject(ctx, key, bytes.Clone(data), opts)
	b.keys.refused(err)
	switch {
	case taken(err):
		err = fmt.Errorf("%w (%w)", bucket.ErrExists, err)
	case unsupported(err):
		err = fmt.Errorf("%w: %w", bucket.ErrUnconditional, err)
	}
	if err != nil {
		return fmt.Errorf("put %s if absent: %w", key, b.explain(ctx, err))
	}
	return nil
}

// taken says whether a conditional put failed because of another object or another put of the same key.
func taken(err error) bool {
	answer, ok := answerOf(err)
	if !ok {
		return false
	}
	switch answer.StatusCode {
	case http.StatusPreconditionFailed:
		return true
	case http.StatusConflict:
		// Other conflicts concern the bucket and pass for no loser's.
		return answer.Code == "ConditionalRequestConflict" || answer.Code == "OperationAborted" ||
			answer.Code == minio.Conflict
	default:
		return false
	}
}

// unsupported says whether the server has no conditional puts and says so.
func unsupported(err error) bool {
	answer, ok := answerOf(err)
	return ok && answer.StatusCode == http.StatusNotImplemented
}

// putObject sends one request. The server refuses data that does not match its hash.
func (b *Bucket) putObject(
	ctx context.Context, key string, data []byte, opts minio.PutObjectOptions,
) (minio.UploadInfo, error) {
	return b.client.PutObject(ctx, b.cfg.BucketName, key,
		bytes.NewReader(data), int64(len(data)), "", hashOf(data), opts)
}

func (b *Bucket) putOptions() minio.PutObjectOptions {
	// The hash of the whole is sent ahead, in place of one for each chunk.
	return minio.PutObjectOptions{ServerSideEncryption: b.sse, DisableContentSha256: true}
}

func hashOf(data []byte) string {
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}

// acquire waits until n bytes of memory for bodies are free. The caller calls release.
func (b *Bucket) acquire(ctx context.Context, n int64) (release func(), err error) {
	if n > b.cfg.UploadBufferBytes {
		return nil, fmt.Errorf("a part has %d bytes, upload_buffer_bytes is %d", n, b.cfg.UploadBufferBytes)
	}
	if err := b.uploads.Acquire(ctx, n); err != nil {
		return nil, err
	}
	b.m.buffered.Add(float64(n))
	return func() {
		b.m.buffered.Sub(float64(n))
		b.uploads.Release(n)
	}, nil
}

// readBody reads the next n bytes of r, and when they are the last makes sure of that.
func readBody(ctx context.Context, r io.Reader, n int64, last bool) ([]byte, error) {
	r = contextReader{ctx, r}
	data := make([]byte, n)
	switch got, err := io.ReadFull(r, data); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("body ends %d bytes early: %w", n-int64(got), io.ErrUnexpectedEOF)
	case err != nil:
		return nil, err
	}
	if !last {
		return data, nil
	}
	switch more, err := io.CopyN(io.Discard, r, 1); {
	case more > 0:
		return nil, errors.New("body is longer than its size")
	case !errors.Is(err, io.EOF):
		return nil, err
	}
	return data, nil
}

// contextReader is a reader that ends with its context.
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
