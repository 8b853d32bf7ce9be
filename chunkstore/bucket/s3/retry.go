package s3

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"
)

const (
	// tries is how often an operation that may be repeated is tried. Four tries span about a second, which covers a
	// throttled request and a failed over node; longer outages are the caller's to wait for, who knows how long it can.
	tries = 4
	// firstPause is the mean of the first pause between two tries. It doubles. Up to 200 ms come on top, which the
	// library waits after a failure of its only try.
	firstPause = 100 * time.Millisecond
)

// folderGone is how versitygw, whose objects are files, refuses a put when the folder that it is to go to is just being
// removed behind the last object in it. The refusal is certain and passes at once. Its other cause, an object under the
// name of a folder, does not pass; keys of ours never meet so.
const folderGone = "ExistingObjectIsDirectory"

// retry calls do until it succeeds, fails for good or has failed too often. The library's own retry is switched off: it
// tries up to ten times, also what must not be repeated, and rewinds a body that the previous request may still read.
func retry[T any](ctx context.Context, b *Bucket, do func() (T, error)) (T, error) {
	for try := 1; ; try++ {
		v, err := do()
		b.keys.refused(err)
		if err == nil || try == tries || !retryable(ctx, err) {
			return v, b.explain(ctx, err)
		}
		b.m.retries.Inc()
		pause := time.NewTimer(time.Duration((0.5 + rand.Float64()) * float64(b.pause<<(try-1)))) //nolint:gosec // no secret
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return v, b.explain(ctx, err)
		}
	}
}

// retryable says whether trying again may help.
func retryable(ctx context.Context, err error) bool {
	if ctx.Err() != nil || errors.Is(err, ErrNoCredentials) || errors.Is(err, http.ErrSchemeMismatch) {
		return false
	}
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	if errors.As(err, &certificate) || errors.As(err, &record) {
		return false
	}
	answer, ok := answerOf(err)
	if !ok {
		return true // the way there is broken, or what answered
	}
	switch answer.Code {
	case folderGone:
		return true
	case minio.InternalError, "SlowDown", "SlowDownRead", "SlowDownWrite", "RequestTimeout", "ServiceUnavailable",
		"Throttling", "ThrottlingException", "RequestThrottled", "RequestLimitExceeded", "ExpiredToken",
		"ExpiredTokenException":
		return true
	}
	switch answer.StatusCode {
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return false
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	default:
		return answer.StatusCode >= http.StatusInternalServerError
	}
}
