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

// lateError names the bucket when the time of a query is up, whoever it was that waited for the bucket.
func (r *Reader) lateError(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s did not answer in time: %w", r.bkt.Name(), err)
	}
	return err
}

// objectError explains a failure to read the object key of a block.
func objectError(tenant string, id ulid.ULID, key string, err error) error {
	err = fmt.Errorf("read block %s of tenant %s: object %s: %w", id, tenant, key, err)
	switch {
	case isContextError(err):
		return err
	case errors.Is(err, bucket.ErrNotFound), errors.Is(err, ErrDamaged):
		return errkind.Wrap(errkind.Corrupt, err)
	default:
		return errkind.Wrap(errkind.Unavailable, err)
	}
}

// blockError explains an error that reading the decoded parts of a block gave. One that already has a kind passes.
func blockError(tenant string, id ulid.ULID, err error) error {
	var kinded *errkind.Error
	if err == nil || errors.As(err, &kinded) || isContextError(err) {
		return err
	}
	return errkind.New(errkind.Corrupt, "read block %s of tenant %s: %w: %w", id, tenant, ErrDamaged, err)
}

// recovered turns a panic of a decoder, which a crafted or damaged block may provoke, into an error of that block.
func recovered(tenant string, id ulid.ULID, err *error) {
	if p := recover(); p != nil {
		*err = blockError(tenant, id, fmt.Errorf("decoder panicked: %v", p))
	}
}

func isContextError(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
