package gateway

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/duramendb/duramen/chunkstore/reader"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/rpcframe"
)

// errShort means that a server ended its answer before it said that it is whole.
var errShort = errors.New("the answer ended in its middle")

// remoteError is an error of a server with its text. It keeps being reader.ErrGone across the network.
type remoteError struct {
	text string
	gone bool
}

func (e *remoteError) Error() string { return e.text }

// Is implements what errors.Is asks.
func (e *remoteError) Is(target error) bool { return e.gone && target == reader.ErrGone }

func errorFrame(err error) []byte {
	frame := rpcframe.AppendText([]byte{frameError}, errkind.Of(err).String())
	gone := byte(0)
	if errors.Is(err, reader.ErrGone) {
		gone = 1
	}
	frame = append(frame, gone)
	frame = binary.AppendUvarint(frame, milliseconds(errkind.RetryAfter(err)))
	return rpcframe.AppendText(frame, err.Error())
}

// decodeError returns what a frame of an error, without its first byte, says. decoded is false for a damaged frame.
func decodeError(frame []byte) (err error, decoded bool) {
	d := rpcframe.NewDecoder(frame)
	name, gone := d.Text(), d.Byte()
	after := d.Number(math.MaxInt32)
	text := d.Text()
	if d.Err() != nil {
		return d.Err(), false
	}
	return &errkind.Error{
		Kind: errkind.Named(name), RetryAfter: time.Duration(after) * time.Millisecond,
		Err: &remoteError{text: text, gone: gone == 1},
	}, true
}

// failure is why a server did not give an answer. When another is set, another server may give it.
type failure struct {
	member  Member
	err     error
	another bool
}

// Error says whose bucket lacks an object: a gateway on another bucket than its querier's looks like a loss of data.
func (f *failure) Error() string {
	if errors.Is(f.err, reader.ErrGone) {
		return fmt.Sprintf("store-gateway %s does not find it in its bucket: %v", f.member, f.err)
	}
	return fmt.Sprintf("store-gateway %s: %v", f.member, f.err)
}

func (f *failure) Unwrap() error { return f.err }

// answered is the failure that a server told.
func answered(m Member, err error) *failure {
	return &failure{m, err, errkind.Of(err) == errkind.Unavailable && !errors.Is(err, reader.ErrGone)}
}

// broken is the failure of a connection or of a stream, or of a server that does not keep to the protocol. ctx is the
// call's: when it is over, that is the reason.
func broken(ctx context.Context, m Member, err error) *failure {
	if errors.Is(err, io.EOF) {
		err = errShort
	}
	if ctx.Err() != nil {
		return &failure{m, fmt.Errorf("%w (%s)", context.Cause(ctx), describe(err)), false}
	}
	another := true
	switch status.Code(err) {
	case codes.InvalidArgument, codes.Unauthenticated, codes.PermissionDenied, codes.FailedPrecondition, codes.OutOfRange:
		another = false
	}
	return &failure{m, errkind.Wrap(errkind.Unavailable, errors.New(describe(err))), another}
}

// describe is the text of an error of gRPC without what only gRPC's developers need.
func describe(err error) string {
	if s, ok := status.FromError(err); ok {
		return fmt.Sprintf("%s: %s", s.Code(), s.Message())
	}
	return err.Error()
}

// noneLeft is the error of a block for which no server is left to ask.
func noneLeft(tenant, block string, failures []*failure) error {
	if len(failures) == 0 {
		return errkind.New(errkind.Unavailable, "read block %s of tenant %s: no store-gateway is known", block, tenant)
	}
	errs := make([]error, len(failures))
	for i, f := range failures {
		errs[i] = f
	}
	return errkind.New(errkind.Unavailable, "read block %s of tenant %s: no store-gateway answered: %w",
		block, tenant, errors.Join(errs...))
}
