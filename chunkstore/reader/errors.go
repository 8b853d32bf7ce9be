package reader

import (
	"context"
	"errors"
	"fmt"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/internal/errkind"
)

// ErrDamaged means that an object is there but does not hold what the block's other objects say.
var ErrDamaged = errors.New("object is damaged")

// errNoSidecar means that a sidecar went away whose directory was read before.
var errNoSidecar = errors.New("the sidecar is not there any more")

// ErrClosed means that a querier or session was used or closed after its Close.
var ErrClosed = errors.New("querier is closed")

// objectError explains a failure to read the object key of a block. One that already has a kind passes, unless the object
// is not there.
func objectError(tenant string, id ulid.ULID, key string, err error) error {
	var kinded *errkind.Error
	gone := errors.Is(err, bucket.ErrNotFound)
	if err == nil || errors.Is(err, ErrGone) || errors.As(err, &kinded) && !gone {
		return err
	}
	if gone {
		err = fmt.Errorf("%w: %w", ErrGone, err)
	}
	err = fmt.Errorf("read block %s of tenant %s: object %s: %w", id, tenant, key, err)
	switch {
	case isContextError(err):
		return err
	case errors.Is(err, ErrDamaged) && !gone:
		return errkind.Wrap(errkind.Corrupt, err)
	default:
		return errkind.Wrap(errkind.Unavailable, err)
	}
}

// blockError explains an error that decoding a part of a block gave. One that already has a kind passes.
func blockError(tenant string, id ulid.ULID, err error) error {
	var kinded *errkind.Error
	if err == nil || errors.As(err, &kinded) || isContextError(err) {
		return err
	}
	return errkind.New(errkind.Corrupt, "read block %s of tenant %s: %w: %w", id, tenant, ErrDamaged, err)
}

// recovered turns a panic of a decoder, which a crafted or damaged block may provoke, into an error.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = panicError(p)
	}
}

func panicError(p any) error { return fmt.Errorf("%w: decoder panicked: %v", ErrDamaged, p) }

func isContextError(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
