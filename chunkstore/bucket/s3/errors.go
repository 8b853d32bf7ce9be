package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/duramendb/duramen/chunkstore/bucket"
)

// ErrNoBucket means that the server has no bucket of the configured name: create it, or correct bucket-name, endpoint
// or region.
var ErrNoBucket = errors.New("no such bucket")

// ErrDenied means that the server knows or trusts our credentials not, or not for this. Package documentation,
// "Permissions", says what they need.
var ErrDenied = errors.New("access denied")

// ErrNoCredentials means that nothing was asked of the server because no source of credentials has any.
var ErrNoCredentials = errors.New(
	"no credentials found; set access_key_id, AWS_ACCESS_KEY_ID, a shared credentials file or iam")

// ErrNotS3 means that something answered which is not an S3 server, such as a proxy, or one whose answer makes no
// sense.
var ErrNotS3 = errors.New("unexpected answer")

// explain turns an error of the library into ours. All but the sentinels of package bucket name the bucket.
func (b *Bucket) explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	for _, plain := range []error{bucket.ErrNotFound, bucket.ErrExists, bucket.ErrInvalidKey} {
		if errors.Is(err, plain) {
			return err
		}
	}
	if bare, isBare := err.(minio.ErrorResponse); isBare { //nolint:errorlint // wrapped ones have their own text
		err = answerError{bare}
	}
	if cause := ctx.Err(); cause != nil && !errors.Is(err, cause) {
		// What broke the connection off was we ourselves; the library does not always say so.
		err = fmt.Errorf("%w: %w", cause, err)
	}
	answer, ok := answerOf(err)
	switch {
	case !ok:
		return fmt.Errorf("%s: %w", b.name, err)
	case answer.Code == minio.NoSuchKey:
		return bucket.ErrNotFound
	case answer.Code == minio.NoSuchBucket:
		return fmt.Errorf("%s: %w: %w", b.name, ErrNoBucket, err)
	case denied(answer):
		return fmt.Errorf("%s: %w: %w", b.name, ErrDenied, err)
	default:
		return fmt.Errorf("%s: %w", b.name, err)
	}
}

// unknownUser is versitygw's word for a key that it does not know, with 404.
const unknownUser = "XAdminUserNotFound"

func denied(answer minio.ErrorResponse) bool {
	switch answer.Code {
	case minio.AccessDenied, "InvalidAccessKeyId", unknownUser:
		return true
	default:
		return answer.StatusCode == http.StatusForbidden || answer.StatusCode == http.StatusUnauthorized
	}
}

// answerOf returns the error that the server sent, if that is what err is about.
func answerOf(err error) (minio.ErrorResponse, bool) {
	var answer minio.ErrorResponse
	ok := errors.As(err, &answer)
	return answer, ok
}

// answerError prints what an operator needs to look an error up; the library prints the message alone.
type answerError struct{ minio.ErrorResponse }

func (e answerError) Error() string {
	s := fmt.Sprintf("%s: %s", e.Code, e.ErrorResponse.Error())
	if status := strconv.Itoa(e.StatusCode); e.StatusCode != 0 && !strings.HasPrefix(e.Code, status) {
		s = fmt.Sprintf("%d %s", e.StatusCode, s)
	}
	if e.RequestID != "" {
		s += ", request id " + e.RequestID
	}
	return s
}

func (e answerError) Unwrap() error { return e.ErrorResponse }
