// Package errkind names the kinds of failure that cross a service boundary and maps each kind, in one table, to an
// HTTP status, a gRPC code and the answer to "may the caller retry?". It holds no transport and no policy of its own.
// Read package distributor next to see a kind become the answer to a remote write.
package errkind

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"google.golang.org/grpc/codes"
)

// Kind says what sort of failure an error is. The zero value is Internal: an error that nobody classified is ours.
type Kind uint8

// The kinds. Their HTTP statuses, gRPC codes and retry answers are in the table below and nowhere else.
const (
	// Internal is a fault of ours that no other kind describes.
	Internal Kind = iota
	// Invalid is a request that can never succeed as it is.
	Invalid
	// Unprocessable is a well-formed request whose execution is refused, such as a query over a limit.
	Unprocessable
	// Unauthenticated is a request without a tenant or with wrong credentials.
	Unauthenticated
	// Forbidden is a request of a known caller who lacks the permission.
	Forbidden
	// NotFound is a request for something that does not exist.
	NotFound
	// Gone is a request for something that was there and is being deleted, or has been.
	Gone
	// TooLarge is a request whose body exceeds a size limit.
	TooLarge
	// UnsupportedMedia is a request in a content type or encoding that is not spoken here.
	UnsupportedMedia
	// Limited is a request over a rate; it may be sent again after RetryAfter.
	Limited
	// Canceled is a request whose caller went away.
	Canceled
	// Unavailable is a passing inability: no quorum, overload, starting up. Sending again is safe.
	Unavailable
	// Corrupt is stored data that cannot be read. It concerns one tenant and does not pass by itself.
	Corrupt
	// Misdirected is a request that another process has to answer, which the text names.
	Misdirected
)

// statusClientClosedRequest is what proxies and Prometheus log for a request whose client went away.
const statusClientClosedRequest = 499

// mapping is the one table: kind → name, HTTP status, gRPC code, retry.
var mapping = [...]struct {
	name  string
	http  int
	grpc  codes.Code
	retry bool
}{
	Internal:         {"internal", http.StatusInternalServerError, codes.Internal, false},
	Invalid:          {"invalid", http.StatusBadRequest, codes.InvalidArgument, false},
	Unprocessable:    {"unprocessable", http.StatusUnprocessableEntity, codes.FailedPrecondition, false},
	Unauthenticated:  {"unauthenticated", http.StatusUnauthorized, codes.Unauthenticated, false},
	Forbidden:        {"forbidden", http.StatusForbidden, codes.PermissionDenied, false},
	NotFound:         {"not_found", http.StatusNotFound, codes.NotFound, false},
	Gone:             {"gone", http.StatusGone, codes.Aborted, false},
	TooLarge:         {"too_large", http.StatusRequestEntityTooLarge, codes.OutOfRange, false},
	UnsupportedMedia: {"unsupported_media", http.StatusUnsupportedMediaType, codes.Unimplemented, false},
	Limited:          {"limited", http.StatusTooManyRequests, codes.ResourceExhausted, true},
	Canceled:         {"canceled", statusClientClosedRequest, codes.Canceled, true},
	Unavailable:      {"unavailable", http.StatusServiceUnavailable, codes.Unavailable, true},
	Corrupt:          {"corrupt", http.StatusInternalServerError, codes.DataLoss, false},
	Misdirected:      {"misdirected", http.StatusMisdirectedRequest, codes.FailedPrecondition, false},
}

// String returns the kind's name as it stands in metrics and logs.
func (k Kind) String() string { return mapping[k].name }

// Named returns the kind whose String is name. One that this build does not know is Internal.
func Named(name string) Kind {
	for k := range Kind(len(mapping)) {
		if mapping[k].name == name {
			return k
		}
	}
	return Internal
}

// HTTPStatus returns the status code that answers an error of this kind.
func (k Kind) HTTPStatus() int { return mapping[k].http }

// GRPCCode returns the gRPC code that answers an error of this kind.
func (k Kind) GRPCCode() codes.Code { return mapping[k].grpc }

// Retry reports whether sending the same request again is safe and may succeed.
func (k Kind) Retry() bool { return mapping[k].retry }

// Error is an error with a kind. RetryAfter, when positive, tells the caller how long to wait.
type Error struct {
	Kind       Kind
	RetryAfter time.Duration
	Err        error
}

// Error returns the text of the wrapped error; the kind is not part of it.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the wrapped error.
func (e *Error) Unwrap() error { return e.Err }

// New returns an error of the given kind with a formatted text; %w works as in fmt.Errorf.
func New(k Kind, format string, args ...any) error {
	return &Error{Kind: k, Err: fmt.Errorf(format, args...)}
}

// Wrap gives err a kind and leaves its text alone. A nil err stays nil.
func Wrap(k Kind, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Kind: k, Err: err}
}

// Of returns the kind of the outermost Error in err's chain. A cancelled context is Canceled, an expired one
// Unavailable; anything else is Internal.
func Of(err error) Kind {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Kind
	case errors.Is(err, context.Canceled):
		return Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return Unavailable
	default:
		return Internal
	}
}

// RetryAfter returns how long the caller should wait before it sends again; zero when err does not say.
func RetryAfter(err error) time.Duration {
	var e *Error
	if errors.As(err, &e) {
		return e.RetryAfter
	}
	return 0
}
