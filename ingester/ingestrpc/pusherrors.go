package ingestrpc

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/status"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
)

var (
	// errLate means that the time which the sender waits for an answer was over before the section's turn came.
	errLate = errors.New("the ingester did not answer in time")
	// errFull means that the ingester owes answers for as much as it may.
	errFull = errors.New("too much is on its way to the ingester")
	// errAway means that the connection to the ingester fails.
	errAway = errors.New("the ingester cannot be reached")
	// errClientClosed means that this process stops.
	errClientClosed = errors.New("the client of the ingesters is closed")
	// errDraining means that the ingester's process stops.
	errDraining = errors.New("the ingester is shutting down")
)

// unreached is an error of the way to an ingester: what became of the section is unknown, and to send it again is safe.
func unreached(address string, err error) error {
	return errkind.New(errkind.Unavailable, "ingester %s: %w", address, err)
}

// undecodable is the error of a section that could not be read. A version that is not known here may be by another replica,
// or here after an update; anything else is a fault of ours.
func undecodable(err error) error {
	if errors.Is(err, duramenpb.ErrVersion) {
		return errkind.Wrap(errkind.Unavailable, err)
	}
	return errkind.Wrap(errkind.Internal, err)
}

// plain is the text of an error of gRPC without what only gRPC's developers need.
func plain(err error) error {
	if s, ok := status.FromError(err); ok {
		return fmt.Errorf("%s: %s", s.Code(), s.Message())
	}
	return err
}
