package cache

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// slotFile is what the cache does with an open slot.
type slotFile interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
}

// diskEnv is the disk and the clock, for tests that need bad ones.
type diskEnv struct {
	create func(path string) (slotFile, error)
	open   func(path string) (slotFile, error)
	remove func(path string) error
	rename func(from, to string) error
	// volume returns the bytes that may still be written to the volume of dir, and its size.
	volume func(dir string) (free, size int64, err error)
	now    func() time.Time
}

func realDisk() diskEnv {
	return diskEnv{
		create: func(path string) (slotFile, error) {
			return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
		},
		open:   func(path string) (slotFile, error) { return os.OpenFile(path, os.O_RDWR, 0) },
		remove: os.Remove,
		rename: os.Rename,
		volume: statVolume,
		now:    time.Now,
	}
}

func statVolume(dir string) (free, size int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, err
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Blocks) * st.Bsize, nil
}

// lockName is the file whose lock says that a process uses the directory.
const lockName = "lock"

// lockDir locks the directory for as long as the file is open. The lock ends with the process, however that ends.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w: stop it, or set another -chunkstore.disk-cache.dir", dir, ErrLocked)
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return f, nil
}
