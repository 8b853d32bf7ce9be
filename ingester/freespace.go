package ingester

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/duramendb/duramen/internal/errkind"
)

const (
	// autoMinFreeBytes and autoMinFreeShare are the default floor of a volume: the larger of 2 GiB and 5 %. It leaves room
	// for what goes on while writes are refused: one head cut of a big tenant, a checkpoint, a rewritten segment.
	autoMinFreeBytes = 2 << 30
	autoMinFreeShare = 0.05

	// freeSpaceAge is how long one look at the volume counts. At 1 GB/s a volume loses 1 GB in it, half the default.
	freeSpaceAge = time.Second

	freeSpaceRetryAfter = 10 * time.Second
)

// statVolume returns the bytes that an unprivileged process may still write to the volume of path, and its size.
type statVolume func(path string) (free, size uint64, err error)

// freeSpace refuses writes before the volume is full, so that a log never meets ENOSPC in the middle of a record. Reads
// and shipping do not ask it: shipping is what makes room. Safe for concurrent use.
type freeSpace struct {
	root    string
	minFree uint64 // 0: the larger of autoMinFreeBytes and autoMinFreeShare of the volume
	now     func() time.Time
	stat    statVolume

	mu     sync.Mutex
	looked time.Time
	err    error
}

// newFreeSpace watches the volume of root. minFree is in bytes; 0 means the larger of 2 GiB and 5 % of the volume.
func newFreeSpace(root string, minFree uint64, now func() time.Time) *freeSpace {
	return &freeSpace{root: root, minFree: minFree, now: now, stat: statfs}
}

// check returns nil while the volume has room, else an error of kind Unavailable that names the free and the least
// number of bytes. It looks at the volume at most once a second.
func (f *freeSpace) check() error {
	now := f.now()
	f.mu.Lock()
	defer f.mu.Unlock()
	if age := now.Sub(f.looked); age >= 0 && age < freeSpaceAge && !f.looked.IsZero() {
		return f.err
	}
	f.looked, f.err = now, f.look()
	return f.err
}

func (f *freeSpace) look() error {
	free, size, err := f.stat(f.root)
	if err != nil {
		return errkind.Wrap(errkind.Unavailable, fmt.Errorf("free space of %s: %w", f.root, err))
	}
	least := f.least(size)
	if free >= least {
		return nil
	}
	return &errkind.Error{
		Kind:       errkind.Unavailable,
		RetryAfter: freeSpaceRetryAfter,
		Err: fmt.Errorf("volume of %s has %d bytes free, writes need at least %d (-ingester.min-free-bytes)",
			f.root, free, least),
	}
}

// least returns the free bytes that writes need on a volume of this size.
func (f *freeSpace) least(size uint64) uint64 {
	if f.minFree != 0 {
		return f.minFree
	}
	return max(autoMinFreeBytes, uint64(autoMinFreeShare*float64(size)))
}

func statfs(path string) (free, size uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, 0, err
	}
	return st.Bavail * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), nil
}
