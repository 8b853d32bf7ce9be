package s3

import (
	"bytes"
	"context"
	"io"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
)

const (
	// abortTimeout bounds the cleaning up after a failed upload.
	abortTimeout = 10 * time.Second
	// hurriedAbortTimeout is for a caller who has given up, mostly because the process is to end: enough for a server
	// that answers, and no reason for a supervisor to send SIGKILL when it does not.
	hurriedAbortTimeout = 2 * time.Second
)

// putParts sends an object in parts. It appears when all of them are there and the server is told to join them;
// whatever fails before leaves nothing.
func (b *Bucket) putParts(ctx context.Context, key string, r io.Reader, size int64) error {
	id, err := retry(ctx, b, func() (string, error) {
		return b.client.NewMultipartUpload(ctx, b.cfg.BucketName, key, b.putOptions())
	})
	if err != nil {
		return err
	}
	parts, err := b.sendParts(ctx, key, id, r, size)
	if err == nil {
		// When an answer gets lost after the fact, the next try finds no upload any more and Put fails although the
		// object is there, which is among what an error of Put may mean.
		_, err = retry(ctx, b, func() (minio.UploadInfo, error) {
			opts := minio.PutObjectOptions{}
			return b.client.CompleteMultipartUpload(ctx, b.cfg.BucketName, key, id, parts, opts)
		})
	}
	if err != nil {
		b.abort(ctx, key, id)
	}
	return err
}

// sendParts reads one part after the other and sends as many at a time as there is memory for. It returns when no part
// is on its way any more.
func (b *Bucket) sendParts(
	ctx context.Context, key, id string, r io.Reader, size int64,
) ([]minio.CompletePart, error) {
	// A failure ends reading only. Parts that are on their way are waited for, because a server may store a part after
	// the upload was aborted, and then keeps it.
	reading, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	partSize := max(b.cfg.PartSizeBytes, (size+maxParts-1)/maxParts)
	parts := make([]minio.CompletePart, (size+partSize-1)/partSize)
	var sending sync.WaitGroup
	for i := range parts {
		left := size - int64(i)*partSize
		data, release, err := b.readPart(reading, r, min(left, partSize), left <= partSize)
		if err != nil {
			fail(err) // unless a part failed before, which then is why reading ended
			break
		}
		sending.Go(func() {
			defer release()
			etag, err := b.sendPart(ctx, key, id, i+1, data)
			if err != nil {
				fail(err)
			}
			parts[i] = minio.CompletePart{PartNumber: i + 1, ETag: etag}
		})
	}
	sending.Wait()
	return parts, context.Cause(reading)
}

func (b *Bucket) readPart(ctx context.Context, r io.Reader, n int64, last bool) ([]byte, func(), error) {
	release, err := b.acquire(ctx, n)
	if err != nil {
		return nil, nil, err
	}
	data, err := readBody(ctx, r, n, last)
	if err != nil {
		release()
		return nil, nil, err
	}
	return data, release, nil
}

func (b *Bucket) sendPart(ctx context.Context, key, id string, number int, data []byte) (string, error) {
	hash := hashOf(data)
	part, err := retry(ctx, b, func() (minio.ObjectPart, error) {
		return b.client.PutObjectPart(ctx, b.cfg.BucketName, key, id, number, bytes.NewReader(data), int64(len(data)),
			minio.PutObjectPartOptions{Sha256Hex: hash, DisableContentSha256: true})
	})
	return part.ETag, err
}

// abort removes the parts of a failed upload, also when the caller's context has ended. What cannot be removed is left to
// the bucket's lifecycle rule.
func (b *Bucket) abort(ctx context.Context, key, id string) {
	timeout := abortTimeout
	if ctx.Err() != nil {
		timeout = hurriedAbortTimeout
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	_, err := retry(ctx, b, func() (struct{}, error) {
		return struct{}{}, b.client.AbortMultipartUpload(ctx, b.cfg.BucketName, key, id)
	})
	if answer, ok := answerOf(err); err == nil || ok && answer.Code == minio.NoSuchUpload {
		return
	}
	b.m.leftovers.Inc()
	b.log.Warn("parts of a failed upload left behind", "bucket", b.name, "key", key, "err", err)
}
