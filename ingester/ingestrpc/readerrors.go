package ingestrpc

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
)

var (
	// errSilent is why a client ends a call in which nothing comes for too long.
	errSilent = errors.New("it sent nothing for too long")
	// errShort means that an answer ended before the server said that it is whole.
	errShort = errors.New("the answer ended in its middle")
	// errFailing is why a call was not made: the last ones found nobody.
	errFailing = errors.New("it could not be reached, or has fallen silent, and is not back yet")
	// errStalled is why a server ends an answer that nobody reads.
	errStalled = errors.New("what was sent is not read")
	// errSelectionClosed is what a reader gets behind a Close.
	errSelectionClosed = errors.New("the selection is closed")
)

// told is the error that an ingester answered with.
func told(address string, e toldError) error {
	return &errkind.Error{Kind: e.kind, RetryAfter: e.retryAfter, Err: fmt.Errorf("ingester %s: %s", address, e.text)}
}

// broken is the error of a call in which the transport failed, or whose server does not keep to the protocol. ctx is the
// caller's: when it is over, that is the reason. call is the context of the call itself.
func broken(ctx, call context.Context, address string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("ingester %s: %w", address, context.Cause(ctx))
	}
	switch cause := context.Cause(call); {
	case errors.Is(cause, errSelectionClosed):
		return errkind.Wrap(errkind.Canceled, cause)
	case errors.Is(cause, errSilent):
		err = cause
	case errors.Is(err, io.EOF):
		err = errShort
	}
	s, ok := status.FromError(err)
	if !ok {
		return errkind.New(errkind.Unavailable, "%w: %s: %w", duramenpb.ErrAway, address, err)
	}
	switch s.Code() {
	case codes.DeadlineExceeded: // the caller's: the server has it, too, and may be faster than the own clock
		return fmt.Errorf("ingester %s: %w", address, context.DeadlineExceeded)
	case codes.InvalidArgument, codes.Unauthenticated, codes.PermissionDenied:
		return errkind.New(kindOf(s.Code()), "ingester %s: %s", address, s.Message())
	}
	return errkind.New(errkind.Unavailable, "%w: %s: %s: %s", duramenpb.ErrAway, address, s.Code(), s.Message())
}

// kindOf returns the kind of an error that was answered before a frame could be sent.
func kindOf(c codes.Code) errkind.Kind {
	for _, k := range []errkind.Kind{errkind.Invalid, errkind.Unauthenticated, errkind.Forbidden} {
		if k.GRPCCode() == c {
			return k
		}
	}
	return errkind.Internal
}

// crowdedError says why a read gets no place.
type crowdedError struct{ open, most, ofTenant int }

// Error implements error.
func (e *crowdedError) Error() string {
	return fmt.Sprintf("%d reads are being answered, %d of them of this tenant; at most %d can be, three quarters of them "+
		"for one tenant", e.open, e.ofTenant, e.most)
}
