// Package diskspace owns the question how much room a volume has. It refuses to reserve any: what is free now may be gone
// a moment later, so whoever writes still has to expect a full disk. Read compactor/merge next for a caller.
package diskspace

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/duramendb/duramen/internal/errkind"
)

// Free returns how many bytes a process may still write on the volume of dir, which exists.
func Free(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, errkind.Wrap(errkind.Unavailable, fmt.Errorf("ask for free space of %s: %w", dir, err))
	}
	return int64(st.Bavail) * st.Bsize, nil //nolint:gosec // bytes of a disk
}

// Require returns an error of kind Unavailable unless the volume of dir has room for about need bytes, with keep bytes left
// to others.
func Require(dir string, need, keep int64) error {
	free, err := Free(dir)
	if err == nil && free < need+keep {
		err = errkind.New(errkind.Unavailable, "scratch folder has %d bytes free; about %d are needed, and %d are to stay free",
			free, need, keep)
	}
	return err
}
