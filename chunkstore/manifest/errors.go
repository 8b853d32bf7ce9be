package manifest

import (
	"context"
	"errors"
	"fmt"

	"github.com/duramendb/duramen/internal/errkind"
)

// errAbsent means that there is no such version. It does not leave the package.
var errAbsent = errors.New("no such manifest version")

// ErrConflict means that a change does not fit the newest version of a manifest. It is of kind Unprocessable: repeating it
// as it is does not help.
var ErrConflict = errors.New("change conflicts with the manifest")

func conflict(format string, args ...any) error {
	return errkind.New(errkind.Unprocessable, "%w: %w", ErrConflict, fmt.Errorf(format, args...))
}

// errUnlisted means that no block to annotate is listed. It does not leave the package.
var errUnlisted = errors.New("block is not listed")

// unavailable gives an error of the bucket its kind, unless it has one or the caller went away.
func unavailable(err error) error {
	var kinded *errkind.Error
	if errors.As(err, &kinded) || errors.Is(err, context.Canceled) {
		return err
	}
	return errkind.Wrap(errkind.Unavailable, err)
}
