package manifest

import (
	"context"
	"errors"

	"github.com/duramendb/duramen/internal/errkind"
)

// errAbsent means that there is no such version. It does not leave the package.
var errAbsent = errors.New("no such manifest version")

// unavailable gives an error of the bucket its kind, unless it has one or the caller went away.
func unavailable(err error) error {
	var kinded *errkind.Error
	if errors.As(err, &kinded) || errors.Is(err, context.Canceled) {
		return err
	}
	return errkind.Wrap(errkind.Unavailable, err)
}
